"""Accounts, roles and groups as an administrator manages them, and the audit log. Shows nobody's chats."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from server.accounts import GRANTS, MAX_NAME, MAX_PASSWORD, Action, Credential, Entry, Role
from server.api.audit import Record
from server.api.fields import RequestModel, RowId
from server.api.routes.session import account_body
from server.api.services import AuditReader, CurrentLogin, ServicesDep, UserManager, origin_of
from server.api.transport.routing import KIB, Route, takes_body
from server.errors import Conflict, InvalidInput
from server.retrieval import KnowledgeView

router = APIRouter(prefix="/api", route_class=Route)

Name = Annotated[str, Field(max_length=MAX_NAME)]
Password = Annotated[str, Field(max_length=MAX_PASSWORD)]


async def _has_accounts(login: CurrentLogin) -> None:
    """The first account is made at the command line: making it here would lock its maker out at the next start."""
    if login.credential == Credential("local"):
        raise Conflict("this server has no accounts yet: make one with 'tailor users add NAME --admin' and restart it")


Change = Depends(_has_accounts)


class UserRequest(RequestModel):
    name: Name
    password: Password
    roles: list[Name] = Field(default=[], max_length=len(Role))


class RolesRequest(RequestModel):
    roles: list[Name] = Field(max_length=len(Role))


class ResetRequest(RequestModel):
    password: Password


class GroupRequest(RequestModel):
    name: Name
    members: list[Name] = Field(default=[], max_length=10_000)


class MembersRequest(RequestModel):
    members: list[Name] = Field(max_length=10_000)


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────


@router.get("/users")
async def users(services: ServicesDep, user: UserManager) -> dict[str, Any]:
    """`roles`: those there are, with what each may do."""

    def read() -> dict[str, Any]:
        found = [account_body(one) | {"groups": services.groups.of(one.user_id)} for one in services.accounts.list()]
        return {"users": found, "roles": {role: sorted(granted) for role, granted in GRANTS.items()}}

    return await asyncio.to_thread(read)


@router.post("/users", status_code=201, dependencies=[Change])
@takes_body(8 * KIB)
async def add_user(body: UserRequest, services: ServicesDep, user: UserManager, record: Record) -> dict[str, Any]:
    made = await services.sign_in.add(body.name, body.password, frozenset(body.roles))
    await record(Action.USER_ADDED, made.name, roles=sorted(made.roles))
    return account_body(made)


@router.patch("/users/{name}", dependencies=[Change])
@takes_body(4 * KIB)
async def change_roles(
    name: Name, body: RolesRequest, services: ServicesDep, user: UserManager, record: Record
) -> dict[str, Any]:
    changed = await asyncio.to_thread(services.accounts.set_roles, name, body.roles)
    await record(Action.ROLES_CHANGED, changed.name, roles=sorted(changed.roles))
    return account_body(changed)


@router.put("/users/{name}/password", status_code=204, dependencies=[Change])
@takes_body(8 * KIB)
async def reset_password(
    name: Name, body: ResetRequest, request: Request, services: ServicesDep, user: UserManager, record: Record
) -> None:
    """Every session and key of that account ends."""
    await services.sign_in.reset_password(name, body.password, origin_of(request))
    await record(Action.PASSWORD_RESET, name.strip().lower())


@router.delete("/users/{name}", dependencies=[Change])
async def remove_user(
    name: Name, services: ServicesDep, user: UserManager, record: Record, confirm: bool = False
) -> dict[str, Any]:
    """With everything of theirs, for good."""
    if not confirm:
        raise InvalidInput("this erases the account with all its chats and memories; send confirm=true to do it")
    if name.strip().lower() == user.name:
        raise Conflict("to remove your own account, erase it on your account page")
    gone = await asyncio.to_thread(services.accounts.remove, name)
    receipts = await services.revocations.erase_removed()
    await record(Action.USER_REMOVED, gone.name)
    return {"erased": asdict(receipts[gone.user_id]) if gone.user_id in receipts else {}}


# ── groups ───────────────────────────────────────────────────────────────────────────────────────


@router.get("/groups")
async def groups(services: ServicesDep, user: UserManager) -> dict[str, Any]:
    return {"groups": [asdict(one) for one in await asyncio.to_thread(services.groups.list)]}


@router.post("/groups", status_code=201, dependencies=[Change])
@takes_body(1024 * KIB)  # 10,000 names
async def add_group(body: GroupRequest, services: ServicesDep, user: UserManager, record: Record) -> dict[str, Any]:
    made = await asyncio.to_thread(services.groups.add, body.name, body.members)
    await record(Action.GROUP_ADDED, made.name, members=list(made.members))
    return asdict(made)


@router.put("/groups/{group}", dependencies=[Change])
@takes_body(1024 * KIB)  # 10,000 names
async def set_members(
    group: Name, body: MembersRequest, services: ServicesDep, user: UserManager, record: Record
) -> dict[str, Any]:
    changed = await asyncio.to_thread(services.groups.set_members, group, body.members)
    await record(Action.GROUP_CHANGED, changed.name, members=list(changed.members))
    return asdict(changed)


@router.delete("/groups/{group}", status_code=204, dependencies=[Change])
async def remove_group(group: Name, services: ServicesDep, user: UserManager, record: Record) -> None:
    await asyncio.to_thread(services.groups.remove, group)
    await record(Action.GROUP_REMOVED, group.strip().lower())


# ── the audit log ────────────────────────────────────────────────────────────────────────────────


@router.get("/audit")
async def audit(
    services: ServicesDep,
    user: AuditReader,
    before: RowId | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> dict[str, Any]:
    """The newest first; `next` is the `before` of the following page. Folders that the caller may not see are not
    named."""

    def read() -> list[dict[str, Any]]:
        view = services.knowledge.for_user(user.user_id)
        return [_entry(entry, view) for entry in services.audit.page(before=before, limit=limit)]

    entries = await asyncio.to_thread(read)
    return {"entries": entries, "next": entries[-1]["id"] if len(entries) == limit else None}


def _entry(entry: Entry, view: KnowledgeView) -> dict[str, Any]:
    folder = entry.detail.get("folder")
    if isinstance(folder, str) and not (view.may_see(folder) or view.is_new(folder)):
        return asdict(entry) | {"target": "", "detail": {}}
    return asdict(entry)
