"""Parts of `benchmarks/packed_size.py`."""
