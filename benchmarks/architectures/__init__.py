"""What `generality.py` runs: architectures and the checks each of them goes through."""
