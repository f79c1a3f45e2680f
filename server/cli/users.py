"""`tailor users`: the accounts of a workspace, written to its database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from server.cli.console import HERE, Workspace, out, settings_of

if TYPE_CHECKING:
    from server.accounts import Accounts

users_app = typer.Typer(no_args_is_help=True, help="Accounts, for servers that others can reach.")


def _accounts(workspace: Path) -> Accounts:
    from server.accounts import Accounts
    from server.database import Database

    return Accounts(Database(settings_of(workspace, {}, None).paths.data / "tailor.db"))


@users_app.command("add")
def users_add(name: str, workspace: Workspace = HERE, admin: bool = False) -> None:
    """Make an account; asks for its password. A running server needs a restart to begin asking for logins."""
    password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    _accounts(workspace).add(name, password, admin=admin)
    out.print(f"Account '{name}' is made.")


@users_app.command("password")
def users_password(name: str, workspace: Workspace = HERE) -> None:
    """Change a password; every session and key of the account ends."""
    _accounts(workspace).set_password(name, typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    out.print(f"The password of '{name}' is changed.")


@users_app.command("remove")
def users_remove(name: str, workspace: Workspace = HERE) -> None:
    """Remove an account with its sessions and keys."""
    _accounts(workspace).remove(name)
    out.print(f"Account '{name}' is removed.")


@users_app.command("list")
def users_list(workspace: Workspace = HERE) -> None:
    """Who has an account."""
    for account in _accounts(workspace).list():
        out.print(f"{account.name}{' (admin)' if account.admin else ''}")


@users_app.command("key")
def users_key(name: str, workspace: Workspace = HERE) -> None:
    """Make an API key; it is shown once."""
    out.print(_accounts(workspace).new_api_key(name), highlight=False)
