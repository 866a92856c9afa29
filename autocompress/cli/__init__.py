"""The command line, one file per command; `main` knows them by name only."""
