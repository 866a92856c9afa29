"""The Python interface: search, look, export; as the command line does it, in notebooks too."""
