"""Microphone and loudspeaker on a fake sound card: native rates, callbacks that never wait, lost devices."""

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from tests.signals import speech_like
from tests.sound_cards import FakeSounddevice, PortAudioError, card
from voxrill.runtime.audio import sound_checks
from voxrill.runtime.audio.devices import choose, explained, found_devices, portaudio
from voxrill.runtime.audio.jitter import ROUND, TEXT_PAUSE, JitterPolicy
from voxrill.runtime.audio.microphone import WAITING_CHUNKS, DeviceMicrophone
from voxrill.runtime.audio.protocols import BLOCK, RATE
from voxrill.runtime.audio.resampler import Resampler
from voxrill.runtime.audio.ring_buffer import RingBuffer
from voxrill.runtime.audio.sound_checks import MicrophoneLevel
from voxrill.runtime.audio.speaker import Speaker
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.errors import AudioDeviceError, AudioDeviceLost

MODEL_RATE = 24_000
FAST, SLOW = 0.05, 2.0  # seconds of computing a second of sound
PERIOD = 480  # samples of a callback of the loudspeaker below


@pytest.fixture
def backend():
    return FakeSounddevice(card("USB mic", inputs=1), card("Headset", inputs=2, outputs=2, rate=48_000.0))


@pytest.fixture
def system(backend):
    return AudioSystem(backend, backend.clock)


@pytest.fixture
def notes():
    return []


@pytest.fixture
def microphone(system, notes):
    with DeviceMicrophone(system, notify=notes.append) as opened:
        yield opened


@pytest.fixture
def speaker(system, notes):
    with Speaker(system, MODEL_RATE, notify=notes.append) as opened:
        yield opened


def sine(seconds, rate, hertz=300.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def assert_is_sine(heard, rate, hertz=300.0):
    """`heard` is `sine`, but for its first and last milliseconds and a delay of 0.2 ms at most."""
    phase = 2 * np.pi * hertz * np.arange(len(heard)) / rate
    axes = np.stack([np.sin(phase), np.cos(phase)], axis=1)[200:-200]
    (along, across), *_ = np.linalg.lstsq(axes, heard[200:-200])
    assert np.hypot(along, across) == pytest.approx(0.5, abs=1e-3)
    assert abs(np.arctan2(across, along)) < 2 * np.pi * hertz * 2e-4
    assert np.abs(axes @ [along, across] - heard[200:-200]).max() < 2e-3


def blocks_of(microphone):
    return list(iter(lambda: microphone.read(0), None))


# Choosing


def devices():
    return found_devices(
        FakeSounddevice(card("Built-in", 1, 2), card("USB mic", 1), card("USB headset", 1, 2), card("Blue", 0, 2))
    )


@pytest.mark.parametrize(
    ("direction", "wanted", "name"),
    [
        ("input", None, "Built-in"),
        ("input", "usb mic", "USB mic"),
        ("input", "1", "USB mic"),
        ("input", "head", "USB headset"),
        ("output", "usb", "USB headset"),
        ("output", "blue", "Blue"),
    ],
)
def test_a_device_is_chosen_by_index_name_or_part_of_it(direction, wanted, name):
    assert choose(devices(), direction, wanted).name == name


def test_the_same_device_by_two_sound_systems_is_the_first():
    twice = found_devices(FakeSounddevice(card("USB mic", 1), card("USB mic", 1)))
    assert choose(twice, "input", "usb").index == 0


@pytest.mark.parametrize(
    ("direction", "wanted", "saying"),
    [
        ("input", "usb", "fits several: USB mic, USB headset"),
        ("input", "blue", "is not among: Built-in, USB mic, USB headset"),
        ("output", "7", "is not among"),
    ],
)
def test_what_fits_no_device_or_several_is_refused_with_the_names(direction, wanted, saying):
    with pytest.raises(AudioDeviceError, match=saying) as refused:
        choose(devices(), direction, wanted)
    assert "voxrill devices --audio" in str(refused.value)


@pytest.mark.parametrize(("direction", "thing"), [("input", "microphone"), ("output", "loudspeaker")])
def test_a_machine_without_sound_is_told(direction, thing):
    with pytest.raises(AudioDeviceError, match=f"no {thing} on this machine. Connect one"):
        choose([], direction)


@pytest.mark.parametrize(
    ("code", "saying"),
    [(-9985, "in use by another program"), (-9997, "refuses its own rate of 16000 Hz"), (-9996, "gone"), (-1, "Oh")],
)
def test_portaudio_codes_are_explained(code, saying):
    (mic, *_) = found_devices(FakeSounddevice(card("USB mic", 1)))
    error = explained(PortAudioError("Oh", code), mic, "input")
    assert "the microphone USB mic" in str(error) and saying in str(error)


def test_a_machine_without_portaudio_is_told_what_to_install(monkeypatch):
    class Lacking:
        def find_spec(self, name, *_):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Lacking(), *sys.meta_path])
    with pytest.raises(AudioDeviceError, match="apt-get install libportaudio2"):
        portaudio()


