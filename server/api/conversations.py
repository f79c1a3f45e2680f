"""The caller's conversations, and what the model saw for an answer."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from server.api.services import CurrentUser, Held
from server.chat import AnswerRecord, Conversation, StoredMessage, numbered

router = APIRouter(prefix="/api")


class Change(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str | None = None
    domain: str | None = None


@router.get("/conversations")
async def conversations(held: Held, user: CurrentUser) -> dict[str, Any]:
    found = await asyncio.to_thread(held.chat.store.list, user.user_id)
    return {"conversations": [_conversation(conversation) for conversation in found]}


@router.get("/conversations/{conversation_id}")
async def conversation(conversation_id: str, held: Held, user: CurrentUser) -> dict[str, Any]:
    found, messages = await held.chat.conversation(user.user_id, conversation_id)
    return {**_conversation(found), "messages": [_message(message) for message in messages]}


@router.patch("/conversations/{conversation_id}")
async def change(conversation_id: str, body: Change, held: Held, user: CurrentUser) -> dict[str, Any]:
    found, _ = await held.chat.conversation(user.user_id, conversation_id)
    if "domain" in body.model_fields_set:
        found = await held.chat.choose_domain(user.user_id, conversation_id, body.domain)
    if body.title is not None:
        found = await held.chat.rename(user.user_id, conversation_id, body.title)
    return _conversation(found)


@router.delete("/conversations/{conversation_id}", status_code=204)
async def delete(conversation_id: str, held: Held, user: CurrentUser) -> None:
    await held.chat.delete(user.user_id, conversation_id)


@router.get("/messages/{message_id}/prompt")
async def prompt(message_id: str, held: Held, user: CurrentUser) -> dict[str, Any]:
    message, record = await held.chat.prompt(user.user_id, message_id)
    answer = message.answer or AnswerRecord()
    return {**asdict(record), "domain": answer.domain, "adapter": answer.adapter}


def _conversation(found: Conversation) -> dict[str, Any]:
    return {
        "id": found.id,
        "title": found.title,
        "domain": found.domain,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }


def _message(message: StoredMessage) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": message.id,
        "parent_id": message.parent_id,
        "role": message.role,
        "text": message.text,
        "created_at": message.created_at,
        "status": message.status,
    }
    if message.answer is not None:
        body |= _answer(message.answer)
    return body


def _answer(answer: AnswerRecord) -> dict[str, Any]:
    body = asdict(answer)
    del body["context"], body["compaction"]
    body["route"] = asdict(answer.route) if answer.route else None
    body["passages"] = [asdict(passage) for passage in numbered(answer.context.passages)]
    body["searched"] = answer.context.searched
    body["memories_used"] = [asdict(memory) for memory in answer.context.memories]
    return body
