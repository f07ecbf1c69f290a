"""What Pebble is taught with: the widened world, natural voices in shards, people who do not talk to it, far rooms."""

import csv
import json
import random

import numpy as np
import pytest
import soundfile

from tests import signals
from tests.places import ROOT
from voxrill.runtime.apps.grammar import read_grammar
from voxrill.runtime.apps.grammar import spoken as said_in


@pytest.fixture(scope="module")
def pebble(exporter, recipe):
    """The recipe's modules by name; they need torch."""
    return recipe


# The world


def test_every_sentence_of_the_first_world_is_understood_as_before(pebble):
    world = pebble("world")
    shipped = json.loads((ROOT / "src" / "voxrill" / "pebble" / "world.json").read_text(encoding="utf-8"))
    assert len(world.FIRST) == 318
    answers = {entry["say"]: entry["reply"] for entry in shipped}
    assert {s.command: s.reply for s in world.FIRST} == {s.command: answers[s.command] for s in world.FIRST}


def test_the_world_is_what_people_say_to_a_home(pebble):
    world = pebble("world")
    understood = {
        "turn on the living room lamp": "living room lamp on",
        "would you please switch the lamp on in the living room": "living room lamp on",
        "lights on": "lights on",
        "set the kitchen lights to fifty percent": "kitchen lights at fifty percent",
        "start a ninety second timer": None,
        "set a timer for ninety seconds please": "the timer is set for ninety seconds",
        "lock the front door": "locking the front door",
        "add milk to the shopping list": "milk is on the list",
        "what time is it": "checking the time",
        "turn on the lawn mower": None,
    }
    meant = {said: world.meant(said) for said in understood}
    assert {said: sentence and sentence.reply for said, sentence in meant.items()} == understood


def test_drawn_sentences_are_trained_ones_and_mean_what_they_say(pebble):
    world = pebble("world")
    chance = random.Random(1)
    drawn = [world.drawn(chance) for _ in range(300)]
    assert all(world.meant(said).reply == sentence.reply for said, sentence in drawn)
    assert not any(world.meant(said).held_out for said, _ in drawn)
    assert len({sentence.intent for _, sentence in drawn}) >= 18
    assert any(said != sentence.command for said, sentence in drawn), "nobody is polite"
    again = random.Random(1)
    assert drawn == [world.drawn(again) for _ in range(300)]


def test_a_neighbour_differs_in_one_word(pebble):
    world = pebble("world")
    sentence = world.meant("set a timer for twenty minutes")
    others = {world.neighbour(sentence, random.Random(seed)).command for seed in range(20)}
    assert len(others) > 3
    for other in others:
        assert sum(a != b for a, b in zip(other.split(), sentence.command.split(), strict=True)) == 1
    assert world.neighbour(world.meant("what can you do"), random.Random(0)) is None


def test_numbers_have_words_in_both_languages(pebble):
    world = pebble("world")
    assert [world.number(n) for n in (0, 13, 30, 47, 100)] == [
        "zero",
        "thirteen",
        "thirty",
        "forty seven",
        "one hundred",
    ]
    assert [world.german_number(n) for n in (1, 21, 26, 57, 100)] == [
        "eins", "einundzwanzig", "sechsundzwanzig", "siebenundfünfzig", "hundert"
    ]  # fmt: skip


def test_talk_is_no_sentence_of_the_world(pebble):
    world = pebble("world")
    talk = [world.talk(pick) for pick in range(500)]
    assert talk == [world.talk(pick) for pick in range(500)]
    assert not any(world.meant(text) for text in talk)
    assert min(len(text.split()) for text in talk) == 1
    assert sum(len(text.split()) <= 3 for text in talk) > 100


# Natural voices


class SpokenTones:
    """A synthesiser that needs no weights: a tone for each sentence."""

    def say(self, text, speaker):
        return np.sin(np.arange(12_000) * (0.01 + len(text) / 300)).astype(np.float32) * 0.2


