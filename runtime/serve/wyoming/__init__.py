"""Home Assistant's protocol: speech to text, text to speech and answers for whoever asks, and talks with satellites."""
