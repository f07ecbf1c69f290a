"""A model's life: opened by name, shared by threads, awaited, closed; and its speech in files of every kind."""

import asyncio
import dataclasses
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

import voxrill
from tests.places import QUESTION
from voxrill.runtime import asynchronous
from voxrill.runtime.engine.context import Context
from voxrill.runtime.engine.session import Binding, Graph
from voxrill.runtime.errors import AudioFileError, BundleError, UsageError

HEARD = "turn on the kitchen lights"
SAID = "kitchen lights on"


@pytest.fixture(scope="module")
def pebble():
    with voxrill.load("pebble", threads=1) as model:
        yield model


# By name


def test_a_name_on_the_hub_says_how_to_make_a_bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    says = "voxrill export LiquidAI/LFM2.5-Audio-1.5B -o LFM2.5-Audio-1.5B"
    with pytest.raises(BundleError, match=says):
        voxrill.load("LiquidAI/LFM2.5-Audio-1.5B")
    (tmp_path / "bundles").mkdir()
    with pytest.raises(BundleError, match="Make one with: voxrill export CHECKPOINT"):
        voxrill.load("bundles/pi")  # a folder of that name is there, so it is a path


def test_a_checkpoint_says_how_to_make_a_bundle(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BundleError, match=r"is a checkpoint.* Export it: voxrill export "):
        voxrill.load(tmp_path)


def test_the_built_in_model_has_a_name(pebble, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pebble").mkdir()  # the folder of that name is ./pebble
    assert pebble.manifest.name == "pebble"
    with voxrill.load("pebble", threads=1) as model:
        assert model.manifest.name == "pebble"
    with pytest.raises(BundleError, match="manifest"):
        voxrill.load("./pebble")


def test_the_model_says_what_it_is(pebble):
    assert pebble.voices == pebble.manifest.tasks.speak.voices
    assert pebble.voices and pebble.voices[0] in repr(pebble)
    for part in ("Model pebble", "MB", "cpu", "1 thread", "24000 Hz"):
        assert part in repr(pebble)


# Closing


def closed_model():
    model = voxrill.load(threads=1)
    conversation = model.conversation()
    events = model.chat(audio=QUESTION)
    next(events)
    model.close()
    return model, conversation, events


def test_after_close_every_use_says_so():
    model, conversation, events = closed_model()
    model.close()
    assert model.closed and "closed" in repr(model)
    assert model.voices
    uses = (
        lambda: model.transcribe(QUESTION),
        lambda: list(model.transcribe_stream(QUESTION)),
        lambda: list(model.chat(text="hello")),
        lambda: model.speak("hello").result,
        lambda: model.classify(QUESTION),
        lambda: model.conversation(),
        lambda: list(conversation.ask(text=HEARD)),
        lambda: list(events),
        lambda: model.__enter__(),
    )
    for use in uses:
        with pytest.raises(UsageError, match=r"This model is closed\. Load it again"):
            use()


def test_a_with_block_closes_the_model_after_an_error_too():
    with pytest.raises(ZeroDivisionError), voxrill.load(threads=1) as model:
        raise ZeroDivisionError
    assert model.closed


def test_a_closed_model_lets_go_of_its_graphs():
    import gc
    import weakref

    model = voxrill.load(threads=1)
    graph = weakref.ref(model.graphs["decoder"])
    model.close()
    gc.collect()
    assert graph() is None


# Threads


def test_threads_take_turns_and_hear_what_one_would(pebble, monkeypatch):
    wanted = pebble.speak(SAID, seed=3).result
    inside, most = [], []
    runs = {Graph: Graph.run, Binding: Binding.run}

    def watched(cls):
        def run(self, *feeds):
            with self.watch.turn():
                inside.append(threading.get_ident())
                most.append(len(set(inside)))
                try:
                    return runs[cls](self, *feeds)
                finally:
                    inside.remove(threading.get_ident())

        return run

    monkeypatch.setattr(Graph, "watch", property(lambda self: self.turnstile), raising=False)
    monkeypatch.setattr(Binding, "watch", property(lambda self: self._turnstile), raising=False)
    monkeypatch.setattr(Graph, "run", watched(Graph))
    monkeypatch.setattr(Binding, "run", watched(Binding))

    def work(number):
        if number % 2:
            return pebble.transcribe(QUESTION).text
        return pebble.speak(SAID, seed=3).result

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(8)))
    assert set(most) == {1}
    assert found[1::2] == [HEARD] * 4
    for result in found[0::2]:
        assert result.tokens == wanted.tokens
        np.testing.assert_array_equal(result.samples, wanted.samples)


