"""Accounts of people who sign in at an identity provider: linked by issuer and subject, never by name or e-mail.

Blocks. Knows nothing of how a provider is asked.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from server.accounts.accounts import Accounts
from server.accounts.groups import Groups
from server.accounts.permissions import Role
from server.accounts.records import MAX_NAME, Account
from server.config import OidcSettings
from server.database import Database
from server.errors import Conflict, Forbidden
from server.types import UserId

_NOT_IN_A_NAME = re.compile(r"[^a-z0-9._-]+")


class Identities:
    """Needs the tables of `Accounts`."""

    def __init__(self, database: Database, accounts: Accounts, groups: Groups, settings: OidcSettings) -> None:
        self._database = database
        self._accounts = accounts
        self._groups = groups
        self._settings = settings

    def account_of(self, claims: Mapping[str, Any]) -> Account:
        """The account of whoever has these checked claims, with the roles and groups that the settings map; made where
        `oidc.create_accounts` says so. Raises Forbidden for somebody unknown."""
        issuer, subject = str(claims["iss"]), str(claims["sub"])
        account = self.find(issuer, subject)
        if account is None:
            if not self._settings.create_accounts:
                raise Forbidden("you have no account here; ask an administrator to link one to you")
            account = self._made(issuer, subject, claims)
        return self._mapped(account, claims)

    def find(self, issuer: str, subject: str) -> Account | None:
        row = self._database.connection().execute(
            "SELECT user_id FROM account_identities WHERE issuer = ? AND subject = ?", [issuer, subject]
        ).fetchone()  # fmt: skip
        return self._accounts.by_id(UserId(row[0])) if row else None

    def link(self, name: str, issuer: str, subject: str) -> None:
        """Whoever the provider calls `subject` signs in to that account. Raises NotFound, Conflict."""
        user_id = self._accounts.get(name).user_id
        with self._database.transaction() as db:
            if self.find(issuer, subject) is not None:
                raise Conflict(f"'{subject[:64]}' of {issuer} is linked already")
            db.execute("INSERT INTO account_identities VALUES (?, ?, ?)", [issuer, subject, user_id])

    def is_linked(self, user_id: UserId) -> bool:
        found = self._database.connection().execute(
            "SELECT 1 FROM account_identities WHERE user_id = ? LIMIT 1", [user_id]
        )
        return found.fetchone() is not None

    def _made(self, issuer: str, subject: str, claims: Mapping[str, Any]) -> Account:
        wanted = str(claims.get(self._settings.name_claim) or claims.get("email") or "user").partition("@")[0]
        name = _NOT_IN_A_NAME.sub("-", wanted.lower()).strip("-.")[: MAX_NAME - 9] or "user"
        with self._database.transaction():
            taken = any(account.name == name for account in self._accounts.list())
            account = self._accounts.add(f"{name}-{secrets.token_hex(4)}" if taken else name, None)
            self.link(account.name, issuer, subject)
        return account

    def _mapped(self, account: Account, claims: Mapping[str, Any]) -> Account:
        """What the provider says replaces what was there, where the settings map anything."""
        settings = self._settings
        if not settings.groups_claim:
            return account
        told = claims.get(settings.groups_claim)
        named = {told} if isinstance(told, str) else {str(one) for one in told} if isinstance(told, list) else set()
        if settings.group_map:
            mapped = {group for name, group in settings.group_map.items() if name in named}
            self._groups.set_groups(account.user_id, mapped)
        if settings.role_map:
            roles = {role for name, role in settings.role_map.items() if name in named}
            try:
                account = self._accounts.set_roles(account.name, roles)
            except Conflict:  # the only administrator stays one, whatever the provider says
                account = self._accounts.set_roles(account.name, roles | {Role.ADMIN.value})
        return account
