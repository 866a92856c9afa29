"""Runtimes: a candidate as an ONNX graph, its integer form, and what it costs to run."""