def test_a_conversation_in_use_by_another_thread_is_refused(pebble, monkeypatch):
    conversation = pebble.conversation()
    entered, leave = threading.Event(), threading.Event()
    prefill = Context.prefill

    def slow(self, most):
        entered.set()
        assert leave.wait(60)
        return prefill(self, most)

    monkeypatch.setattr(Context, "prefill", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: list(conversation.ask(audio=QUESTION, seed=1)))
        assert entered.wait(60)
        with pytest.raises(UsageError, match="answering in another thread"):
            conversation.ask(audio=QUESTION)
        leave.set()
        assert first.result()[-1].result.text.strip() == SAID


def test_closing_while_another_thread_works_ends_that_with_an_error(monkeypatch):
    model = voxrill.load(threads=1)
    events = model.chat(audio=QUESTION)
    next(events)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(model.close).result()
        with pytest.raises(UsageError, match="closed"):
            pool.submit(list, events).result()


# Awaiting


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("voxrill-async")]


async def until_over():
    for _ in range(2000):
        if not workers():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the worker goes on")


def test_events_are_awaited_while_the_loop_goes_on(pebble):
    async def main():
        turns = 0
        threads = set()

        async def ticking():
            nonlocal turns
            while True:
                turns += 1
                threads.add(threading.get_ident())
                await asyncio.sleep(0)

        ticker = asyncio.create_task(ticking())
        events = [event async for event in pebble.achat(audio=QUESTION, seed=1)]
        sound = [event async for event in pebble.aspeak(SAID, seed=1)]
        transcript = await pebble.atranscribe(QUESTION)
        ticker.cancel()
        await until_over()
        return events, sound, transcript, turns

    events, sound, transcript, turns = asyncio.run(main())
    assert isinstance(events[-1], voxrill.EndEvent) and events[-1].result.text.strip() == SAID
    assert sum(len(event.samples) for event in sound)
    assert transcript.text == HEARD
    assert turns > len(events)  # between any two events the loop did other things