@pytest.fixture
def spoken(pebble, monkeypatch):
    natural = pebble("natural")
    monkeypatch.setattr(natural, "kokoro", SpokenTones)
    monkeypatch.setattr(natural, "SHARD", 3)
    rows = {name: np.full((510, 1, 256), place, np.float32) for place, name in enumerate(
        (*natural.TRAINED, *natural.DEVELOPMENT, *natural.ACCENTED))}  # fmt: skip
    monkeypatch.setattr(natural, "voice_style", rows.__getitem__)
    return natural


def test_voices_for_judging_are_never_taught(spoken):
    names = {spoken.speaker("natural", seed).name for seed in range(600)}
    parts = {part for name in names for part in name.split("+")}
    assert parts == {*spoken.TRAINED, *spoken.ACCENTED}
    assert not parts & {*spoken.RESERVED, *spoken.DEVELOPMENT}
    assert sum("+" in name for name in names) >= 100
    developed = {part for seed in range(50) for part in spoken.speaker("natural-development", seed).name.split("+")}
    assert developed == set(spoken.DEVELOPMENT)
    paces = [spoken.speaker("natural", seed).pace for seed in range(200)]
    assert 0.7 <= min(paces) < 0.8 < 1.3 < max(paces) <= 1.4
    judging = [spoken.speaker(f"natural:{spoken.DEVELOPMENT[0]}", seed).pace for seed in range(50)]
    assert min(judging) >= 0.8 and max(judging) <= 1.3


def test_some_taught_speakers_lie_beyond_the_voices_they_blend(spoken):
    """Each voice of the fixture is one number, so a speaker beyond two voices has a number beyond theirs."""
    beyond = 0
    for seed in range(100):
        who = spoken.speaker("natural", seed)
        low, *_, high = sorted(spoken.voice_style(name)[0, 0, 0] for name in who.name.split("+") * 2)
        beyond += not low - 1e-3 <= who.style[0, 0, 0] <= high + 1e-3
        assert low - 0.31 * (high - low) - 1e-3 <= who.style[0, 0, 0] <= high + 0.31 * (high - low) + 1e-3
    assert 10 <= beyond <= 60


def test_a_blend_lies_between_two_voices(spoken):
    style = spoken.blend("af_alloy", "af_aoede", 0.25, 0.5, 1.0).style
    assert style[0, 0, 0] == 0.25
    assert style[0, 0, -1] == 0.5


def test_shards_resume_and_are_read_up_to_the_first_gap(spoken, pebble, tmp_path, monkeypatch):
    job = pebble("synthesise").SynthesisJob
    jobs = [
        job(text, "natural", seed) for seed, text in enumerate(["one", "two", "three", "four", "five", "six", "seven"])
    ]
    spoken.make_shards(jobs, tmp_path, part=0, parts=2)
    assert [path.name for path in spoken.shard_paths(tmp_path)] == ["00000.npz"]
    spoken.make_shards(jobs, tmp_path, part=1, parts=2)
    monkeypatch.setattr(spoken, "natural_clip", None)  # nothing is made twice
    spoken.make_shards(jobs, tmp_path)
    clips = spoken.load_shards(tmp_path)
    assert clips.texts == [job.text for job in jobs]
    assert all(voice.startswith("natural:") for voice in clips.voices)
    assert 0.69 < np.abs(clips.waveform(6)).max() <= 0.7
    assert [path.name for path in spoken.shard_paths(tmp_path)] == ["00000.npz", "00001.npz", "00002.npz"]
    (tmp_path / "00001.npz").unlink()
    assert len(spoken.load_shards(tmp_path)) == 3


def test_any_first_part_of_the_natural_set_has_the_whole_mix(pebble):
    from itertools import islice

    world, data = pebble("world"), pebble("data")
    texts = [job.text for job in islice(data.natural_jobs(), 200)]
    commands = sum(world.meant(text) is not None for text in texts)
    assert 135 <= commands <= 155
    assert not any(sentence.held_out for text in texts if (sentence := world.meant(text)))


