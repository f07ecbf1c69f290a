"""Home Assistant's protocol: speech to text, text to speech and answers for its clients, and talks with satellites."""
