"""Host side: a checkpoint in, a bundle of ONNX graphs and its manifest out.

The only room that loads torch, transformers and optimum; they come with the `export` extra. Each graph has a file with
its module. One file writes bundles, and one compares each graph with the module it came from.
"""