def test_a_sentence_with_other_words_is_none_any_more(pebble):
    world, data = pebble("world"), pebble("data")
    chance = random.Random(1)
    for _ in range(200):
        said = world.drawn(chance)[0]
        changed = data.with_other_words(said, chance)
        assert world.meant(changed) is None
        different = [a != b for a, b in zip(said.split(), changed.split(), strict=True)]
        assert 1 <= sum(different) <= 2
        assert {*changed.split()} <= {*world.WORDS}


# People and places


@pytest.fixture
def people(tmp_path):
    rows = [("short", "anna", "computer", "keyword", 0.8), ("long", "bert", "", "read", 20.0)]
    rows += [("hiss", "", "", "noise", 1.0), ("digit", "carla", "eight", "letter", 1.0)]
    rows += [(f"other{i}", f"speaker {i}", "", "speech", 1.2) for i in range(40)]
    with (tmp_path / "manifest.csv").open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines)
        table.writerow(["file", "speaker", "transcript", "kind", "seconds"])
        for place, (name, speaker, transcript, kind, seconds) in enumerate(rows):
            table.writerow([f"{name}.ogg", speaker, transcript, kind, seconds])
            soundfile.write(tmp_path / f"{name}.ogg", signals.speech_like(int(seconds * 16_000), place), 16_000)
    return tmp_path


def test_people_teach_refusal_short_words_most_often(pebble, people):
    module = pebble("people")
    sides = [module.people_clips(people, development) for development in (False, True)]
    assert all(text == module.TALK or text == "eight" for side in sides for text in side.texts)
    assert max(np.diff(sides[0].ends, prepend=0).max(), np.diff(sides[1].ends, prepend=0).max()) <= 6 * 16_000
    named = [{row["speaker"] for row in module.recordings(people, development)} for development in (False, True)]
    assert named[0] and named[1] and not named[0] & named[1]
    assert len(named[0] | named[1]) == 43
    assert sides[0].voices.count("people:speech") == 3 * (40 - sides[1].voices.count("people:speech"))
    assert [len(noise) for noise in module.noises(people)] == [16_000]


