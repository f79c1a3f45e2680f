"""`tailor`: serve, chat, train, compare, index, embedder, adapters, users, backup, restore, doctor.

Puts the groups of commands together; each reads the settings of the workspace (the current folder unless `--workspace`
says otherwise), calls the parts, and prints. What is slow to import (torch, transformers, the parts that need them) is
imported by the commands that need it, when they do. An error of ours is one line on standard error and exit status 1.
"""

from __future__ import annotations

import errno
import sys

import typer

from server.cli.adapters import adapters_app
from server.cli.chat import chat
from server.cli.embedder import embedder_app
from server.cli.index import index_app
from server.cli.maintenance import backup, doctor, restore
from server.cli.serve import serve
from server.cli.training import compare, train
from server.cli.users import users_app
from server.errors import TailorError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A chat server that fits a model to your work.")
for command in (serve, chat, train, compare, backup, restore, doctor):
    app.command()(command)
app.add_typer(index_app, name="index")
app.add_typer(embedder_app, name="embedder")
app.add_typer(adapters_app, name="adapters")
app.add_typer(users_app, name="users")


def main() -> None:
    """Runs the command line; our own errors end as one clear line."""
    try:
        app()
    except TailorError as error:
        typer.echo(f"tailor: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        typer.echo("tailor: the disk is full: free some space and try again", err=True)
        sys.exit(1)
