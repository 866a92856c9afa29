"""`python -m autocompress` is the command line."""

from autocompress.cli.main import main

if __name__ == "__main__":  # worker processes import this module under another name
    main()
