"""What stands for an account, its logins and its keys outside this part. Without behaviour, data alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from server.accounts.permissions import Permission, Role, permissions_of
from server.types import UserId

MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class Account:
    """`user_id` is random, so that a name that is given again inherits nothing."""

    user_id: UserId
    name: str
    roles: frozenset[Role] = frozenset({Role.USER})

    @property
    def admin(self) -> bool:
        return Role.ADMIN in self.roles

    @property
    def permissions(self) -> frozenset[Permission]:
        return permissions_of(self.roles)

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from, as the connection and its headers say."""

    address: str = ""
    agent: str = ""  # User-Agent, cut short where it is stored


@dataclass(frozen=True, slots=True)
class Session:
    """A login as it is opened. `token` is the secret, shown here once; `expires_at` in seconds since the epoch."""

    token: str = field(repr=False)
    account: Account
    expires_at: float
    id: str = ""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A login as its owner sees it in a list."""

    id: str
    agent: str
    address: str
    created_at: float
    last_seen: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner sees it in a list. `prefix` is its beginning; `last_used` is None until it is used."""

    id: str
    name: str
    prefix: str
    created_at: float
    last_used: float | None


@dataclass(frozen=True, slots=True)
class Credential:
    """What a caller came in with; `id` names the session or the key in its table, and is no secret."""

    kind: Literal["session", "key", "local"]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """A caller: whose account, and by what."""

    account: Account
    credential: Credential
