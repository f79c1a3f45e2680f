"""The caller's conversations, what the model saw for an answer, and why it had these sources.

Passages of folders that the caller may not see (any more) are left out.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

from annotated_types import MaxLen
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from server.api.fields import Id, Name, RequestModel
from server.api.protocol import Changed
from server.api.routes.memory import receipt_body
from server.api.services import CurrentUser, ServicesDep
from server.api.transport.routing import KIB, Route, takes_body
from server.chat import AnswerRecord, Conversation, StoredMessage, number_passages
from server.errors import NotFound
from server.retrieval import KnowledgeView

router = APIRouter(prefix="/api", route_class=Route)


class CreateConversationRequest(RequestModel):
    temporary: bool = False
    domain: Name | None = None


class UpdateConversationRequest(RequestModel):
    title: Annotated[str, MaxLen(1000)] | None = None
    domain: Name | None = None


@router.get("/conversations")
async def conversations(services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    found = await asyncio.to_thread(services.chat.store.list, user.user_id)
    return {"conversations": [_conversation(conversation) for conversation in found]}


@router.post("/conversations", status_code=201)
@takes_body(4 * KIB)
async def create(body: CreateConversationRequest, services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    """An empty chat; the first message gives it its title."""
    return _conversation(await services.chat.create(user.user_id, temporary=body.temporary, domain=body.domain))


@router.get("/conversations/{conversation_id}")
async def conversation(conversation_id: Id, services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    found, messages = await services.chat.conversation(user.user_id, conversation_id)
    view = services.knowledge.for_user(user.user_id)
    bodies = await asyncio.to_thread(lambda: [_message(message, view) for message in messages])
    return {**_conversation(found), "messages": bodies}


@router.patch("/conversations/{conversation_id}")
@takes_body(16 * KIB)
async def change(
    conversation_id: Id, body: UpdateConversationRequest, services: ServicesDep, user: CurrentUser
) -> dict[str, Any]:
    found, _ = await services.chat.conversation(user.user_id, conversation_id)
    if "domain" in body.model_fields_set:
        found = await services.chat.choose_domain(user.user_id, conversation_id, body.domain)
    if body.title is not None:
        found = await services.chat.rename(user.user_id, conversation_id, body.title)
    return _conversation(found)


@router.delete("/conversations/{conversation_id}")
async def delete(
    conversation_id: Id, services: ServicesDep, user: CurrentUser, memories: Literal["keep", "forget"] = "keep"
) -> Response:
    """204; with `memories=forget` what came from the chat is forgotten, too, and the receipt is the answer."""
    receipt = await services.chat.delete(user.user_id, conversation_id, forget=memories == "forget")
    if receipt is None:
        return Response(status_code=204)
    services.hub.announce(Changed("memories"), user.user_id)
    return JSONResponse(receipt_body(receipt))


@router.get("/messages/{message_id}/prompt")
async def prompt(message_id: Id, services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    """Not found where it quotes a folder that the caller may not see any more."""
    message, record = await services.chat.prompt(user.user_id, message_id)
    view = services.knowledge.for_user(user.user_id)
    branch = await services.chat.branch(user.user_id, message_id)
    quoted = {passage.folder for each in branch if each.answer for passage in each.answer.context.passages}
    if not await asyncio.to_thread(lambda: all(map(view.may_see, quoted))):
        raise NotFound(f"what the model saw for message '{message_id}' holds sources that you may not see any more")
    answer = message.answer or AnswerRecord()
    return {**asdict(record), "domain": answer.domain, "adapter": answer.adapter}


@router.get("/messages/{message_id}/trace")
async def trace(message_id: Id, services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    """The candidates of the answer's search, and what became of each."""
    found = await services.chat.trace(user.user_id, message_id)
    view = services.knowledge.for_user(user.user_id)
    seen = await asyncio.to_thread(
        lambda: {name for name in {*found.folders, *(one.folder for one in found.candidates)} if view.may_see(name)}
    )
    body = asdict(found)
    body["folders"] = [name for name in found.folders if name in seen]
    body["candidates"] = [asdict(one) for one in found.candidates if one.folder in seen]
    return body


def _conversation(found: Conversation) -> dict[str, Any]:
    return {
        "id": found.id,
        "title": found.title,
        "domain": found.domain,
        "temporary": found.temporary,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
        "revision": found.revision,
    }


def _message(message: StoredMessage, view: KnowledgeView) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": message.id,
        "parent_id": message.parent_id,
        "role": message.role,
        "text": message.text,
        "created_at": message.created_at,
        "status": message.status,
    }
    if message.answer is not None:
        body |= _answer(message.answer, view)
    return body


def _answer(answer: AnswerRecord, view: KnowledgeView) -> dict[str, Any]:
    body = asdict(answer)
    del body["context"], body["compaction"], body["memories_told"], body["memories_edited"]
    body["route"] = asdict(answer.route) if answer.route else None
    shown = [one for one in number_passages(answer.context.passages) if view.may_see(one.passage.folder)]
    body["passages"] = [asdict(one) for one in shown]
    body["folders"] = [folder for folder in answer.folders if view.may_see(folder)]
    body["citations"] = [asdict(one) for one in answer.citations if one.n in {each.n for each in shown}]
    body["searched"] = answer.context.searched
    body["unread"] = answer.context.unread
    body["memories_used"] = [asdict(memory) for memory in answer.context.memories + answer.memories_told]
    body["chats_used"] = [asdict(turn) for turn in answer.context.chats]
    return body
