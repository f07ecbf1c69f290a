"""Pebble's recipe without its training: the world, the tokenizer, the lessons, and the way to a bundle.

What is trained must be what runs: an untrained Pebble is written, exported, and compared with the training network.
"""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import voxrill
from tests import signals

FOLDER = Path(__file__).parent.parent / "examples" / "pebble"


@pytest.fixture(scope="module")
def pebble(exporter):
    """The recipe's modules by name."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def untrained(pebble, exporter, tmp_path_factory):
    """An untrained network, and the model its checkpoint becomes by the ordinary export."""
    import torch

    from voxrill.export.checkpoint import open_checkpoint

    torch.manual_seed(0)
    codec, network = pebble("codec"), pebble("network")
    net = network.Pebble().eval()
    folder = tmp_path_factory.mktemp("pebble")
    network.write_checkpoint(net, codec.Detokenizer(), codec.detokenizer_config(), folder / "checkpoint")
    halved = {
        key: value.half().float() if value.is_floating_point() else value for key, value in net.state_dict().items()
    }
    net.load_state_dict(halved)
    exporter.export_bundle(open_checkpoint(folder / "checkpoint"), folder / "bundle")
    return net, voxrill.load(folder / "bundle", threads=1), folder


def test_the_world_is_closed_and_small(pebble):
    world = pebble("world")
    assert len({s.command for s in world.SENTENCES}) == len(world.SENTENCES)
    assert 300 <= len(world.SENTENCES) <= 1000
    assert len(world.WORDS) <= 250
    assert max(len(reply.split()) for reply in world.REPLIES) <= 10


def test_held_out_sentences_teach_no_new_word(pebble):
    world = pebble("world")
    trained = {word for s in world.SENTENCES if not s.held_out for word in f"{s.command} {s.reply}".split()}
    held_out = {word for s in world.SENTENCES if s.held_out for word in f"{s.command} {s.reply}".split()}
    assert held_out
    assert held_out <= trained


def test_sentences_outside_the_world_are_outside_and_reproducible(pebble):
    world = pebble("world")
    outside = [world.outside_sentence(i) for i in range(300)]
    assert outside == [world.outside_sentence(i) for i in range(300)]
    assert all(any(word not in world.WORDS for word in text.split()) for text in outside)


def test_every_sentence_is_spelled_by_the_tokenizer(pebble):
    world, tokenizer = pebble("world"), pebble("vocabulary").build_tokenizer()
    for text in (*world.REPLIES, *(s.command for s in world.SENTENCES)):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    ids = tokenizer.encode("Kitchen lights on.", add_special_tokens=False).ids
    assert ids == tokenizer.encode("kitchen lights on", add_special_tokens=False).ids
    assert tokenizer.token_to_id("<|unknown|>") in tokenizer.encode("elephant", add_special_tokens=False).ids


def made_up_voices(pebble):
    codec, world = pebble("codec"), pebble("world")
    codes = {word: signals.codes(3 + i % 4, i).T.astype(np.int64) % codec.CODES for i, word in enumerate(world.WORDS)}
    return {name: codec.Voice({}, codes) for name in codec.SPEAKERS}


def test_lessons_are_what_the_runtime_asks(pebble, untrained):
    """The prompt of a lesson, token for token as the runtime assembles it."""
    tasks = pebble("tasks")
    _, model, _ = untrained
    context = model.conversation().context
    lesson = tasks.speech("kitchen lights on", "US female", made_up_voices(pebble))
    speech = voxrill.Conversation(model, model.manifest.tasks.speak, "Perform TTS. Use the US female voice.")
    with speech.context.turn("user"):
        speech.context.add_text("kitchen lights on")
    speech.context.open_turn("assistant")
    rows = model.parts.embed_tokens([*lesson.before, *lesson.after])
    assert speech.context.positions == len(rows)
    assert np.array_equal(np.concatenate(speech.context._waiting), rows)
    with context.turn("user"):
        pass
    context.open_turn("assistant")
    silent = tasks.dialogue("kitchen lights on", 0, made_up_voices(pebble))
    assert np.array_equal(np.concatenate(context._waiting), model.parts.embed_tokens([*silent.before, *silent.after]))


def test_dialogue_follows_the_interleaved_pattern(pebble):
    tasks = pebble("tasks")
    voices = made_up_voices(pebble)
    lesson = tasks.dialogue("playing classical in the living room", 5, voices)
    kinds = ["t" if isinstance(item, int) else "a" for item in lesson.answer]
    assert kinds[:18] == ["t"] * 6 + ["a"] * 12
    frames = [item for item in lesson.answer if not isinstance(item, int)]
    text = [item for item in lesson.answer if isinstance(item, int)]
    assert text[-2:] == [tasks.TEXT_END, tasks.IM_END]
    assert (frames[-1] == tasks.END_OF_AUDIO).all()
    assert np.array_equal(np.stack(frames[:-1]), voices["female"].say("playing classical in the living room"))
    assert len(lesson.words) == len(lesson.starts) == len(lesson.answer)


def test_what_is_trained_is_what_runs(pebble, untrained):
    """Hidden states, text logits and code logits of the training network and of the exported graphs."""
    import torch

    tasks, network = pebble("tasks"), pebble("network")
    net, model, _ = untrained
    lesson = tasks.speech("what is two plus three", "UK male", made_up_voices(pebble))
    batch = tasks.collate([lesson])
    with torch.no_grad():
        x = net.text(batch.tokens.clamp(min=0)) * (batch.tokens >= 0)[..., None]
        x = x.masked_scatter(batch.frame_at[..., None], net.embed_frames(batch.frames))
        hidden = net.think(x)[0]
        text = net.text_logits(hidden[-1])
        codes = net.code_logits(hidden[-3:-2], batch.frames[-1:])[0]
        waveform = signals.speech_like(30_000, 4)
        mel = torch.from_numpy(model.parts.encoder._log_mel(waveform))[None]
        heard = net.hear(mel, torch.tensor([mel.shape[1]]))[1][0]
    state = model.parts.backbone.new_state()
    ours = model.parts.backbone.forward(x[0].numpy(), state)
    assert np.abs(ours - hidden.numpy()).max() <= 1e-4 * np.abs(hidden.numpy()).max()
    assert np.abs(model.parts.backbone.logits(ours[-1]) - text.numpy()).max() <= 1e-4 * text.abs().max()
    logits = model.parts.depthformer.logits(ours[-3], batch.frames[-1].numpy())
    assert logits.shape == (network.BOOKS, network.BOOK_ROWS)
    assert np.abs(logits - codes.numpy()).max() <= 1e-3 * codes.abs().max()
    assert np.abs(model.parts.encoder.encode(waveform) - heard.numpy()).max() <= 1e-4 * heard.abs().max()


def test_the_checkpoint_is_small_enough_to_ship(untrained):
    *_, folder = untrained
    size = sum(file.stat().st_size for file in (folder / "checkpoint").rglob("*") if file.is_file())
    assert size <= 12e6


def test_a_batch_hears_each_clip_as_alone(untrained):
    import torch

    net, *_ = untrained
    mels = [torch.randn(97, 128), torch.randn(50, 128)]
    padded = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)
    with torch.no_grad():
        together = net.hear(padded, torch.tensor([97, 50]))[1]
        for row, mel in zip(together, mels, strict=True):
            alone = net.hear(mel[None], torch.tensor([len(mel)]))[1][0]
            assert (row[: len(alone)] - alone).abs().max() <= 1e-4 * alone.abs().max()


def test_unknown_words_are_named(untrained):
    from voxrill.runtime.errors import UsageError

    _, model, _ = untrained
    with pytest.raises(UsageError, match="does not know Elephant, zebra"):
        model.speak("Elephant lights on, zebra and elephant.".replace("elephant", "zebra"))
    with pytest.raises(UsageError, match="does not know quantum"):
        model.chat(text="quantum lights")
