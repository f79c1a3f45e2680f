"""Knowledge as users read and change it: status, files, passages, generations, and trial searches.

Every route goes through the caller's own view of the folders (`services.knowledge.of`).
"""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import asdict
from typing import Annotated, Any

from annotated_types import MaxLen, MinLen
from fastapi import APIRouter, File, UploadFile
from pydantic import Field
from starlette.routing import Match
from starlette.types import Scope

from server.accounts import Action, Permission
from server.api.audit import Record
from server.api.fields import FilePath, Id, Name, RequestModel, RowId
from server.api.protocol import Changed
from server.api.services import CurrentUser, KnowledgeWriter, ServicesDep
from server.api.transport.routing import KIB, Route, takes_body
from server.chat import answer_trace
from server.errors import NotFound, TailorError, TooLarge
from server.retrieval import REACH, KnowledgeView, PassageContext, SearchFilter
from server.types import Passage

MAX_REACH = 20
MULTIPART_OVERHEAD = 64 * KIB
FIRST_DAY, LAST_DAY = datetime.date(1970, 1, 2), datetime.date(9000, 1, 1)  # what every time zone can tell

Question = Annotated[str, MaxLen(20_000)]
Names = Annotated[list[Name], MaxLen(200)]
Day = Annotated[datetime.date, Field(ge=FIRST_DAY, le=LAST_DAY)]


class _CommandRoute(Route):
    """Does not match multipart requests: those are uploads, and a folder may be called 'search'."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        kinds = [value for name, value in scope.get("headers", ()) if name == b"content-type"]
        if any(kind.lower().startswith(b"multipart/") for kind in kinds):
            return Match.NONE, {}
        return super().matches(scope)


commands = APIRouter(route_class=_CommandRoute)
files = APIRouter(route_class=Route)


class RollbackRequest(RequestModel):
    generation: RowId


class SearchRequest(RequestModel):
    """A search as a chat would make it. Absent folders: all that the caller may see; dates are days, both inside."""

    question: Annotated[Question, MinLen(1)]
    earlier: Question = ""
    folders: Names | None = None
    files: Names = Field([])
    kinds: Names = Field([])
    since: Day | None = None
    until: Day | None = None

    def where(self) -> SearchFilter:
        kinds = tuple(kind.strip().lower().lstrip(".") for kind in self.kinds if kind.strip())
        names = tuple(name.strip() for name in self.files if name.strip())
        following = self.until + datetime.timedelta(days=1) if self.until is not None else None
        return SearchFilter(names, kinds, _midnight(self.since), _midnight(following))


def _midnight(day: datetime.date | None) -> float | None:
    """In the server's time zone."""
    return datetime.datetime.combine(day, datetime.time()).timestamp() if day is not None else None


# ── status and files ─────────────────────────────────────────────────────────────────────────────


@files.get("/api/knowledge")
async def knowledge(services: ServicesDep, user: CurrentUser, files: bool = True) -> dict[str, Any]:
    """`files=false` leaves out the files of the folders: enough to show how far an import is."""
    view = services.knowledge.for_user(user.user_id)
    status = await asyncio.to_thread(view.status)
    body = asdict(status)
    if files:
        writes = user.may(Permission.KNOWLEDGE_WRITE)
        limits = await asyncio.to_thread(view.access_lists, problems=writes)
        shown = ("folder", "users", "problem") if writes else ("folder",)
        body["limited"] = [{name: getattr(limit, name) for name in shown} for limit in limits]
    else:
        del body["folders"]
    return body


@files.post("/api/knowledge/{folder}")
@takes_body(MULTIPART_OVERHEAD, setting="max_upload_bytes")
async def upload(
    folder: Name,
    files: Annotated[list[UploadFile], File()],
    services: ServicesDep,
    user: KnowledgeWriter,
    record: Record,
) -> dict[str, Any]:
    """Each file stands alone: one that is refused does not stop the others."""
    limit = services.settings.server.max_upload_bytes
    view = services.knowledge.for_user(user.user_id)
    results: list[dict[str, Any]] = []
    for file in files:
        name = file.filename or ""
        try:
            data = await file.read(limit + 1)
            if len(data) > limit:
                raise TooLarge(f"'{name}' has more than {limit:,} bytes; split it, or raise server.max_upload_bytes")
            results.append(asdict(await asyncio.to_thread(view.save, folder, name, data)))
        except NotFound:  # of the folder, so of all its files
            raise
        except TailorError as error:
            results.append({"name": name, "error": {"code": error.code, "message": str(error)}})
    for saved in (result["file"] for result in results if "file" in result):
        await record(Action.KNOWLEDGE_UPLOADED, f"{folder}/{saved}", folder=folder)
    return {"files": results}