# The microphone


def test_blocks_are_what_was_heard(microphone, backend):
    heard = speech_like(4 * BLOCK)
    backend.stream("input").hear(heard)
    blocks = blocks_of(microphone)
    assert [block.at for block in blocks] == [0, BLOCK, 2 * BLOCK, 3 * BLOCK]
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), heard)


def test_a_block_was_captured_when_its_last_sample_was(microphone, backend):
    opened = backend.clock.now
    backend.stream("input").hear(np.zeros(RATE, np.float32))
    for block in blocks_of(microphone):
        assert block.captured == pytest.approx(opened + (block.at + BLOCK) / RATE, abs=1e-6)


@pytest.mark.parametrize("mono", [True, False], ids=["mono", "two channels only"])
def test_native_rate_and_the_first_channel(mono, notes):
    backend = FakeSounddevice(card("Headset", inputs=2, rate=44_100.0), mono=mono)
    with DeviceMicrophone(AudioSystem(backend, backend.clock)) as microphone:
        stream = backend.stream("input")
        assert (stream.rate, stream.blocksize, stream.channels) == (44_100, 353, 1 if mono else 2)
        stream.hear(sine(1.0, 44_100))
        heard = np.concatenate([block.samples for block in blocks_of(microphone)])
    assert RATE - BLOCK - 0.014 * RATE <= len(heard) <= RATE
    assert_is_sine(heard, RATE)


def test_the_resampler_keeps_back_little_and_flushes_all():
    resampler = Resampler(44_100, RATE)
    given = sine(1.0, 44_100)
    came = [resampler(chunk) for chunk in np.split(given, 100)]
    behind = [RATE * (n + 1) / 100 - len(np.concatenate(came[: n + 1])) for n in range(100)]
    assert max(behind) <= 0.0145 * RATE
    whole = np.concatenate([*came, resampler.rest()])
    assert len(whole) == RATE
    assert_is_sine(whole, RATE)


def test_silence_of_the_device_is_no_block(microphone):
    assert microphone.read(0) is None


def test_what_nobody_reads_is_dropped_and_counted_in(microphone, backend):
    stream = backend.stream("input")
    stream.hear(np.zeros((WAITING_CHUNKS + 700) * stream.blocksize, np.float32))
    kept = blocks_of(microphone)
    assert len(kept) == (WAITING_CHUNKS - 1) * stream.blocksize // BLOCK
    stream.hear(sine(0.1, RATE))
    after = microphone.read(0)
    assert after.at == (WAITING_CHUNKS + 700) * stream.blocksize
    np.testing.assert_array_equal(after.samples, sine(0.1, RATE)[:BLOCK])


def test_a_microphone_that_comes_back_shows_the_gap(microphone, backend, notes):
    stream = backend.stream("input")
    stream.hear(sine(1.0, RATE))
    before = blocks_of(microphone)
    mic = backend.plugged[0]
    backend.unplug("USB mic")
    backend.plugged = backend.plugged[1:]  # the headset, which would be the default now, goes too
    assert microphone.read(0) is None
    backend.clock.now += 3.0
    assert microphone.read(0) is None and len(notes) == 1 and "gone" in notes[0]
    backend.plugged = [mic]
    backend.clock.now += 1.0
    assert microphone.read(0) is None
    assert notes[1:] == ["The microphone USB mic is back."]
    backend.stream("input").hear(sine(0.5, RATE))
    after = blocks_of(microphone)
    assert after[0].at == 5 * RATE > before[-1].at
    np.testing.assert_array_equal(after[0].samples, sine(0.5, RATE)[:BLOCK])


