"""What this room refuses: what is wrong, and what to do about it. Rooms above turn it into an error of their own."""

from __future__ import annotations


class DeviceError(ValueError):
    """A device, profile or provider that cannot be used; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy
