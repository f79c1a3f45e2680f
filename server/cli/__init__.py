"""`tailor`: a file a group of commands. Knows the parts and no HTTP of its own."""

from server.cli.commands import main

__all__ = ["main"]
