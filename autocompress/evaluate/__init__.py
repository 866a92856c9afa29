"""Plan in, Measurement out: build, tune, score, export, pack, time."""
