"""What a search tries next: the initial design, Optuna's samplers, and the guided one."""
