"""The command line: `reserve COMMAND …`. Each command is one module; the work is done elsewhere."""

from reserve.cli.app import main

__all__ = ["main"]
