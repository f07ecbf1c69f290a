"""The model at work: graphs in onnxruntime, their state, prompts, generation, conversations."""
