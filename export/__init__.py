"""Host side: a checkpoint in, a bundle of ONNX graphs and its manifest out.

The only room that loads torch, transformers and optimum; they come with the `export` extra. One wrapper file
per graph, one place that writes bundles, one that compares each graph with the model it came from.
"""
