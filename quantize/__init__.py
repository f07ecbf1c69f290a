"""The room for INT8 and INT4: a float32 bundle in, a smaller bundle out (onnx and numpy, no torch)."""
