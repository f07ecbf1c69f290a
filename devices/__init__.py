"""What Voxrill knows about the machines it runs on: profiles, execution providers, planning.

The lowest room: it imports none of the others, and never torch, onnx, transformers or optimum.
"""