def test_pieces_of_a_sound_may_be_awaited_too(pebble):
    samples, rate = soundfile.read(QUESTION, dtype="int16")

    async def pieces():
        for start in range(0, len(samples), rate // 10):
            await asyncio.sleep(0)
            yield samples[start : start + rate // 10].tobytes()

    async def main():
        heard = pebble.atranscribe_stream(pieces(), sample_rate=rate, dtype="int16", tentative=False)
        return [event.text async for event in heard]

    assert asyncio.run(main()) == [HEARD]


def test_errors_are_raised_where_they_are_awaited(pebble):
    async def main():
        with pytest.raises(AudioFileError, match="no file"):
            await pebble.atranscribe("nowhere.wav")
        with pytest.raises(UsageError, match="no question"):
            async for _ in pebble.achat():
                pass
        await until_over()

    asyncio.run(main())


def counting_runs(monkeypatch):
    count = [0]
    run = Binding.run

    def counted(self):
        count[0] += 1
        return run(self)

    monkeypatch.setattr(Binding, "run", counted)
    return count


def test_leaving_the_loop_stops_the_work(pebble, monkeypatch):
    count = counting_runs(monkeypatch)

    async def main():
        events = pebble.achat(audio=QUESTION, max_new_tokens=100_000, temperature=100.0)
        async for _ in events:
            break
        await events.aclose()
        await until_over()
        return count[0]

    runs = asyncio.run(main())
    assert count[0] == runs  # nothing runs any more


def test_cancelling_the_task_stops_the_work_within_a_transcript(pebble, monkeypatch):
    begun = threading.Event()
    run = Graph.run

    def seen(self, feeds):
        begun.set()
        return run(self, feeds)

    monkeypatch.setattr(Graph, "run", seen)
    question, rate = soundfile.read(QUESTION, dtype="float32")
    long = np.tile(np.concatenate([question, np.zeros(rate, np.float32)]), 40)

    async def main():
        task = asyncio.create_task(pebble.atranscribe(long, sample_rate=rate))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_over()

    asyncio.run(main())
    assert not workers()
    assert pebble.transcribe(QUESTION).text == HEARD  # the model can be used as before


def test_a_worker_that_waits_for_pieces_stops_too(pebble):
    async def main():
        async def silent():
            await asyncio.Event().wait()
            yield b""

        heard = pebble.atranscribe_stream(silent(), sample_rate=16_000, dtype="int16")
        task = asyncio.create_task(anext(heard))
        for _ in range(50):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_over()

    asyncio.run(main())


def test_stopped_work_is_stopped_in_its_own_thread_only():
    asynchronous.check_stopped()  # nothing stops this thread


def test_a_model_is_closed_without_blocking_the_loop():
    model = voxrill.load(threads=1)
    asyncio.run(model.aclose())
    assert model.closed


# Speech in files


@pytest.mark.parametrize("form", ["wav", "flac", "ogg", "opus", "mp3"])
def test_speech_is_saved_by_suffix_and_into_open_files(pebble, tmp_path, form):
    speech = pebble.speak(SAID, seed=1)
    speech.save(tmp_path / f"a.{form}")
    file = io.BytesIO()
    speech.save(file, format=form)
    assert file.getvalue() == (tmp_path / f"a.{form}").read_bytes() or form in ("ogg", "opus")  # Ogg has random serials
    file.seek(0)
    assert abs(soundfile.info(file).duration - speech.result.audio_seconds) < 0.1


def test_an_open_file_gets_wav_where_it_stands(pebble):
    file = io.BytesIO()
    file.write(b"before")
    pebble.speak(SAID, seed=1).save(file)
    assert not file.closed and file.getvalue()[:10] == b"beforeRIFF"
    samples, rate = soundfile.read(io.BytesIO(file.getvalue()[6:]))
    assert rate == 24_000 and len(samples) == len(pebble.speak(SAID, seed=1).samples)


def test_a_format_may_differ_from_the_suffix(pebble, tmp_path):
    pebble.speak(SAID, seed=1).save(tmp_path / "sound.bin", format="flac")
    assert (tmp_path / "sound.bin").read_bytes()[:4] == b"fLaC"


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        (io.BytesIO(), {"format": "aiff"}, "wav, flac, ogg, opus, mp3"),
        ("a.aiff", {}, "Give a name in .wav"),
        (io.StringIO(), {}, "takes no bytes"),
        (7, {}, "takes no bytes"),
    ],
)
def test_what_cannot_be_written_is_refused(pebble, target, options, says):
    with pytest.raises(AudioFileError, match=says):
        pebble.speak(SAID).save(target, **options)


def test_nothing_is_written_into_an_open_file_when_speech_fails():
    model = voxrill.load(threads=1)
    speech, file = model.speak(SAID), io.BytesIO()
    model.close()
    with pytest.raises(UsageError, match="closed"):
        speech.save(file)
    assert file.getvalue() == b""


# Times in JSON


def digits(value):
    """Decimals of every number in a value of JSON."""
    if isinstance(value, dict):
        return [count for one in value.values() for count in digits(one)]
    if isinstance(value, list | tuple):
        return [count for one in value for count in digits(one)]
    return [len(repr(value).partition(".")[2])] if isinstance(value, float) else []


def test_times_are_rounded_in_json_and_in_dicts(pebble):
    transcript = pebble.transcribe(QUESTION)
    *_, end = pebble.chat(audio=QUESTION, seed=1)
    written = json.loads(json.dumps([transcript.as_json(), end.result.as_json()]))
    assert written[0]["segments"][0].keys() == {"number", "start", "end", "text", "loop", "confidence"}
    assert written[0]["text"] == HEARD and written[1]["audio_seconds"] > 1
    assert max(digits(written)) <= 4
    for result in (transcript, end.result):
        known = {name: value for name, value in dataclasses.asdict(result).items() if name not in ("samples", "codes")}
        assert len(digits(known)) > 4 and max(digits(known)) <= 4


def test_a_resumed_transcript_knows_the_segments_it_had():
    event = voxrill.SegmentEvent(1, 3 * 0.032, 7 * 0.032, "words")
    assert (event.start, event.end) == (0.096, 0.224)
