"""The realtime interface: a WebSocket on which sound goes in and out at the same time."""
