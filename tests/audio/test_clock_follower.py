"""Two devices with clocks of their own: no clicks, no gaps, and no queue that grows."""

import numpy as np
import pytest

from voxrill.runtime.audio.clock_follower import ClockFollower
from voxrill.runtime.audio.protocols import BLOCK, RATE

TARGET, CHUNK, HERTZ = 320, 160, 440.0


def followed(seconds, drift):
    """A sine through two clocks, and what waited after each block. drift(seconds): how much faster the first one is."""
    follower, waited, heard, given, due = ClockFollower(TARGET, 1600), [], [], 0, 2.0 * TARGET
    for block in range(round(seconds * RATE / BLOCK)):
        due += BLOCK * (1 + drift(block * BLOCK / RATE))
        while given + CHUNK <= due:
            times = np.arange(given, given + CHUNK) / RATE
            follower.put(np.sin(2 * np.pi * HERTZ * times).astype(np.float32))
            given += CHUNK
        heard.append(follower.take(BLOCK))
        follower.adjust(BLOCK / RATE)
        waited.append(follower.waiting)
    return np.concatenate(heard), np.array(waited), follower


@pytest.mark.parametrize("drift", [0.001, -0.001, 0.0])
def test_a_drifting_device_makes_no_clicks_and_no_queue(drift):
    heard, waited, follower = followed(100.0, lambda _seconds: drift)
    assert follower.pace == pytest.approx(1 + drift, abs=1e-4)
    assert waited.min() > 0 and waited.max() < 3 * TARGET
    assert abs(waited[-500:].mean() - TARGET) < 40
    settled = heard[60 * RATE :]
    # A sine obeys x[n + 1] + x[n - 1] = 2 cos(w) x[n]; a dropped or repeated sample breaks it by up to w = 0.17.
    turn = 2 * np.cos(2 * np.pi * HERTZ * (1 + drift) / RATE)
    assert np.abs(settled[2:] + settled[:-2] - turn * settled[1:-1]).max() < 1e-3


def test_a_clock_that_drifts_away_slowly_is_followed():
    """0.1 % within two minutes; in half an hour it is slower still."""
    heard, waited, follower = followed(120.0, lambda seconds: 0.001 * seconds / 120)
    assert waited.min() > 0 and waited.max() < 3 * TARGET
    assert follower.pace == pytest.approx(1.001, abs=2e-4)
    assert np.abs(np.diff(heard[RATE:], 2)).max() < 0.032  # the sine's own is w squared, 0.030


def test_after_a_standstill_the_oldest_sound_is_dropped():
    follower = ClockFollower(TARGET, 1600)
    follower.put(np.ones(RATE, np.float32))
    follower.adjust(BLOCK / RATE)
    assert follower.waiting == TARGET


def test_what_is_not_there_is_silence():
    follower = ClockFollower(TARGET, 1600)
    follower.put(np.ones(100, np.float32))
    assert not follower.take(BLOCK)[-400:].any()
