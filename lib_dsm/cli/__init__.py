"""The command line: `main.py` reads it, `commands.py` does it."""
