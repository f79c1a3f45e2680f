"""What an account may do beyond its own chats: `GRANTS`, the one table. Routes ask for a permission, never for a role.

Knows nothing of accounts or routes; data alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Role(StrEnum):
    USER = "user"  # every account has it
    CURATOR = "curator"
    LABELLER = "labeller"
    TRAINER = "trainer"
    APPROVER = "approver"
    ADMIN = "admin"


class Permission(StrEnum):
    KNOWLEDGE_WRITE = "knowledge:write"  # files, generations, trial searches
    ADAPTERS_LOAD = "adapters:load"
    METRICS_READ = "metrics:read"
    USERS_MANAGE = "users:manage"  # accounts, roles, groups
    AUDIT_READ = "audit:read"


# The work of labellers, and most of that of trainers and approvers, has no route yet: docs/accounts.md says so.
GRANTS: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {
        Role.USER: frozenset(),
        Role.CURATOR: frozenset({Permission.KNOWLEDGE_WRITE}),
        Role.LABELLER: frozenset(),
        Role.TRAINER: frozenset({Permission.ADAPTERS_LOAD}),
        Role.APPROVER: frozenset({Permission.ADAPTERS_LOAD}),
        Role.ADMIN: frozenset(Permission),
    }
)


def permissions_of(roles: Iterable[Role]) -> frozenset[Permission]:
    return frozenset().union(*(GRANTS[role] for role in roles))


def roles_with(permission: Permission) -> tuple[Role, ...]:
    return tuple(role for role in Role if permission in GRANTS[role])
