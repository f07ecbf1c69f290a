"""INT8 and INT4: a float32 bundle in, a smaller bundle out. It needs onnx and numpy, and no torch."""
