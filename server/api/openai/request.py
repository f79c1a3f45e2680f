"""OpenAI's chat request, checked and turned into what the pipeline takes.

`base` and adapters see the caller's messages as they are; a domain (or `auto`) brings its system prompt,
examples, knowledge, the caller's memories, schema and adapter. Knows nothing of HTTP answers or of streaming.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from server.api.fields import Name
from server.api.services import Services
from server.chat import EnabledMemory, Turn, decide_domain, gather_context
from server.errors import InvalidInput, NotFound
from server.prompting import Domain
from server.types import (
    AdapterState,
    Constraint,
    GenerationRequest,
    HistoryTurn,
    Message,
    RouteDecision,
    SamplingParams,
    TurnContext,
    UserId,
)

BASE = "base"
AUTO = "auto"
MAX_MESSAGES = 20_000
UNSUPPORTED = ("tools", "functions", "audio", "prediction", "web_search_options")


class ContentPart(BaseModel):
    type: Name
    text: str = ""


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            for part in self.content:
                if part.type != "text":
                    raise InvalidInput(f"content of type '{part.type}' is not supported; send text")
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """Fields this server acts on; others of OpenAI's that would change the answer are refused by name."""

    model_config = ConfigDict(extra="allow")

    model: Name
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES), FailFast()]
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=16)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, resolved: either a turn of a domain or a raw generation."""

    turn: Turn | None
    raw: GenerationRequest | None
    domain: str | None
    route: RouteDecision | None


async def plan(request: ChatRequest, services: Services, user: UserId) -> Plan:
    """Raises InvalidInput and NotFound with OpenAI's field names."""
    refused = [name for name in UNSUPPORTED if (request.model_extra or {}).get(name)]
    if refused:
        raise InvalidInput(f"{', '.join(refused)}: not supported by this server")
    if request.messages[-1].role != "user":
        raise InvalidInput("messages: the last message must be the user's")
    visible = await asyncio.to_thread(lambda: services.domains.for_user(user).domains())
    domains = {domain.name: domain for domain in visible}
    if request.model == AUTO or request.model in domains:
        return await _plan_domain_turn(request, services, user, domains)
    adapter = None if request.model == BASE else _adapter(request.model, services)
    messages = [Message(_role(message.role), message.text()) for message in request.messages]
    ids = await asyncio.to_thread(services.engine.tokenizer.render, messages)
    sampling = override(SamplingParams(), request)
    raw = GenerationRequest(tuple(ids), sampling, adapter, constraint_of(request), user)
    return Plan(None, raw, None, None)


def _adapter(name: str, services: Services) -> str:
    known = {adapter.name for adapter in services.engine.adapters() if adapter.state is not AdapterState.INVALID}
    if name.partition("@")[0] not in known:
        raise NotFound(f"there is no model '{name}'; GET /v1/models lists those there are")
    return name


async def _plan_domain_turn(request: ChatRequest, services: Services, user: UserId, domains: dict[str, Domain]) -> Plan:
    question = request.messages[-1].text()
    if not question.strip():
        raise InvalidInput("messages: the last message is empty")
    chosen = None if request.model == AUTO else request.model
    view = services.knowledge.for_user(user)
    route = await asyncio.to_thread(
        decide_domain, question, tuple(domains.values()), services.router, view, chosen=chosen
    )
    domain = domains[route.domain]
    history = _history(request.messages[:-1])
    previous_question = history[-1].question if history else ""
    memory = EnabledMemory(user, services.memory.of(user))
    gathered = await gather_context(question, domain, memory, view, route=route, previous_question=previous_question)
    turn = Turn(
        question=question,
        domain=domain,
        user_id=user,
        history=history,
        context=gathered.context,
        profile=gathered.profile,
        sampling=override(domain.sampling, request),
        constraint=constraint_of(request),
        instructions="\n\n".join(m.text() for m in request.messages if _role(m.role) == "system"),
        refusal="" if request.response_format else gathered.refusal,
    )
    return Plan(turn, None, domain.name, route)


def _history(messages: list[ChatMessage]) -> tuple[HistoryTurn, ...]:
    """Pairs of question and answer; neighbours of one role are joined."""
    turns: list[HistoryTurn] = []
    question: list[str] = []
    for message in messages:
        role = _role(message.role)
        if role == "user":
            question.append(message.text())
        elif role == "assistant":
            turns.append(HistoryTurn("\n\n".join(question), TurnContext(), message.text()))
            question = []
    if question:
        raise InvalidInput("messages: two user messages follow each other; join them into one")
    return tuple(turns)


def _role(role: str) -> Literal["system", "user", "assistant"]:
    if role == "user":
        return "user"
    return "assistant" if role == "assistant" else "system"


def override(sampling: SamplingParams, request: ChatRequest) -> SamplingParams:
    """The domain's sampling with what the caller set."""
    given: dict[str, Any] = {
        name: value
        for name in (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "seed",
        )
        if (value := getattr(request, name)) is not None
    }
    limit = request.max_completion_tokens or request.max_tokens
    if limit is not None:
        given["max_tokens"] = limit
    if request.stop is not None:
        given["stop"] = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
    if request.logit_bias:
        given["logit_bias"] = _bias(request.logit_bias)
    if request.logprobs:
        given["logprobs"] = request.top_logprobs or 0
    return replace(sampling, **given)


def _bias(bias: dict[str, float]) -> dict[int, float]:
    try:
        return {int(token): value for token, value in bias.items()}
    except ValueError as error:
        raise InvalidInput("logit_bias: keys must be token ids") from error


def constraint_of(request: ChatRequest) -> Constraint | None:
    wanted = request.response_format
    if wanted is None or wanted.get("type") == "text":
        return None
    if wanted.get("type") == "json_object":
        return Constraint("json_schema", '{"type": "object"}')
    named = wanted.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    if wanted.get("type") != "json_schema" or not isinstance(schema, dict):
        raise InvalidInput("response_format: give {type: 'json_schema', json_schema: {schema: {…}}} or 'json_object'")
    return Constraint("json_schema", json.dumps(schema))