def test_a_microphone_that_stays_away_is_lost(microphone, backend):
    backend.plugged = []
    backend.stream("input").active = False
    assert microphone.read(0) is None
    backend.clock.now += 61.0
    with pytest.raises(AudioDeviceLost, match="USB mic is gone and did not come back in 60 s"):
        microphone.read(0)


def test_a_device_that_falls_silent_is_opened_anew(microphone, backend):
    stale = backend.stream("input")
    backend.clock.now += 2.5
    microphone.read(0)
    assert stale.closed and backend.stream("input") is not stale and backend.starts == 2


# The loudspeaker


def test_a_reply_is_played_at_the_native_rate_on_all_channels(backend, notes):
    backend.mono = False
    with Speaker(AudioSystem(backend, backend.clock), MODEL_RATE) as speaker:
        stream = backend.stream("output")
        assert (stream.rate, stream.channels) == (48_000, 2)
        speaker.begin(FAST, 1.0)
        for chunk in np.split(sine(1.0, MODEL_RATE), 10):
            speaker.push(chunk)
        speaker.finish()
        played = stream.play(120)
    np.testing.assert_array_equal(played[:, 0], played[:, 1])
    assert_is_sine(played[:48_000, 0], 48_000)
    assert not played[48_000:].any() and not speaker.busy()
    assert speaker.played() == MODEL_RATE and speaker.underruns() == 0


def test_nothing_sounds_before_a_reply(speaker, backend):
    assert not backend.stream("output").play(3).any()
    assert not speaker.busy() and speaker.played() == 0 and speaker.first_queued() is None


def test_a_fast_device_starts_with_the_first_frame(speaker, backend):
    speaker.begin(FAST, 3.0)
    speaker.push(sine(0.08, MODEL_RATE))
    assert backend.stream("output").play(2).any() and speaker.busy()
    assert speaker.first_played() == speaker.first_queued()


def test_a_slow_device_starts_when_the_rest_will_not_stutter(speaker, backend):
    speaker.begin(SLOW, 4.0)
    stream, heard = backend.stream("output"), []
    for _ in range(50):  # 4 s of sound in 8 s
        stream.play(16)
        speaker.push(sine(0.08, MODEL_RATE))
        heard.append(speaker.played())
    speaker.finish()
    stream.play(500)
    start = next(n for n, played in enumerate(heard) if played)
    assert 2.0 <= 0.08 * start <= 2.0 + SLOW * TEXT_PAUSE + 0.16
    assert speaker.underruns() == 0 and not speaker.busy()


def test_running_dry_is_counted_and_mended(speaker, backend):
    stream = backend.stream("output")
    speaker.begin(1.0, 2.0)
    speaker.push(sine(0.6, MODEL_RATE))
    assert stream.play(70).any()
    assert speaker.underruns() == 0  # so far it may have been the end
    speaker.push(sine(0.2, MODEL_RATE))
    assert not stream.play(5).any() and speaker.underruns() == 1
    speaker.push(sine(0.8, MODEL_RATE))
    assert stream.play(5).any()
    speaker.finish()
    stream.play(200)
    assert speaker.underruns() == 1 and speaker.played() == round(1.6 * MODEL_RATE)


def test_sound_that_the_device_missed_is_an_underrun_of_this_reply_only(speaker, backend):
    stream, missed = backend.stream("output"), SimpleNamespace(output_underflow=True, input_overflow=False)
    speaker.begin(FAST, 1.0)
    speaker.push(sine(1.0, MODEL_RATE))
    stream.play(10)
    stream.play(3, missed)
    assert speaker.underruns() == 3
    speaker.begin(FAST, 1.0)
    assert speaker.underruns() == 0


