"""What one client may ask for, and what all clients may ask for together. Every limit of the server is here."""

from __future__ import annotations

from dataclasses import dataclass

_STEREO = 48_000 * 2
"""Samples of a second of 48 kHz stereo."""


TOOL_BYTES = 64 << 10
"""Bytes of JSON that one client's tools and schemas may take."""


@dataclass(frozen=True)
class Limits:
    """Bytes, seconds and numbers above which a request is refused."""

    connections: int = 128
    """Connections that are open at once, WebSockets included."""

    address_connections: int = 32
    """Connections of one address: a quarter of all, and more than `sessions`, `active` and `queue` together need."""

    headers: float = 10.0
    """Seconds in which a connection must bring the headers of a request."""

    wrong_keys: int = 10
    """Wrong API keys that one address may send in a minute."""

    body: int = 25 << 20
    """Bytes of a request that is held in memory. OpenAI has the same limit."""

    file: int = 25 << 20
    """Bytes of a request with a file, which is not held in memory. OpenAI has the same limit."""

    spool: int = 4 << 20
    """Bytes of an uploaded file that are held in memory. A larger file lies on disk while it is heard."""

    upload: float = 60.0
    """Seconds in which the body of a request must arrive; a file that may be larger than `body` has longer."""

    recording: float = 3600.0
    """Seconds of one uploaded sound to transcribe. It is read piece by piece."""

    audio: float = 600.0
    """Seconds of one sound over Wyoming, and of all sounds of one chat request together. They are held in memory."""

    question: float = 60.0
    """Seconds of one sound in a chat: the encoder hears it at once, and its memory grows with the square."""

    samples: int = 600 * _STEREO
    """Samples of one sound before it is resampled, all channels counted: 10 minutes of 48 kHz stereo."""

    text: int = 4096
    """Characters of one text."""

    active: int = 4
    """Requests that take turns with the model."""

    queue: int = 8
    """Requests that wait until one of the active ones is done."""

    rate: int = 600
    """Requests of one address in a minute."""

    sessions: int = 8
    """Realtime sessions at once."""

    message: int = 512 << 10
    """Bytes of one event of Wyoming."""

    websocket_message: int = 4 << 20
    """Bytes of one realtime message: 30 s of sound at 48 kHz, the longest turn, in base64."""

    idle: float = 900.0
    """Seconds after which a realtime session that gets no message is closed."""

    memory: int = 256 << 20
    """Bytes of the states of kept conversations; the rest are moved to disk.

    The states of single requests come on top: at most `active`.
    """

    chats: int = 16
    """Conversations that are kept for their next request."""

    stall: float = 30.0
    """Seconds for which a client may leave unread what it was sent."""

    unread: int = 4 << 20
    """Bytes of events that may wait for a realtime client to read them."""

    answer: int = 2048
    """Text tokens and audio frames of one answer."""

    @property
    def recording_samples(self) -> int:
        """`samples` of an uploaded sound to transcribe, which may be longer."""
        return max(self.samples, round(self.recording * _STEREO))

    @property
    def file_upload(self) -> float:
        """`upload` of a request with a file: a larger one has longer to arrive."""
        return self.upload * max(1.0, self.file / self.body)
