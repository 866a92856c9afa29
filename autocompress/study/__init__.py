"""One study: its trials, what identifies it, when it ends, and the loop that drives it."""
