"""What one client may ask for, and all of them together. Every limit of the server is here, with its default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bytes, seconds and numbers above which a request is refused.

    connections: that are open at once, WebSockets included. body: bytes of a request (OpenAI's own limit). upload:
    seconds that its arrival may take, and that a connection may be open before one begins. audio: seconds of one
    sound. text: characters of one text. active: requests worked on in turn; queue: that wait for it. rate: requests of
    one address in a minute. sessions: realtime ones at once. message: bytes of one WebSocket message (8 s of sound).
    idle: seconds after which a realtime session without a message is closed. memory: bytes of the states of
    conversations that go on (those of a single request come on top, `active` at most); the rest are moved to disk.
    chats: conversations that are kept for their next request. stall: seconds that a client may leave what it was sent
    unread. answer: text tokens and frames of one answer.
    """

    connections: int = 128
    body: int = 25 << 20
    upload: float = 60.0
    audio: float = 600.0
    text: int = 4096
    active: int = 4
    queue: int = 8
    rate: int = 600
    sessions: int = 8
    message: int = 512 << 10
    idle: float = 900.0
    memory: int = 256 << 20
    chats: int = 16
    stall: float = 30.0
    answer: int = 2048
