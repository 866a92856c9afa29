"""What a task must keep to be searched, one small function each."""
