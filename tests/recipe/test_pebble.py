"""Pebble's recipe without its training: the world, the tokenizer, the lessons, and the way to a bundle.

What is trained must be what runs: an untrained Pebble is written, exported, and compared with the training network.
"""

import json

import numpy as np
import pytest

import voxrill
from tests import signals
from tests.places import ROOT

FOLDER = ROOT / "pebble"


@pytest.fixture(scope="module")
def pebble(exporter, recipe):
    """The recipe's modules by name; they need torch."""
    return recipe


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
    assert 10_000 <= len(world.SENTENCES) <= 50_000
    assert 300 <= len(world.WORDS) <= 420
    assert 20 <= len(world.INTENTS) <= 25
    assert max(len(reply.split()) for reply in world.REPLIES) <= 12


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
    for text in (*world.REPLIES[::7], *(s.command for s in world.SENTENCES[::7]), " ".join(world.WORDS)):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    ids = tokenizer.encode("Kitchen lights on.", add_special_tokens=False).ids
    assert ids == tokenizer.encode("kitchen lights on", add_special_tokens=False).ids
    assert tokenizer.token_to_id("<|unknown|>") in tokenizer.encode("elephant", add_special_tokens=False).ids


def made_up_voices(pebble):
    codec = pebble("codec")
    spoken = [(word, place) for word, place, *_ in pebble("reply_voice").carriers()]
    codes = {one: signals.codes(3 + i % 4, i).T.astype(np.int64) % codec.CODES for i, one in enumerate(spoken)}
    return {name: codec.Voice({}, codes) for name in codec.SPEAKERS}


def test_lessons_are_what_the_runtime_asks(pebble, untrained):
    """The prompt of a lesson, token for token as the runtime assembles it."""
    tasks = pebble("tasks")
    _, model, _ = untrained
    context = model.conversation().context
    lesson = tasks.speech("kitchen lights on", "US female", made_up_voices(pebble))
    speech = voxrill.Conversation(model.parts, model.manifest.tasks.speak, "Perform TTS. Use the US female voice.")
    with speech.context.turn("user"):
        speech.context.add_text("kitchen lights on")
    speech.context.open_turn("assistant")
    rows = model.parts.embed_tokens([*lesson.before, *lesson.after])
    assert speech.context.positions == len(rows)
    assert np.array_equal(speech.context.waiting, rows)
    with context.turn("user"):
        pass
    context.open_turn("assistant")
    silent = tasks.dialogue("kitchen lights on", 0, made_up_voices(pebble))
    assert np.array_equal(context.waiting, model.parts.embed_tokens([*silent.before, *silent.after]))


@pytest.mark.parametrize("output", ["both", "text"])
def test_a_typed_question_is_taught_as_the_runtime_asks_it(pebble, untrained, output, monkeypatch):
    """Answered aloud or in writing."""
    tasks = pebble("tasks")
    _, model, _ = untrained
    monkeypatch.setattr(tasks.random, "random", lambda: 0.99)  # no line break, no German
    lesson = tasks.random_typed(made_up_voices(pebble), True) if output == "both" else tasks.random_written()
    conversation = model.conversation(output=output)
    system = len(model.parts.tokenizer.encode(conversation.system))
    said = tasks.TOKENIZER.decode(lesson.after[: lesson.after.index(tasks.IM_END)])
    assert tasks.taught(said) and system > 3
    context = conversation.context
    with context.turn("user"):
        context.add_text(said)
    context.open_turn("assistant")
    assert np.array_equal(context.waiting, model.parts.embed_tokens([*lesson.before, *lesson.after]))
    spoken = any(not isinstance(item, int) for item in lesson.answer)
    assert spoken == (output == "both")


def test_a_tenth_of_the_typed_sentences_have_a_line_break(pebble):
    tasks = pebble("tasks")
    typed = [tasks._typed() for _ in range(400)]
    assert 15 <= sum("\n" in said for said, _ in typed) <= 75
    assert all(tasks.taught(said.replace("\n", " ")).reply == sentence.reply for said, sentence in typed)