def test_a_far_voice_is_duller_and_lasts_longer(pebble):
    augment = pebble("augment")
    voice = np.zeros(32_000, np.float32)
    voice[8000:12_000] = signals.speech_like(4000, 3)
    far = augment.far_away(voice, np.random.default_rng(0))
    assert len(far) == len(voice)
    assert np.square(far[14_000:]).sum() > 1e-3 * np.square(far).sum()
    high = [np.square(np.abs(np.fft.rfft(x))[len(x) * 6 // 16 :]).sum() / np.square(x).sum() for x in (voice, far)]
    assert high[1] < 0.7 * high[0]


def test_a_whisper_has_the_spectrum_of_the_voice_and_no_pitch(pebble):
    augment = pebble("augment")
    voice = np.zeros(16_000, np.float32)
    for harmonic in range(1, 20):  # 125 Hz, with a formant at 1 kHz
        voice += np.sin(2 * np.pi * 125 * harmonic * np.arange(16_000) / 16_000) / (1 + abs(harmonic - 8))
    whispers = [augment.whispered(voice, np.random.default_rng(seed)) for seed in range(20)]
    period = 16_000 // 125

    def pitched(sound):
        """How alike the sound is to itself one period later, -1 to 1."""
        return float(np.corrcoef(sound[2000:10_000], sound[2000 + period : 10_000 + period])[0, 1])

    assert pitched(voice) > 0.99
    alike = [pitched(sound) for sound in whispers]
    assert min(alike) < 0.3, "a breath of voice stays in some, not in all"
    assert sum(one < 0.5 for one in alike) >= 8
    for sound in whispers:
        assert sound.shape == voice.shape and sound.dtype == np.float32 and np.isfinite(sound).all()
        power = np.square(np.abs(np.fft.rfft(sound)))
        assert power[600:1600].sum() > 0.4 * power.sum(), "the formant stays near its place"
    assert not np.isnan(augment.whispered(np.zeros(100, np.float32), np.random.default_rng(0))).any()


def test_another_pace_keeps_the_sound_and_changes_its_length(pebble, exporter):
    train = pebble("train")
    mel = np.repeat(np.linspace(0, 1, 100, dtype=np.float32)[:, None], 128, 1)
    random.seed(5)
    others = [train._other_pace(mel) for _ in range(60)]
    lengths = [len(other) for other in others]
    assert 20 <= lengths.count(100) <= 40 and min(lengths) < 85 and max(lengths) > 125
    assert all(abs(other[len(other) // 2, 0] - 0.5) < 0.02 and other.shape[1] == 128 for other in others)


def test_recorded_noise_is_mixed_in_at_its_level(pebble):
    augment = pebble("augment")
    voice, noise = signals.speech_like(16_000, 1), signals.speech_like(5000, 2)
    around = augment.Surroundings([voice], [noise])
    mixed = augment.noisy(voice, "real", 10, around, np.random.default_rng(0))
    level = 10 * np.log10(np.square(voice).mean() / np.square(mixed - voice).mean())
    assert abs(level - 10) < 0.1
    versions = [augment.heard(voice, around, np.random.default_rng(seed)) for seed in range(30)]
    longest = max(len(version) for version in versions)
    assert longest > 2 * 16_000, "no silence around"
    assert all(np.isfinite(version).all() for version in versions)


def test_a_clip_in_a_style_keeps_its_pace_and_pitch(pebble, exporter):
    augment, data, train = pebble("augment"), pebble("data"), pebble("train")
    styles = [data.style(job.voice, job.seed) for job in data.style_jobs()]
    assert len(styles) == data.STYLE_CLIPS
    assert all(0.35 < styles.count(style) / len(styles) < 0.65 for style in ("calm", "excited"))
    voice = signals.speech_like(16_000, 1)
    around = augment.Surroundings([voice])
    lengths = {
        as_spoken: [len(augment.heard(voice, around, np.random.default_rng(i), 801, as_spoken)) for i in range(40)]
        for as_spoken in (True, False)
    }
    assert all(16_800 <= length <= 17_600 for length in lengths[True])
    assert not all(16_800 <= length <= 17_600 for length in lengths[False])
    ramp = np.linspace(1, 2, 40, dtype=np.float16)[:, None] * np.linspace(1, 2, 128, dtype=np.float16)
    mel, texts, ends = np.concatenate([ramp, ramp]), ["hello"] * 2, np.array([40, 80])
    clips = train.TrainingClips([data.Features(texts, ["espeak"] * 2, ["calm", None], True, mel, ends)])
    calm, plain = ([clips.clip(number) for _ in range(30)] for number in (0, 1))
    assert all(
        one.shape == ramp.shape and np.isin(one - ramp.astype(np.float32), (0, *-ramp.ravel())).all() for one in calm
    )
    assert any(one.shape != ramp.shape for one in plain)


def test_fresh_clips_are_natural_voices_in_new_surroundings_each_time(pebble, exporter):
    train, data, synthesise = pebble("train"), pebble("data"), pebble("synthesise")
    sounds = [(signals.speech_like(8000 + 900 * i, i) * 20_000).astype(np.int16) for i in range(30)]
    ends = np.cumsum([len(sound) for sound in sounds])
    natural = synthesise.ClipStore(["lights on"] * 30, ["natural"] * 30, np.concatenate(sounds), ends)
    mel = np.full((40, 128), 7, np.float16)
    others = train.TrainingClips([data.Features(["hello"], ["espeak"], ["calm"], True, mel, np.array([40]))])
    clips = train.FreshClips(others, [natural], [])
    random.seed(3)
    batches = [clips.next() for _ in range(60)]
    fresh = [numbers for numbers in batches if numbers != [0]]
    assert 20 <= len(fresh) <= 52 and all(min(numbers) >= 1 for numbers in fresh)
    assert len(fresh[0]) == train.BATCH and {clips.texts[n] for n in fresh[0]} == {"lights on"}
    (first, lengths), (second, _) = clips.mel(fresh[0]), clips.mel(fresh[0])
    assert first.shape[0] == train.BATCH and first.shape[2] == 128 and int(lengths.max()) == first.shape[1]
    assert first.shape != second.shape or (first != second).any()
    mixed, lengths = clips.mel([fresh[0][0], 0])  # second turns are of both kinds
    assert (mixed[1, : lengths[1]] == 7).any() and not (mixed[0] == 7).any(), "the other sets come as they are"
    assert len(clips.texts) == len(clips.styles) == len(clips.answered) == 31


# The network that begins as a smaller one


def test_an_encoder_begins_as_the_shipped_one(pebble, exporter):
    import torch
    from safetensors.torch import load_file

    network, train = pebble("network"), pebble("train")
    torch.manual_seed(0)
    net = network.Pebble().eval()
    net.begin_from(train.CHECKPOINT)
    about = json.loads((train.CHECKPOINT / "config.json").read_text(encoding="utf-8"))["encoder"]
    assert len(net.encoder.conformer.layers) >= about["n_layers"]
    published = load_file(train.CHECKPOINT / "model.safetensors")
    shipped = network.Pebble.encoder_of(about["n_layers"]).eval()
    shipped.load_state_dict({name: published[name].float() for name in shipped.state_dict()})
    mel, lengths = torch.randn(2, 200, 128), torch.tensor([200, 90])
    with torch.no_grad():
        ours, theirs = (encoder.conformer(mel, lengths)[0] for encoder in (net.encoder, shipped))
        assert (ours - theirs).abs().max() < 1e-3
    older = json.loads((train.CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    now = pebble("vocabulary").build_tokenizer().token_to_id("kitchen")
    assert torch.equal(net.text.weight[now], published["lfm.embed_tokens.weight"][older["kitchen"]].float())


def test_unknown_words_are_one_symbol_of_the_word_ctc(pebble):
    import torch

    train, network = pebble("train"), pebble("network")
    net = network.Pebble()
    encoded, lengths = torch.randn(3, 20, network.ENCODER_DIM), torch.tensor([20, 20, 20])
    with torch.no_grad():
        losses = [float(train.ctc_loss(net, encoded[:1], lengths[:1], [text])) for text in ("lion", "guitar", "lights")]
        assert losses[0] == losses[1] != losses[2]
        assert float(train.ctc_loss(net, encoded, lengths, [train.MUSIC, train.TALK, train.TALK])) == 0


# The reply voices


def test_words_take_whole_frames_and_keep_the_plan(pebble):
    voice = pebble("reply_voice")
    words = voice.words_of([5, 6, 16, 7, 16, 8, 9, 10], space=16)
    assert words == [[1, 2, 3], [4, 5], [6, 7, 8]]
    plan = np.array([9, 4, 5, 2, 6, 1, 3, 3, 4, 2], np.float32)
    changed, frames = voice.snapped(plan, words)
    assert changed[0] == 9 and changed.min() >= 1
    ends = np.cumsum([changed[word].sum() for word in words]) * voice.UNIT
    assert np.abs(ends - np.cumsum(frames) * voice.FRAME).max() <= voice.UNIT / 2 + 1
    assert [abs(changed[word].sum() - plan[word].sum()) <= 2 for word in words] == [True] * 3


def test_every_word_has_a_sentence_to_be_cut_from(pebble):
    voice, world = pebble("reply_voice"), pebble("world")
    found = {(word, place): (text, number) for word, place, text, number in voice.carriers()}
    assert all(text.split()[number] == word for (word, _), (text, number) in found.items())
    assert {(word, place) for word in world.WORDS for place in voice.PLACES} <= set(found)
    assert {spoken for reply in world.REPLIES for spoken in voice.placed(reply)} <= set(found)
    assert len({text for text, _ in found.values()}) < 600


def test_the_phrase_of_a_reply_is_cut_out_whole(pebble):
    voice = pebble("reply_voice")
    found = {(word, place): (text, number) for word, place, text, number in voice.carriers()}
    phrase = [found[spoken] for spoken in voice.placed("the timer is set for twenty five minutes")[:5]]
    assert len({text for text, _ in phrase}) == 1
    assert [number for _, number in phrase] == [0, 1, 2, 3, 4]
    assert voice.placed("on kitchen lights") == [("on", "first"), ("kitchen", "middle"), ("lights", "last")]
    assert voice.placed("elephant") == [("elephant", "last")]


# A user's own commands, the example of all commands, the codebooks


def test_a_file_of_own_commands_widens_the_world(pebble, tmp_path, monkeypatch):
    world = pebble("world")
    own = tmp_path / "own.toml"
    own.write_text(
        '[slots]\nroom = ["workshop"]\nrobot = ["zeus", "hugo"]\n'
        '[commands.feed]\nsay = ["feed {robot}"]\nconfirm = "{robot} gets food"\nrun = ["./feed", "{robot}"]\n'
    )
    monkeypatch.setenv(world.OWN_COMMANDS, str(own))
    made = world.World(world.read_world())
    replies = {sentence.command: sentence.reply for sentence in made.sentences()}
    assert replies["feed zeus"] == "zeus gets food"
    assert replies["turn on the workshop lights"] == "workshop lights on"
    assert replies["turn on the kitchen lights"] == "kitchen lights on"


def test_the_example_of_commands_is_the_world_and_is_read_by_control(pebble):
    examples, world = pebble("example_commands"), pebble("world")
    assert examples.FILE.read_text(encoding="utf-8") == examples.text(world.WORLD)
    grammar = read_grammar(examples.FILE)
    replies = {
        sentence.words: said_in(grammar.commands[sentence.call.command].confirm, sentence.call.slots)
        for sentence in grammar.sentences
    }
    known = {s.command: s.reply for s in world.SENTENCES}
    assert len(replies) > 5000
    for words, reply in replies.items():
        if words in known:
            assert reply == known[words]
    assert {s.command for s in world.FIRST if s.intent not in examples.NO_COMMANDS} - set(replies) <= {
        s.command for s in world.FIRST if s.command.startswith("how far")
    }


def test_codebooks_keep_what_they_encode(pebble, tmp_path):
    torch = pytest.importorskip("torch")
    codec = pebble("codec")
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(600, 480, generator=random) @ torch.randn(480, 480, generator=random)
    books = codec.Codebooks.fit(rows)
    books.save(tmp_path / "books.safetensors")
    again = codec.Codebooks.load(tmp_path / "books.safetensors")
    codes = books.encode(rows)
    assert codes.shape == (600, codec.BOOKS)
    # They are kept in float16. The last books choose among what is nearly nothing, so their codes may be others.
    assert (again.encode(rows) == codes)[:, :2].float().mean() > 0.98
    assert left_of(rows, again, again.encode(rows)) == pytest.approx(left_of(rows, books, codes), abs=1e-3)
    assert left_of(rows, books, codes) < 0.02
    assert not codes[:, books.centres.abs().sum((1, 2)) == 0].any(), "a codebook without centres says 0"


def left_of(rows, books, codes):
    """The share of the variance of rows, in the books' components, that their codes leave unsaid."""
    placed = (rows - books.mean) @ books.components.T
    said = sum(centres[chosen] for centres, chosen in zip(books.centres, codes.T, strict=True))
    return float((placed - said).square().sum() / placed.square().sum())
