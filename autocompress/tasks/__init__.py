"""Tasks: what a user brings, readers of standard data formats, and the embedded default."""
