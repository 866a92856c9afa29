"""autocompress: search over pruning, bit-widths and ranks, with a measured Pareto front."""
