"""What Voxrill knows about the machines it runs on: profiles, execution providers, planning.

The lowest room above the ground floor. It never imports torch, onnx, transformers or optimum.
"""
