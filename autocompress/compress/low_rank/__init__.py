"""Low rank: one file per way to split a weight, `table` lists them, `surgery` replaces layers."""
