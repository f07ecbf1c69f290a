"""The realtime interface: a WebSocket on which sound goes in and comes out while both talk."""
