"""The default sampler: option table, sweep, surrogate, expected hypervolume improvement."""