@files.delete("/api/knowledge/{folder}/{file:path}")
async def delete_file(
    folder: Name, file: FilePath, services: ServicesDep, user: KnowledgeWriter, record: Record, purge: bool = False
) -> dict[str, Any]:
    """`purge`: for good; the generations that have it, kept for going back, are dropped."""
    view = services.knowledge.for_user(user.user_id)
    receipt = asdict(await asyncio.to_thread(lambda: view.delete(folder, file, purge=purge)))
    await record(Action.KNOWLEDGE_DELETED, f"{folder}/{file}", folder=folder)
    return {"deleted": receipt.pop("file"), **receipt}


@files.get("/api/passages/{passage_id}")
async def passage(passage_id: Id, services: ServicesDep, user: CurrentUser, reach: int = REACH) -> dict[str, Any]:
    """A passage that an answer cites, with what stands around it in its file now."""
    found = await asyncio.to_thread(
        services.knowledge.for_user(user.user_id).passage, passage_id, min(max(reach, 0), MAX_REACH)
    )
    return _surroundings_body(found)


def _surroundings_body(found: PassageContext) -> dict[str, Any]:
    return {
        "passage": _passage_body(found.passage),
        "before": [_passage_body(one) for one in found.before],
        "after": [_passage_body(one) for one in found.after],
        "living": found.is_current,
    }


def _passage_body(passage: Passage) -> dict[str, Any]:
    return asdict(passage) | {"place": passage.place}


# ── generations ──────────────────────────────────────────────────────────────────────────────────


@files.get("/api/knowledge/generations")
async def generations(services: ServicesDep, user: KnowledgeWriter) -> dict[str, Any]:
    """Those that are kept, newest first, each with what changed in it."""
    view = services.knowledge.for_user(user.user_id)
    made = await asyncio.to_thread(view.history)
    status = await asyncio.to_thread(view.status)
    return {
        "generation": status.generation,
        "held": status.held,
        "building": status.building,
        "generations": [
            asdict(one) | {"told": [{"what": what, "file": file} for what, file in one.told]} for one in made
        ],
    }


@commands.post("/api/knowledge/rollback")
@takes_body(4 * KIB)
async def roll_back(
    body: RollbackRequest, services: ServicesDep, user: KnowledgeWriter, record: Record
) -> dict[str, Any]:
    number = await asyncio.to_thread(services.knowledge.for_user(user.user_id).roll_back, body.generation)
    await record(Action.KNOWLEDGE_ROLLED_BACK, str(body.generation), generation=number)
    services.hub.announce(Changed("knowledge"))
    return {"generation": number, "held": body.generation}


@commands.post("/api/knowledge/follow", status_code=202)
async def follow(services: ServicesDep, user: KnowledgeWriter, record: Record) -> dict[str, Any]:
    await asyncio.to_thread(services.knowledge.for_user(user.user_id).follow)
    await record(Action.KNOWLEDGE_FOLLOWED)
    return {"held": None}


@commands.post("/api/knowledge/rebuild", status_code=202)
async def rebuild(services: ServicesDep, user: KnowledgeWriter, record: Record) -> dict[str, Any]:
    await asyncio.to_thread(services.knowledge.for_user(user.user_id).rebuild)
    await record(Action.KNOWLEDGE_REBUILT)
    return {"building": True}


# ── trial search ─────────────────────────────────────────────────────────────────────────────────


@commands.post("/api/knowledge/search")
@takes_body(512 * KIB)
async def search(body: SearchRequest, services: ServicesDep, user: KnowledgeWriter) -> dict[str, Any]:
    """What a chat would find, and why; nothing is stored."""
    view = services.knowledge.for_user(user.user_id)
    folders = body.folders if body.folders is not None else await asyncio.to_thread(_all_folders, view)
    found = await asyncio.to_thread(
        lambda: view.search(body.question, folders, previous_query=body.earlier, filters=body.where(), traced=True)
    )
    return {"passages": [_passage_body(one) for one in found.passages], "trace": asdict(answer_trace(found))}


def _all_folders(view: KnowledgeView) -> list[str]:
    return [folder.name for folder in view.status().folders if folder.name]


router = APIRouter()
router.include_router(commands)  # first: their paths could be those of folders
router.include_router(files)
