"""A voice bot with sound of its own: raw samples come in on stdin, its answers go out on stdout.

    arecord -q -t raw -f S16_LE -r 16000 | python examples/voice_bot.py | aplay -q -t raw -f S16_LE -r 24000

In a program, stdin and stdout are a telephone line, a WebSocket or a robot. See docs/guides/voice-bots.md.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

from numpy.typing import NDArray

import voxrill


@voxrill.tool("turn {state} the {room} lights", "{room} lights {state}")
def lights(room: Literal["kitchen", "office"], state: Literal["on", "off"]) -> str:
    """Turn the lights of a room on or off."""
    return f"{room} lights {state}"  # this is said aloud


class RawOutput:
    """Where answers go to. A sink that buffers also has `stop`, which drops what waits when the user interrupts."""

    def write(self, samples: NDArray[Any]) -> None:
        """Take the next samples (n,)."""
        sys.stdout.buffer.write(samples.tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sound: dict[str, Any] = {"source_rate": 16_000, "source_dtype": "int16", "sink_rate": 24_000, "sink_dtype": "int16"}
    with voxrill.load() as model, model.talk(sys.stdin.buffer, RawOutput(), tools=[lights], **sound) as talk:
        for event in talk:
            if isinstance(event, voxrill.UserHeard | voxrill.TurnEnded):
                print(type(event).__name__, event.text.strip(), file=sys.stderr)
