"""Device side: a bundle in, text and sound out.

The room that runs where torch does not fit: it chains the bundle's graphs with numpy and onnxruntime, reads
and writes sound with soundfile and soxr, and keeps the conversation's state. It imports `voxrill.devices` and
nothing else of ours, and never torch, onnx, transformers or optimum; a test in a subprocess proves it.
"""
