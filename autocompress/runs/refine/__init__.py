"""Points of a run trained in full."""