def rows_of(model, items):
    """What the backbone is fed for tokens and frames."""
    parts = model.parts
    each = [parts.embed_tokens([x]) if isinstance(x, int) else parts.embed_frames(x[:, None]) for x in items]
    return np.concatenate(each)


def test_two_turns_go_on_as_the_runtime_does(pebble, untrained):
    tasks, world = pebble("tasks"), pebble("world")
    _, model, _ = untrained
    command = "turn on the hall lights"
    reply = tasks.follow_ups(command)["and in the living room"]
    assert reply == "living room lights on"
    assert world.followed_up("hello", "garden") is None
    lesson = tasks.two_turns(command, 0, reply, 0, made_up_voices(pebble))
    first, second = lesson.turns()
    context = model.conversation().context
    for turn in (first, second):
        with context.turn("user"):
            pass
        context.open_turn("assistant")
        context._waiting.append(rows_of(model, turn.answer[:-1]))  # the runtime adds the last token by closing
        context.close_turn()
    taught = [x for turn in (first, second) for x in (*turn.before, *turn.after, *turn.answer)]
    assert np.array_equal(context.waiting[:-1], rows_of(model, taught))


def test_a_lesson_without_frames_ends_where_the_first_would_stand(pebble):
    tasks = pebble("tasks")
    whole = tasks.dialogue("playing classical in the living room", 5, made_up_voices(pebble))
    short = tasks.dialogue("playing classical in the living room", 5, made_up_voices(pebble), frames_too=False)
    assert short.answer == whole.answer[: tasks.TEXT_RUN]


def test_what_is_no_command_is_answered_as_promised(pebble):
    tasks, data = pebble("tasks"), pebble("data")
    voices = made_up_voices(pebble)
    said = {kind: tasks.heard_answer(text, None, 3, voices, True) for kind, text in
            {"silence": "", "music": data.MUSIC}.items()}  # fmt: skip
    assert said["silence"].answer == [tasks.IM_END]
    assert tasks.heard_words(data.MUSIC, 3).answer == [tasks.IM_END]
    texts = [x for x in said["music"].answer if isinstance(x, int)]
    assert tasks.TOKENIZER.decode(texts) in ("sorry i only know the house", "outside")


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
    assert size <= 24e6


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
    from voxrill.runtime.errors import UnknownText, VoxrillWarning

    _, model, _ = untrained
    with pytest.raises(UnknownText, match="does not know Elephant, zebra"):
        model.speak("Elephant lights on, zebra and elephant.".replace("elephant", "zebra"))
    with pytest.warns(VoxrillWarning, match="does not know quantum"):
        *_, end = model.chat(text="quantum lights", output="text")
    assert end.result.text.startswith(model.manifest.taught.refusal)


# What ships


@pytest.fixture(scope="module")
def made_again(pebble, tmp_path_factory):
    """The committed checkpoint, exported and quantised once more."""
    return pebble("package").make_bundle(FOLDER / "checkpoint", tmp_path_factory.mktemp("again") / "bundle")


def initializers(path):
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(str(path))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return [node.op_type for node in proto.graph.node], values


def test_the_shipped_bundle_is_the_checkpoint(pebble, made_again):
    """Same graphs and numbers; a newer torch may name or order things otherwise, and weights round the same."""
    from voxrill.runtime.bundle.builtin import open_builtin
    from voxrill.runtime.bundle.bundle import open_bundle

    shipped, again = open_builtin(), open_bundle(made_again.directory)
    for field in ("name", "family", "source", "model", "tasks", "graphs", "taught"):
        assert getattr(shipped.manifest, field) == getattr(again.manifest, field)
    for graph in shipped.manifest.graphs.values():
        wanted, got = (initializers(bundle.path(graph.file)) for bundle in (shipped, again))
        assert sorted(wanted[0]) == sorted(got[0])
        large = {name for name, values in wanted[1].items() if values.size >= 512}
        assert large and large <= set(got[1])
        for name in large:
            assert np.abs(wanted[1][name].astype(float) - got[1][name].astype(float)).max() <= 1e-6, name
    rows = np.arange(300)
    for table in ("text_embeddings", "audio_embeddings"):
        tables = [bundle.table(getattr(bundle.manifest, table)).rows(rows) for bundle in (shipped, again)]
        assert np.array_equal(*tables)


