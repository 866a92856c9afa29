"""Where evaluations run: in this process, or in a worker that may die."""
