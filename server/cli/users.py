"""`tailor users`: accounts, groups and the audit log of a workspace, in its database, whether a server runs or not."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from server.cli.console import HERE, Workspace, out, settings_of
from server.errors import Conflict, NotFound

if TYPE_CHECKING:
    from server.accounts import Accounts, AuditLog, Groups
    from server.config import Settings
    from server.database import Database

users_app = typer.Typer(no_args_is_help=True, help="Accounts, for servers that others can reach.")

SERVER_ERASES_S = 60.0
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Roles = Annotated[
    list[str] | None, typer.Option("--role", help="curator, labeller, trainer, approver or admin; repeatable.")
]


class _Workspace:
    """The parts of one workspace that these commands work on."""

    def __init__(self, folder: Path) -> None:
        from server.accounts import Accounts, AuditLog, Groups
        from server.database import Database

        self.settings: Settings = settings_of(folder, {}, None)
        self.database: Database = Database(self.settings.paths.data / "tailor.db")
        self.accounts: Accounts = Accounts(self.database)
        self.groups: Groups = Groups(self.database)
        self.audit: AuditLog = AuditLog(self.database, self.settings.audit.keep_days)

    def record(self, action: str, target: str, **detail: object) -> None:
        from server.accounts import COMMAND_LINE, Action

        self.audit.record(Action(action), None, target, detail, COMMAND_LINE)


def _ask_password() -> str:
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────


@users_app.command("add")
def users_add(name: str, workspace: Workspace = HERE, admin: bool = False, role: Roles = None) -> None:
    """Make an account; asks for its password. A running server needs a restart to begin asking for logins."""
    place = _Workspace(workspace)
    made = place.accounts.add(name, _ask_password(), admin=admin, roles=role or ())
    place.record("user.added", made.name, roles=sorted(made.roles))
    out.print(f"Account '{made.name}' is made.")


@users_app.command("password")
def users_password(name: str, workspace: Workspace = HERE) -> None:
    """Change a password; every session and key of the account ends."""
    place = _Workspace(workspace)
    place.accounts.set_password(name, _ask_password())
    place.record("user.password", name.strip().lower())
    out.print(f"The password of '{name}' is changed.")


@users_app.command("remove")
def users_remove(
    name: str,
    workspace: Workspace = HERE,
    export: Annotated[Path | None, typer.Option(help="Write everything of theirs to this zip file first.")] = None,
    yes: Yes = False,
) -> None:
    """Remove an account with everything of it: sessions, keys, chats, memories. For good."""
    place = _Workspace(workspace)
    account = place.accounts.get(name)
    if export is not None:
        _export(place, account.name, export)
    if not yes:
        typer.confirm(f"Erase the account '{account.name}' with all its chats and memories, for good?", abort=True)
    place.accounts.remove(account.name)
    place.record("user.removed", account.name)
    _erase_removed(place)
    out.print(f"Account '{account.name}' is removed, with everything of it.")


def _erase_removed(place: _Workspace) -> None:
    """A running server does it, as it also stops running answers; else this process."""
    from server.retrieval import index_lock
    from server.user_data import UserData

    deadline = time.monotonic() + SERVER_ERASES_S
    while place.accounts.erasures():
        try:
            with index_lock(place.settings.paths.data / "index"):
                for user in place.accounts.erasures():
                    UserData(place.database).erase_stored(user)
                    place.accounts.erased(user)
        except Conflict as error:
            if time.monotonic() > deadline:
                raise Conflict(
                    "the account is removed, and the running server has not erased its data yet; it does so when it "
                    "is free, or at its next start"
                ) from error
            time.sleep(0.2)


@users_app.command("export")
def users_export(name: str, file: Path, workspace: Workspace = HERE) -> None:
    """Write everything of an account to a zip file."""
    _export(_Workspace(workspace), name, file)


def _export(place: _Workspace, name: str, file: Path) -> None:
    from dataclasses import asdict

    from server.private_files import make_private
    from server.retrieval import Access
    from server.user_data import UserData

    account = place.accounts.get(name)
    index = place.settings.paths.data / "index" / "access.json"
    access = Access(place.settings.paths.knowledge, index, place.accounts.principals_of)
    file.touch(mode=0o600)
    make_private(file)
    extra = {
        "account": {"name": account.name, "roles": sorted(account.roles), "groups": place.groups.of(account.user_id)},
        "audit": [asdict(entry) for entry in place.audit.page(actor_id=account.user_id, limit=500)],
    }
    counts = UserData(place.database, may_see=access.may_see).export(account.user_id, file, extra=extra)
    place.record("account.exported", account.name)
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    out.print(f"{escape(str(file))}: {told}", highlight=False)


@users_app.command("list")
def users_list(workspace: Workspace = HERE) -> None:
    """Who has an account, with roles and groups."""
    place = _Workspace(workspace)
    for account in place.accounts.list():
        told = [*sorted(account.roles - {"user"}), *(f"@{group}" for group in place.groups.of(account.user_id))]
        beside = f" ({', '.join(told)})" if told else ""
        out.print(f"{account.name}{beside}", highlight=False)


@users_app.command("roles")
def users_roles(
    name: str, role: Annotated[list[str] | None, typer.Argument()] = None, workspace: Workspace = HERE
) -> None:
    """Replace the roles of an account: those named, none beside `user` where none is."""
    place = _Workspace(workspace)
    changed = place.accounts.set_roles(name, role or ())
    place.record("user.roles", changed.name, roles=sorted(changed.roles))
    out.print(f"{changed.name}: {', '.join(sorted(changed.roles))}", highlight=False)


@users_app.command("link")
def users_link(name: str, subject: str, workspace: Workspace = HERE) -> None:
    """Let whoever the identity provider calls SUBJECT sign in to an account."""
    from server.accounts import Identities
    from server.errors import ConfigError

    place = _Workspace(workspace)
    oidc = place.settings.oidc
    if not oidc.issuer:
        raise ConfigError("oidc.issuer is empty: set it to the provider's address first")
    Identities(place.database, place.accounts, place.groups, oidc).link(name, oidc.issuer, subject)
    place.record("user.linked", name.strip().lower())
    out.print(f"'{name}' is linked.")


# ── keys and sessions ────────────────────────────────────────────────────────────────────────────


@users_app.command("key")
def users_key(
    name: str, workspace: Workspace = HERE, label: Annotated[str, typer.Option(help="What it is for.")] = ""
) -> None:
    """Make an API key; it is shown once."""
    place = _Workspace(workspace)
    account = place.accounts.get(name)
    key, secret = place.accounts.make_api_key(account.user_id, label)
    place.record("key.made", account.name, prefix=key.prefix)
    out.print(secret, highlight=False)


@users_app.command("keys")
def users_keys(name: str, workspace: Workspace = HERE) -> None:
    """The API keys and sessions of an account, each with its id."""
    place = _Workspace(workspace)
    user = place.accounts.get(name).user_id
    for key in place.accounts.api_keys(user):
        used = _when(key.last_used) if key.last_used else "never"
        out.print(f"key      {key.id}  {key.prefix}…  {escape(key.name)}  used: {used}", highlight=False)
    for session in place.accounts.sessions(user):
        facts = f"{escape(session.address)}  {escape(session.agent[:60])}"
        out.print(f"session  {session.id}  {facts}  seen: {_when(session.last_seen)}", highlight=False)


@users_app.command("revoke")
def users_revoke(
    name: str,
    id: Annotated[str | None, typer.Argument(help="Of a key or a session, as `keys` shows it.")] = None,
    workspace: Workspace = HERE,
) -> None:
    """End one key or session of an account; without an id, all its sessions."""
    place = _Workspace(workspace)
    account = place.accounts.get(name)
    if id is None:
        ended = place.accounts.revoke_other_sessions(account.user_id, keep="")
        place.record("session.revoked", account.name, ended=ended)
        out.print(f"{ended} sessions of '{account.name}' are ended.", highlight=False)
    elif any(key.id == id for key in place.accounts.api_keys(account.user_id)):
        place.accounts.revoke_api_key(account.user_id, id)
        place.record("key.revoked", account.name)
        out.print("The key is revoked.")
    elif any(session.id == id for session in place.accounts.sessions(account.user_id)):
        place.accounts.revoke_session(account.user_id, id)
        place.record("session.revoked", account.name, ended=1)
        out.print("The session is ended.")
    else:
        raise NotFound(f"'{account.name}' has no key and no session '{id[:64]}'; 'tailor users keys' shows them")


# ── groups and the audit log ─────────────────────────────────────────────────────────────────────


@users_app.command("groups")
def users_groups(workspace: Workspace = HERE) -> None:
    """The groups and who is in them."""
    for group in _Workspace(workspace).groups.list():
        out.print(f"@{group.name}: {', '.join(group.members) or '(nobody)'}", highlight=False)


@users_app.command("group")
def users_group(
    name: str,
    member: Annotated[list[str] | None, typer.Argument()] = None,
    workspace: Workspace = HERE,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the group instead.")] = False,
) -> None:
    """Make a group, or replace its members."""
    place = _Workspace(workspace)
    bare = name.strip().lower().removeprefix("@")
    if remove:
        place.groups.remove(bare)
        place.record("group.removed", bare)
        return out.print(f"The group '{bare}' is removed.")
    there = any(group.name == bare for group in place.groups.list())
    group = (place.groups.set_members if there else place.groups.add)(bare, member or ())
    place.record("group.members" if there else "group.added", group.name, members=list(group.members))
    return out.print(f"@{group.name}: {', '.join(group.members) or '(nobody)'}", highlight=False)


@users_app.command("audit")
def users_audit(workspace: Workspace = HERE, limit: int = 50) -> None:
    """Who signed in and who changed what, the newest first."""
    for entry in _Workspace(workspace).audit.page(limit=limit):
        detail = " ".join(f"{name}={value}" for name, value in entry.detail.items())
        line = f"{_when(entry.at)}  {entry.actor or '-'}  {entry.action}  {entry.target}  {detail}  {entry.address}"
        out.print(escape(line), highlight=False, soft_wrap=True)


def _when(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")
