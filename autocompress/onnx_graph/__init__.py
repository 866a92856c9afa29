"""Reading ONNX graphs: nodes, inner graphs, constants, users."""
