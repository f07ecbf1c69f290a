"""Serving: one model, many clients, over HTTP and WebSocket.

In: requests of OpenAI's audio, chat and realtime interfaces. Out: text and sound as they are made. One thread owns the
model (`worker.py`) and gives each client a small step in turn; everything else waits for nobody. Needs the serve extra.
"""