def test_both_bundles_answer_alike(made_again):
    clip = ROOT / "tests" / "pebble" / "00-known.flac"
    answers = []
    for model in (voxrill.load(), voxrill.load(made_again.directory)):
        *_, end = model.chat(audio=clip)
        answers.append(end.result)
    assert answers[0].text == answers[1].text
    assert np.array_equal(answers[0].codes, answers[1].codes)


def test_what_ships_is_small_and_ours():
    from voxrill.runtime.bundle.builtin import open_builtin

    manifest = open_builtin().manifest
    assert manifest.name == "pebble"
    assert manifest.source.licence == "Apache-2.0"
    assert manifest.size <= 12e6
    assert {graph.precision for graph in manifest.graphs.values()} == {"int8"}
    checkpoint = [file for file in (FOLDER / "checkpoint").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in checkpoint) <= 24e6


def test_the_shipped_tokenizer_is_the_world_s(pebble):
    from voxrill.runtime.bundle.builtin import open_builtin

    bundle = open_builtin()
    built = pebble("vocabulary").build_tokenizer().get_vocab()
    shipped = json.loads(bundle.path("tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert shipped == built


def test_the_shipped_world_is_the_recipe_s(pebble):
    package = pebble("package")
    shipped = (package.SHIPPED / "world.json").read_text(encoding="utf-8")
    assert shipped == package.world_json(), "run package.py again"


def test_a_run_keeps_the_mean_of_its_weights_and_goes_on_with_it(pebble, tmp_path):
    import torch

    training = pebble("training")

    def run():
        return training.Run(tmp_path / "run.pt", torch.nn.Linear(1, 1, bias=False), rate=0.1, averaged=True)

    one = run()
    weights = [one.model.weight.detach().clone()]
    for _ in range(3):
        one.update(one.model(torch.ones(1)).square().sum(), 1.0, {})
        weights.append(one.model.weight.detach().clone())
    wanted = weights[0]
    for weight in weights[1:]:
        wanted = training.KEPT * wanted + (1 - training.KEPT) * weight
    torch.testing.assert_close(one.mean["weight"], wanted)
    one.save()
    torch.testing.assert_close(run().mean["weight"], wanted)


@pytest.mark.parametrize("stage", ["hearing", "answers"])
def test_a_stage_alone_leads_a_part_of_the_way_to_what_it_taught(pebble, tmp_path, stage):
    import torch
    from safetensors.torch import load_file

    network, recipe = pebble("network"), pebble("recipe")
    taught = network.Pebble()
    taught.begin_from(recipe.CHECKPOINT)
    weight = taught.encoder.conformer.layers[0].norm_out.weight
    shipped = weight.detach().clone()
    weight.data += 0.5
    torch.save({"mean": taught.state_dict()}, tmp_path / f"{stage}.pt")
    recipe.build(tmp_path, tmp_path / "checkpoint", stage)
    written, committed = (
        load_file(path / "model.safetensors") for path in (tmp_path / "checkpoint", recipe.CHECKPOINT)
    )
    assert written.keys() == committed.keys()
    torch.testing.assert_close(
        written["conformer.layers.0.norm_out.weight"].float(), shipped + 0.5 * recipe.HALFWAY, atol=1e-3, rtol=0
    )
    assert torch.equal(written["lfm.embed_tokens.weight"], committed["lfm.embed_tokens.weight"])
