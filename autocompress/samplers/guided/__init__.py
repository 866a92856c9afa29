"""The default sampler: sensitivity table, Lagrangian sweep, Gaussian process, acquisition."""