def test_silence_before_the_first_sound_is_left_out(speaker, backend):
    stream = backend.stream("output")
    speaker.begin(FAST, 1.0)
    lead = np.zeros(MODEL_RATE // 20, np.float32)
    for piece in (lead, lead, np.concatenate([lead, sine(1.0, MODEL_RATE), lead])):
        speaker.push(piece)
    speaker.finish()
    assert np.abs(stream.play(2)).max() > 0.1  # without, it would be silent for 15 callbacks
    stream.play(110)
    assert not speaker.busy() and speaker.played() == pytest.approx(MODEL_RATE * 1.2, abs=1)


def test_a_reply_that_is_all_silence_is_played_but_for_its_beginning(speaker, backend):
    speaker.begin(FAST, 1.0)
    speaker.push(np.zeros(MODEL_RATE, np.float32))
    speaker.finish()
    backend.stream("output").play(60)
    assert speaker.busy()
    backend.stream("output").play(11)
    assert not speaker.busy()


def test_the_end_of_a_reply_is_no_underrun(speaker, backend):
    speaker.begin(FAST, 9.0)
    speaker.push(sine(0.2, MODEL_RATE))
    backend.stream("output").play(40)
    speaker.finish()
    backend.stream("output").play(40)
    assert speaker.underruns() == 0 and not speaker.busy()


def test_a_reply_too_short_to_start_is_played_when_it_is_finished(speaker, backend):
    speaker.begin(SLOW, 60.0)
    speaker.push(sine(0.2, MODEL_RATE))
    assert not backend.stream("output").play(4).any()
    speaker.finish()
    assert backend.stream("output").play(4).any()


def test_stop_fades_out_within_one_callback(speaker, backend):
    stream = backend.stream("output")
    speaker.begin(FAST, 1.0)
    speaker.push(np.ones(MODEL_RATE, np.float32))
    stream.play(20)
    assert speaker.stop() == round(20 * PERIOD * MODEL_RATE / 48_000)
    fading, after = stream.play(), stream.play(3)
    assert fading[0] == pytest.approx(1.0, abs=1e-3) and (np.diff(fading[:, 0]) <= 1e-3).all()
    assert not fading[144:].any() and not after.any() and not speaker.busy()


def test_a_reply_is_held_and_goes_on_where_it_was(speaker, backend):
    stream = backend.stream("output")
    speaker.begin(FAST, 1.0)
    speaker.push(np.ones(MODEL_RATE, np.float32))
    speaker.finish()
    stream.play(20)
    speaker.hold(True)
    assert not stream.play(5)[144:].any()
    held = speaker.played()
    assert held == round(21 * PERIOD * MODEL_RATE / 48_000) and speaker.busy()
    speaker.hold(False)
    rising = stream.play()[:, 0]
    assert rising[0] == pytest.approx(0.0, abs=1e-3) and (np.diff(rising) >= -1e-3).all()
    assert rising[144:] == pytest.approx(1.0, abs=1e-2) and speaker.played() > held
    stream.play(78)
    assert not speaker.busy() and speaker.underruns() == 0


def test_a_new_reply_starts_after_one_that_was_stopped(speaker, backend):
    speaker.begin(FAST, 1.0)
    speaker.push(np.ones(MODEL_RATE, np.float32))
    speaker.stop()
    speaker.begin(FAST, 1.0)
    speaker.push(-np.ones(MODEL_RATE // 2, np.float32))
    assert backend.stream("output").play(9).min() < -0.9 and speaker.busy()


def test_a_reply_waits_for_a_lost_loudspeaker_and_goes_on(speaker, backend, notes):
    speaker.begin(FAST, 1.0)
    speaker.push(sine(1.0, MODEL_RATE))
    speaker.finish()
    backend.stream("output").play(30)
    headset = backend.plugged[1]
    backend.unplug("Headset")
    speaker.ensure()
    assert speaker.busy() and "loudspeaker Headset is gone" in notes[0]
    backend.plugged.append(headset)
    backend.clock.now += 1.5
    speaker.ensure()
    assert speaker.busy() and notes[1] == "The loudspeaker Headset is back."
    backend.stream("output").play(71)
    assert not speaker.busy() and speaker.played() == MODEL_RATE


def test_a_loudspeaker_that_stays_away_is_lost(speaker, backend):
    speaker.begin(FAST, 1.0)
    speaker.push(sine(1.0, MODEL_RATE))
    backend.unplug("Headset")
    speaker.ensure()
    backend.clock.now += 11.0
    with pytest.raises(AudioDeviceLost, match="loudspeaker Headset is gone"):
        speaker.ensure()
    assert speaker.busy() and speaker.stop() == 0  # whoever asks or silences it is not bothered with that


def test_looking_for_a_microphone_does_not_interrupt_a_reply(microphone, speaker, backend):
    speaker.begin(FAST, 1.0)
    speaker.push(sine(1.0, MODEL_RATE))
    playing = backend.stream("output")
    backend.unplug("USB mic")
    microphone.read(0)
    assert playing.active and backend.starts == 1
    speaker.stop()
    backend.clock.now += 1.5
    microphone.read(0)
    assert playing.closed and backend.starts == 2 and backend.stream("output").active


@pytest.mark.parametrize("edge", ["microphone", "speaker"])
def test_two_instances_on_one_device(backend, system, edge):
    backend.refusing = dict.fromkeys(("USB mic", "Headset"), ("Device unavailable", -9985))
    opened = DeviceMicrophone(system) if edge == "microphone" else Speaker(system, MODEL_RATE)
    with pytest.raises(AudioDeviceError, match="in use by another program"), opened:
        pass
    assert backend.streams == []


# Checking


def check(microphone, backend, samples):
    backend.stream("input").hear(samples)
    return sound_checks.hear(microphone, 0.9)


def test_a_good_microphone_has_its_level_told(microphone, backend):
    heard = check(microphone, backend, sine(1.0, RATE))
    assert heard.level == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)
    assert heard.peak == pytest.approx(20 * np.log10(0.5), abs=0.1) and heard.problem == ""


def test_a_muted_microphone_is_told(microphone, backend):
    heard = check(microphone, backend, np.zeros(RATE, np.float32))
    assert heard.level == -np.inf and "hears nothing" in heard.problem


def test_clipping_is_told(microphone, backend):
    heard = check(microphone, backend, (4 * sine(1.0, RATE)).clip(-1, 1))
    assert heard.clipped > 1000 and "turn it down" in heard.problem


def test_a_microphone_without_sound_is_an_error(microphone, monkeypatch):
    monkeypatch.setattr(sound_checks, "_READ_SECONDS", 0)
    with pytest.raises(AudioDeviceError, match="gives no sound"):
        sound_checks.hear(microphone)


@pytest.mark.parametrize(("room", "during", "heard"), [(-60, -50, True), (-60, -56, False), (-np.inf, -85, False)])
def test_an_echo_stands_out_of_the_room(room, during, heard):
    assert sound_checks.is_heard(MicrophoneLevel(room, 0, 0), MicrophoneLevel(during, 0, 0)) is heard


# Callbacks never wait


def locks_of(thing, seen):
    """Every lock that can be reached from an object's attributes."""
    if id(thing) in seen or isinstance(thing, type | FakeSounddevice):
        return
    seen.add(id(thing))
    if hasattr(thing, "acquire"):
        yield thing
    for value in getattr(thing, "__dict__", {}).values():
        yield from locks_of(value, seen)


@pytest.mark.parametrize("edge", ["microphone", "speaker"])
def test_a_callback_returns_while_every_lock_is_held_and_nobody_reads(edge, microphone, speaker, backend):
    """The callbacks run in a thread of their own, as PortAudio's do; this one holds all that could be waited for."""
    kind = {"microphone": "input", "speaker": "output"}[edge]
    speaker.begin(FAST, 1.0)
    speaker.push(sine(1.0, MODEL_RATE))
    stream = backend.stream(kind)
    moves = {"input": lambda: stream.hear(sine(20.0, RATE)), "output": lambda: stream.play(2000)}
    locks = list(locks_of({"microphone": microphone, "speaker": speaker}[edge], set()))
    assert locks, "the lock that guards opening and closing is to be among them"
    called = threading.Thread(target=moves[kind], daemon=True)
    held = [lock for lock in locks if lock.acquire(blocking=False)]
    try:
        called.start()
        called.join(60)
        assert not called.is_alive()
    finally:
        for lock in held:
            lock.release()


def test_a_callback_returns_while_a_reader_waits(microphone, backend):
    """A thread that waits for a block within `read` holds nothing that the callback needs."""
    read = []
    reader = threading.Thread(target=lambda: read.append(microphone.read(60.0)), daemon=True)
    reader.start()
    backend.stream("input").hear(sine(0.1, RATE))
    reader.join(60)
    assert [block.at for block in read] == [0]


def test_the_place_that_is_being_read_is_not_written_to(backend):
    handover = RingBuffer(4, 3, backend.clock)
    for value in range(9):
        handover.put(np.full(4, value, np.float32))
    taken = handover.take(0)
    assert (taken.samples.tolist(), taken.end) == ([0.0] * 4 + [1.0] * 4, 8) and handover.take(0) is None
    handover.put(np.full(2, 7.0, np.float32))
    last = handover.take(0)
    assert (last.end, len(last.samples), last.samples[0]) == (38, 2, 7.0)


def test_what_was_put_before_a_gap_is_taken_by_itself(backend):
    handover = RingBuffer(4, 3, backend.clock)
    for value in range(3):
        handover.put(np.full(4, value, np.float32))  # the third is dropped
    first = handover._waiting.popleft()
    handover._waiting.clear()
    handover.put(np.full(4, 3.0, np.float32))
    handover._waiting.appendleft(first)
    assert [handover.take(0).end, handover.take(0).end] == [4, 16]


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 44_099])
def test_the_reading_thread_wakes_once_a_block(rate, notes):
    """The callback sends one signal a block, however many calls bring its samples."""
    backend = FakeSounddevice(card("USB mic", 1, rate=float(rate)))
    with DeviceMicrophone(AudioSystem(backend, backend.clock)) as microphone:
        stream, blocks = backend.stream("input"), 30
        ring, signals = microphone._feed.ring, []
        ring._enough = SimpleNamespace(put=signals.append, get=lambda timeout: feed())
        sound = iter(np.split(np.zeros(2 * blocks * stream.blocksize * 4, np.float32), 2 * blocks * 4))

        def feed():
            before = len(signals)
            while len(signals) == before:
                stream.hear(next(sound))

        for _ in range(blocks):
            assert microphone.read(60.0) is not None
        assert blocks <= len(signals) + 1 <= 1.1 * blocks + 2


