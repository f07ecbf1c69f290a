"""Sound: files, devices, rates, log-mel, and where speech begins and ends. It knows nothing of models."""
