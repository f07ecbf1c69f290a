"""Voice activity of a live microphone: quiet blocks cost nothing, no turn is missed, beginnings are noticed early."""

import numpy as np
import pytest

from benchmarks.talk.measuring import voiced
from tests.talking import SPOKEN, silence, spoken
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions
from voxrill.runtime.audio.live_voice import PIECE, LiveVoice
from voxrill.runtime.audio.protocols import BLOCK, RATE
from voxrill.runtime.audio.voice_activity import VoiceActivity


def noise(seconds, level, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def turns(voice, sound):
    """First and last voiced block of every turn that a detector finds."""
    endpointer, found = Endpointer(EndpointOptions()), []
    for block in np.split(sound[: len(sound) // BLOCK * BLOCK], len(sound) // BLOCK):
        if endpointer.hear(voice(block)) == "ended":
            found.append((endpointer.first, endpointer.last))
    return found


@pytest.mark.parametrize("level", [0.0, 1e-4, 3e-3, 2e-2], ids=["silence", "quiet", "fan", "loud fan"])
def test_every_turn_is_found_that_is_found_without_the_gate(level):
    for number, clip in enumerate(SPOKEN[:8]):
        sound = noise(5.0 + len(spoken(clip)) / RATE, level, number)
        sound[3 * RATE : 3 * RATE + len(spoken(clip))] += spoken(clip)
        wanted, found = turns(VoiceActivity(), sound), turns(LiveVoice(), sound)
        assert len(found) == len(wanted)
        assert np.abs(np.subtract(found, wanted)).max(initial=0) <= 2  # 64 ms; 320 are kept before a turn


def test_a_quiet_room_does_not_wake_the_network():
    voice = LiveVoice()
    turns(voice, noise(2.0, 1e-3))
    asked = voice.asked
    turns(voice, noise(60.0, 1e-3, 1))
    assert voice.asked == asked < 60
    turns(voice, 3 * noise(0.5, 1e-3, 2))  # 10 dB more
    assert voice.asked > asked


def noticed(sound, start):
    """Samples from `start` to the first piece at which somebody seems to begin; None if nobody does."""
    voice = LiveVoice()
    for at in range(0, len(sound) - BLOCK + 1, BLOCK):
        for end in range(PIECE, BLOCK + 1, PIECE):
            if voice.begins(sound[at : at + end]) and at + end > start:
                return at + end - start
        voice(sound[at : at + BLOCK])
    return None


@pytest.mark.parametrize("phase", [0, 170, 340])
def test_a_beginning_is_noticed_before_its_block_is_whole(phase):
    waits = []
    for number, clip in enumerate(SPOKEN[:12]):
        quiet = noise(1.0 + phase / RATE, 1e-4, number)
        start = len(quiet) + voiced(spoken(clip), RATE)[0]
        waits.append(noticed(np.concatenate([quiet, spoken(clip)]), start))
    assert np.median(waits) <= 0.02 * RATE and max(waits) <= 0.06 * RATE  # whole blocks: 54 ms, 100 at most


def test_nothing_begins_in_silence_or_when_the_room_hums():
    assert noticed(silence(5.0), 0) is None
    assert noticed(noise(5.0, 3e-3), RATE) is None
    knock = noise(5.0, 1e-4)
    knock[3 * RATE : 3 * RATE + 40] += 0.2  # 2 ms: loud, and no voice
    assert noticed(knock, RATE) is None


def test_a_glance_leaves_no_trace():
    sound = spoken(SPOKEN[0])
    looked, straight = LiveVoice(), LiveVoice()
    for at in range(0, len(sound) - BLOCK + 1, BLOCK):
        looked.begins(sound[at : at + 3 * PIECE])
        assert looked(sound[at : at + BLOCK]) == straight(sound[at : at + BLOCK])