# The policy


@pytest.mark.parametrize("rate", [None, 0.01, 0.5, 1.0, 1.3, 3.0])
@pytest.mark.parametrize("lull", [0.0, 0.4])
def test_no_reply_stutters_whose_rate_was_known(rate, lull):
    """Sound is made at the rate in steps of 80 ms, with a lull of text each 12 frames; playing catches up nowhere."""
    seconds, known = 6.0, 1.0 if rate is None else rate
    policy = JitterPolicy(rate, seconds)
    frame = 0.08 * known * (1 - lull)
    times, now = [], 0.0
    for n in range(round(seconds / 0.08)):
        now += frame + (0.96 * known * lull if n % 12 == 0 else 0.0)
        times.append(now)
    start = next(t for n, t in enumerate(times) if policy.may_start(0.08 * (n + 1), 0.0, 0))
    assert all(t <= start + 0.08 * n + 1e-9 for n, t in enumerate(times))


def test_after_running_dry_more_is_kept_waiting():
    policy = JitterPolicy(1.2, 5.0)
    needed = [policy.needed(0.5, 1.0, dry) for dry in range(4)]
    assert needed == sorted(set(needed)) and policy.needed(0.0, 5.0, 0) == pytest.approx(1.2 * TEXT_PAUSE)


def test_less_waits_where_the_text_of_the_round_is_made():
    """A device that is just fast enough starts with the second frame of a round, and late in it with half a round."""
    policy = JitterPolicy(1.0, 60.0)
    assert [policy.may_start(0.08 * frames, 0.0, 0) for frames in (1, 2)] == [False, True]
    assert policy.needed(ROUND, 0.0, 0) == pytest.approx(TEXT_PAUSE)
    assert policy.needed(0.5 * ROUND, 0.5 * ROUND, 0) == policy.needed(ROUND, 0.0, 0)


@pytest.mark.parametrize("drift", [0.001, -0.001])
def test_a_microphone_whose_clock_is_wrong_is_read_without_gaps_or_a_queue(backend, drift):
    """Its samples come 0.1 % too fast or too slowly: blocks follow each other, and their times stay right."""
    with DeviceMicrophone(AudioSystem(backend, backend.clock)) as microphone:
        stream, opened, lag, after = backend.stream("input"), backend.clock.now, [], 0
        for period in range(60_000 // 8):
            stream.hear(np.zeros(stream.blocksize, np.float32))
            # `hear` lets the clock run as the card says; this is what the true one does
            backend.clock.now = opened + (period + 1) * stream.blocksize / RATE / (1 + drift)
            while (block := microphone.read(0)) is not None:
                assert block.at == after
                after += BLOCK
                lag.append(backend.clock.now - block.captured)
        assert len(microphone._feed.ring._waiting) == 0
        assert max(lag[-100:]) < 0.02
