"""`/v1`: the routes OpenAI's clients call. Calls are stateless: no conversation is stored, no memory written.

Knows nothing of how a prompt is composed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import MaxLen
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from server.accounts import Login
from server.api.errors import openai_shape, status_of
from server.api.openai.abandoned import ClientGone, all_or_none, unless_gone
from server.api.openai.request import BASE, ChatRequest, Plan, plan
from server.api.services import CurrentLogin, CurrentUser, Services, ServicesDep
from server.api.transport.routing import MIB, Route, takes_body
from server.chat import Finished, TextDelta, WithoutAdapter, number_passages
from server.errors import InvalidInput, TailorError, TooLarge, Unauthorized
from server.grounding import SentenceCheck, check_answer, find_citations, shown_text
from server.types import AdapterState, Embedder, FinishReason, PromptBundle, TokenLogprob, Usage

log = logging.getLogger("tailor.api")
router = APIRouter(prefix="/v1", route_class=Route)

MAX_EMBEDDINGS = 2048
STREAM_STEPS = 64  # that wait for a reader who is slower than the model
MAX_EMBEDDING_CHARS = 1_000_000  # of one request's texts together
EMBEDDINGS_AT_ONCE = 64  # between pieces, other requests come to their turn
CLIENT_GONE = 499  # nobody reads it
FINISH = {"stop": "stop", "length": "length", "cancelled": "stop"}


@router.get("/models")
async def models(services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    domains = await asyncio.to_thread(lambda: services.domains.for_user(user.user_id).domains())
    adapters = [a.name for a in services.engine.adapters() if a.state is not AdapterState.INVALID]
    owned = {BASE: "model", **dict.fromkeys(adapters, "adapter"), **{domain.name: "domain" for domain in domains}}
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": f"tailor-{kind}"} for name, kind in owned.items()
        ],
    }


@router.post("/chat/completions")
@takes_body(8 * MIB)  # a long history
async def chat_completions(body: ChatRequest, request: Request, services: ServicesDep, login: CurrentLogin) -> Response:
    services.chat.admission.check()
    await asyncio.to_thread(services.quotas.admit, login.account.user_id)
    try:
        return await unless_gone(request, _complete(body, services, login))
    except ClientGone:
        return Response(status_code=CLIENT_GONE)


async def _complete(body: ChatRequest, services: Services, login: Login) -> Response:
    planned = await plan(body, services, login.account.user_id)
    builder = _ResponseBuilder(body.model, planned, body.logprobs)
    runs = [_run_plan(services, login, _nth_plan(planned, n)) for n in range(body.n)]
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        return await _stream_response(services, builder, runs, include_usage=usage)
    choices = await all_or_none([_collect(run) for run in runs])
    choices[0].checks = await _checks(services, choices[0])
    return JSONResponse(builder.completion(choices))


def _nth_plan(planned: Plan, n: int) -> Plan:
    """The n-th of several answers: a given seed moves on, so that they differ."""
    if n == 0:
        return planned
    if planned.raw is not None and planned.raw.sampling.seed is not None:
        sampling = replace(planned.raw.sampling, seed=planned.raw.sampling.seed + n)
        return replace(planned, raw=replace(planned.raw, sampling=sampling))
    turn = planned.turn
    if turn is not None and turn.sampling is not None and turn.sampling.seed is not None:
        return replace(planned, turn=replace(turn, sampling=replace(turn.sampling, seed=turn.sampling.seed + n)))
    return planned


Step = PromptBundle | WithoutAdapter | TextDelta | Finished


async def _run_plan(services: Services, login: Login, planned: Plan) -> AsyncIterator[Step]:
    admission, revocations = services.chat.admission, services.revocations
    with ExitStack() as expecting, admission.answering(), revocations.watch(login) as ended:
        expecting.enter_context(services.engine.announce_request())
        if planned.turn is not None:
            steps: Any = services.pipeline.run(planned.turn)
        else:
            steps = services.pipeline.generate(planned.raw)  # type: ignore[arg-type]  # a plan has one of the two
        async with aclosing(steps):
            async for step in steps:
                if ended.is_set():
                    raise Unauthorized("the key or session that asked for this has ended; log in again")
                if not isinstance(step, PromptBundle):
                    expecting.close()
                if isinstance(step, Step):
                    yield step


@dataclass
class _Choice:
    text: str = ""
    reasoning: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    bundle: PromptBundle | None = None
    notice: str = ""
    finished: Finished | None = None
    checks: tuple[SentenceCheck, ...] = ()

    def add(self, step: Step) -> None:
        if isinstance(step, PromptBundle):
            self.bundle = step
        elif isinstance(step, WithoutAdapter):
            self.notice = step.reason
        elif isinstance(step, TextDelta):
            self.text += step.answer
            self.reasoning += step.reasoning
            self.logprobs += step.logprobs
        else:
            self.finished = step


async def _collect(run: AsyncIterator[Step]) -> _Choice:
    choice = _Choice()
    async for step in run:
        choice.add(step)
    return choice


async def _checks(services: Services, choice: _Choice) -> tuple[SentenceCheck, ...]:
    if choice.bundle is None or choice.finished is None:
        return ()
    complete = choice.finished.reason is FinishReason.STOP
    return await check_answer(choice.text, choice.bundle.context, services.embedder, complete=complete)


class _ResponseBuilder:
    """Builds OpenAI's objects for one request."""

    def __init__(self, model: str, planned: Plan, logprobs: bool) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._planned = planned
        self._logprobs = logprobs

    def completion(self, choices: list[_Choice]) -> dict[str, Any]:
        body = {
            **self._head,
            "object": "chat.completion",
            "choices": [
                {
                    "index": index,
                    "message": {
                        "role": "assistant",
                        "content": choice.text,
                        **({"reasoning_content": choice.reasoning} if choice.reasoning else {}),
                    },
                    "finish_reason": FINISH[choice.finished.reason] if choice.finished else "stop",
                    "logprobs": self.logprobs(choice.logprobs),
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage_of([choice.finished.usage for choice in choices if choice.finished]),
        }
        return body | self.extras(choices[0])

    def chunk(
        self, index: int, delta: dict[str, str], finish: str | None, text_delta: TextDelta | None = None
    ) -> dict[str, Any]:
        logprobs = self.logprobs(list(text_delta.logprobs)) if text_delta else None
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def usage_chunk(self, usages: list[Usage]) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_of(usages)}

    def logprobs(self, tokens: list[TokenLogprob]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {
            "content": [
                {
                    **_logprob(token.token, token.logprob),
                    "top_logprobs": [_logprob(text, value) for text, value in token.top],
                }
                for token in tokens
            ]
        }

    def extras(self, choice: _Choice) -> dict[str, Any]:
        """What the domain did, beside OpenAI's own fields."""
        if self._planned.domain is None or self._planned.turn is None:
            return {}
        context = choice.bundle.context if choice.bundle is not None else self._planned.turn.context
        passages = context.passages
        citations, invalid = find_citations(choice.text, passages, choice.checks)
        return {
            "tailor": {
                "domain": self._planned.domain,
                "route": asdict(self._planned.route) if self._planned.route else None,
                "notice": choice.notice,
                "unread": context.unread,
                "passages": [asdict(passage) for passage in number_passages(passages)],
                "citations": [asdict(citation) for citation in citations],
                "invalid_citations": invalid,
                "checks": [asdict(each) for each in choice.checks],
                "shown": shown_text(choice.text, choice.checks),
            }
        }


def _logprob(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}


def usage_of(usages: list[Usage]) -> dict[str, Any]:
    prompt = max((usage.prompt_tokens for usage in usages), default=0)
    completion = sum(usage.completion_tokens for usage in usages)
    cached = max((usage.cached_tokens for usage in usages), default=0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


async def _stream_response(
    services: Services, builder: _ResponseBuilder, runs: list[AsyncIterator[Step]], *, include_usage: bool
) -> Response:
    """Server-sent events. The first step is awaited here, so that an error before any text keeps its status."""
    queue: _Steps = asyncio.Queue(STREAM_STEPS)
    tasks = [_pump(queue, index, run) for index, run in enumerate(runs)]
    with ExitStack() as unread:
        for task in tasks:
            unread.callback(task.cancel)
        buffered = await _first_steps(queue)
        unread.pop_all()

    async def events() -> AsyncIterator[str]:
        choices = [_Choice() for _ in runs]
        try:
            for number in range(len(runs)):
                yield _sse(builder.chunk(number, {"role": "assistant", "content": ""}, None))
            while any(choice.finished is None for choice in choices):
                index, step = buffered.pop(0) if buffered else await queue.get()
                if isinstance(step, Exception):
                    yield _sse(_stream_error(step))
                    return
                choices[index].add(step)
                for chunk in _chunks(builder, index, step):
                    yield _sse(chunk)
            choices[0].checks = await _checks(services, choices[0])
            extras = builder.extras(choices[0])
            if extras:
                yield _sse(builder.usage_chunk([]) | {"usage": None} | extras)
            if include_usage:
                yield _sse(builder.usage_chunk([choice.finished.usage for choice in choices if choice.finished]))
            yield "data: [DONE]\n\n"
        finally:
            for task in tasks:
                task.cancel()

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-cache"})


_Steps = asyncio.Queue[tuple[int, Step | Exception]]


def _pump(queue: _Steps, index: int, run: AsyncIterator[Step]) -> asyncio.Task[None]:
    """A task that hands over a run's steps, and in the end the error where one has ended it."""

    async def pump() -> None:
        try:
            async for step in run:
                await queue.put((index, step))
        except Exception as error:  # noqa: BLE001  edge of the task: handed to the reader, which tells the client
            await queue.put((index, error))

    return asyncio.create_task(pump())


async def _first_steps(queue: _Steps) -> list[tuple[int, Step]]:
    """Up to the first one that the client is shown."""
    steps: list[tuple[int, Step]] = []
    while not steps or isinstance(steps[-1][1], PromptBundle | WithoutAdapter):
        index, step = await queue.get()
        if isinstance(step, Exception):
            raise step
        steps.append((index, step))
    return steps


def _chunks(builder: _ResponseBuilder, index: int, step: Step) -> list[dict[str, Any]]:
    if isinstance(step, Finished):
        return [builder.chunk(index, {}, FINISH[step.reason])]
    if not isinstance(step, TextDelta) or not (step.answer or step.reasoning):
        return []
    delta = {"content": step.answer} if step.answer else {}
    if step.reasoning:
        delta["reasoning_content"] = step.reasoning
    return [builder.chunk(index, delta, None, step)]


def _stream_error(error: Exception) -> dict[str, object]:
    if isinstance(error, TailorError):
        return openai_shape(str(error), error.code, status_of(error))
    log.error("a streamed completion failed", exc_info=error)
    return openai_shape("the server made a mistake; its log has the details", "internal", 500)


def _sse(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


class EmbeddingRequest(BaseModel):
    input: str | list[str]
    model: Annotated[str, MaxLen(255)] = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


@router.post("/embeddings")
@takes_body(8 * MIB)
async def embeddings(body: EmbeddingRequest, request: Request, services: ServicesDep, user: CurrentUser) -> Response:
    try:
        return JSONResponse(await unless_gone(request, _embed(body, services)))
    except ClientGone:
        return Response(status_code=CLIENT_GONE)


async def _embed(body: EmbeddingRequest, services: Services) -> dict[str, Any]:
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or len(texts) > MAX_EMBEDDINGS or any(not text.strip() for text in texts):
        raise InvalidInput(f"input: give 1 to {MAX_EMBEDDINGS} texts, none of them empty")
    if (size := sum(map(len, texts))) > MAX_EMBEDDING_CHARS:
        raise TooLarge(f"input: {size:,} characters, and the most in one request is {MAX_EMBEDDING_CHARS:,}")
    if body.dimensions not in (None, services.embedder.dimension):
        raise InvalidInput(f"dimensions: this embedder has {services.embedder.dimension}; leave the field out")
    data: list[dict[str, Any]] = []
    tokens = 0
    for begin in range(0, len(texts), EMBEDDINGS_AT_ONCE):
        piece = texts[begin : begin + EMBEDDINGS_AT_ONCE]
        vectors, count = await asyncio.to_thread(_embed_piece, services.embedder, piece, body.encoding_format)
        data += [{"object": "embedding", "index": begin + i, "embedding": each} for i, each in enumerate(vectors)]
        tokens += count
    return {
        "object": "list",
        "model": services.settings.embedding.name,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _embed_piece(embedder: Embedder, texts: list[str], encoding: str) -> tuple[list[list[float] | str], int]:
    """The vectors as the client wants them, and how many tokens the texts have."""
    vectors = embedder.embed(texts).astype("<f4")
    tokens = sum(embedder.count(text) for text in texts)
    if encoding == "base64":
        return [base64.b64encode(vector.tobytes()).decode() for vector in vectors], tokens
    return vectors.tolist(), tokens
