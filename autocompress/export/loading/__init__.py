"""Put the tensors of a packed file back into a PyTorch model; `export/load.py` is the entry."""
