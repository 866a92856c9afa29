"""Where trials are evaluated: in this process, in a worker that may die, or on a Ray cluster."""
