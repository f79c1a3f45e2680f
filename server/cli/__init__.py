"""`tailor`: a file a group of commands. Knows no HTTP of its own but that of a running server."""

from server.cli.commands import main

__all__ = ["main"]
