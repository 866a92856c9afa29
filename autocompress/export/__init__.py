"""One point of a run as a bundle: chosen, written, verified in a fresh process."""
