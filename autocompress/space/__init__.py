"""What can be searched: rules from YAML, knobs, levels and plans."""
