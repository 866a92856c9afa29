"""What a search shows on the terminal while it runs."""
