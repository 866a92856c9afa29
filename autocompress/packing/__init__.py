"""The packed model: one file with the graph and every tensor, entropy-coded and exact."""
