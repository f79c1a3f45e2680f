"""The optional pass of the model: it reads the sentences in which the rules found nothing, while the engine is idle.

The model only points. It names sentences of the turn, each a quote that must occur there, and the kind of each;
the text of a memory is made from the user's words by the rules. Its grammar lets it write nothing else, and what it
wrote is checked all the same. A user's request preempts it at the next token.

Orders and plain facts are never taken this way, nor what the rules have found, nor what looks like a secret.
Knows nothing of chats or HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from server.config import MemorySettings
from server.database import Database
from server.errors import EngineBusy, EngineDown, TailorError
from server.memory.facts.findings import Finding
from server.memory.facts.person import to_third_person
from server.memory.facts.rules import extract
from server.memory.model_pass.queue import DeadLetter, QueuedTurn, TurnQueue
from server.memory.model_pass.trivia import candidates
from server.memory.reading import dates
from server.memory.reading.own_words import Span, clean
from server.memory.store.store import MemoryStore
from server.types import (
    Constraint,
    FinishReason,
    GenerationDone,
    GenerationRequest,
    MemoryKind,
    Message,
    SamplingParams,
    TokenDelta,
    UserId,
)

if TYPE_CHECKING:  # it brings torch, which memories do without
    from server.engine import Engine

logger = logging.getLogger(__name__)

CONFIDENCE = 0.6  # of what the model found
IDLE_POLL_S = 1.0
DOWN_POLL_S = 30.0
KINDS = (MemoryKind.IDENTITY, MemoryKind.PREFERENCE, MemoryKind.PROJECT, MemoryKind.RELATION, MemoryKind.EVENT)

_SYSTEM_PROMPT = (
    "You read what a user wrote in a chat and pick the sentences that say something lasting about the user: who they "
    "are, what they like, who belongs to them, what they work on, what they have planned. Most messages hold none. "
    "Leave out tasks, questions, opinions about the topic and moods. Answer with JSON alone."
)
_EXAMPLES = (
    (
        ("I grew up on a farm in Kenya.", "The second chart looks odd to me."),
        (("I grew up on a farm in Kenya.", MemoryKind.IDENTITY),),
    ),
    (("The build fails on my laptop again.",), ()),
    (
        ("주말마다 아들이랑 낚시를 다녀요", "그 답은 좀 이상한 것 같아요"),
        (("주말마다 아들이랑 낚시를 다녀요", MemoryKind.RELATION),),
    ),
    (("I can only answer one of these today.", "My plan did not work."), ()),
)  # fmt: skip
_JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class UnusableAnswer(TailorError):
    """The model's answer is not what its grammar promised."""

    code = "unusable_answer"


class _Preempted(Exception):
    """Another request needs the engine."""


class MemoryWriter:
    """Reads queued turns with the model, one at a time. Methods block, but for `start` and `close`.

    With `settings.model_pass` off nothing is queued or read; dead letters of before can still be seen.
    """

    def __init__(self, database: Database, store: MemoryStore, engine: Engine, settings: MemorySettings) -> None:
        self._queue = TurnQueue(database)
        self._store = store
        self._engine = engine
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    # ── of one user ──────────────────────────────────────────────────────────────────────────────

    def enqueue(self, user: UserId, conversation_id: str | None, message_id: str | None, text: str) -> None:
        """Queues a turn for the model; one without candidate sentences is not queued."""
        if not self._settings.model_pass or not remaining_candidates(clean(text)):
            return
        self._queue.add(user, conversation_id, message_id, clean(text))
        self.wake()

    def dead_letters(self, user: UserId) -> tuple[DeadLetter, ...]:
        return self._queue.dead_letters(user)

    def retry(self, user: UserId, letter_id: int) -> None:
        """Raises NotFound."""
        self._queue.retry(user, letter_id)
        self.wake()

    def dismiss(self, user: UserId, letter_id: int) -> None:
        """Raises NotFound."""
        self._queue.dismiss(user, letter_id)

    def forget(self, user: UserId, *, conversation_id: str | None = None, message_id: str | None = None) -> int:
        """Takes the user's turns out of the queue, dead ones too: all, of one chat, or one message."""
        return self._queue.erase(user, conversation_id=conversation_id, message_id=message_id)

    # ── the background task ─────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """On the event loop that the engine answers on."""
        if self._settings.model_pass and self._task is None:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.create_task(self._run(), name="memory writer")

    async def close(self) -> None:
        """What is being read stays in the queue."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def wake(self) -> None:
        """Looks into the queue, after the transaction that has queued a turn."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: the turn waits for the next start
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                turn = await asyncio.to_thread(self._queue.next_due)
                if turn is None:
                    await self._wait(await asyncio.to_thread(self._queue.seconds_until_due))
                    continue
                if not self._idle():
                    await asyncio.sleep(IDLE_POLL_S)
                    continue
                await self._read(turn)
            except Exception:  # edge of the task: a locked or full database, and the turns wait
                logger.exception("the memory queue could not be worked on")
                await asyncio.sleep(DOWN_POLL_S)

    async def _wait(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    def _idle(self, own: int = 0) -> bool:
        health = self._engine.health()
        return health.ok and health.running <= own and health.waiting == 0

    async def _read(self, turn: QueuedTurn) -> None:
        """One turn: kept and done, or its failure noted."""
        try:
            findings = await self.find(turn.text, turn.created_at, attempt=turn.attempts, preemptible=True)
            await asyncio.to_thread(self._keep, turn, findings)
            await asyncio.to_thread(self._queue.done, turn)
        except (_Preempted, EngineBusy):
            await asyncio.sleep(IDLE_POLL_S)
        except EngineDown as error:
            if self._engine.health().ok:  # it went down over this very turn and is up again
                await asyncio.to_thread(self._queue.failed, turn, str(error))
            await asyncio.sleep(DOWN_POLL_S)
        except Exception as error:  # noqa: BLE001  edge of the task's work: it is tried again, then shown with the reason
            logger.warning(
                "a turn could not be read for memory: %s", type(error).__name__
            )  # its text may quote the user
            reason = str(error) if isinstance(error, TailorError) else f"{type(error).__name__}: {error}"
            await asyncio.to_thread(self._queue.failed, turn, reason)

    def _keep(self, turn: QueuedTurn, findings: Sequence[Finding]) -> None:
        self._store.of(turn.user_id).keep(
            findings,
            source=turn.text,
            conversation_id=turn.conversation_id,
            message_id=turn.message_id,
            at=turn.created_at,
            unless=lambda: not self._queue.contains(turn),  # it was deleted, dismissed or erased while it was read
        )

    async def find(
        self, text: str, at: float | None = None, *, attempt: int = 0, preemptible: bool = False
    ) -> tuple[Finding, ...]:
        """What the model finds in a turn beside what the rules do. `text` is `reading.clean`.

        `preemptible`: it stops as soon as another request needs the engine. Raises UnusableAnswer and what
        `Engine.generate` raises.
        """
        spans = remaining_candidates(text)
        if not spans:
            return ()
        answer = await self._generate(spans, attempt, preemptible)
        return _findings(_parse(answer), spans, at)

    async def _generate(self, spans: Sequence[Span], attempt: int, preemptible: bool) -> str:
        tokenizer = self._engine.tokenizer
        prompt = tuple(tokenizer.render(_messages(spans)))
        most = 40 + sum(2 * tokenizer.count(span.source) + 24 for span in spans)
        sampling = SamplingParams(temperature=0.0 if attempt == 0 else 0.5, max_tokens=most, seed=attempt)
        request = GenerationRequest(prompt, sampling, constraint=Constraint("json_schema", json.dumps(_schema(spans))))
        answer: list[str] = []
        events = self._engine.generate(request)
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, TokenDelta):
                    answer.append(event.text)
                if isinstance(event, GenerationDone):
                    if event.reason is not FinishReason.STOP:
                        raise UnusableAnswer("the model's answer broke off before its end")
                    break
                if preemptible and not self._idle(own=1):
                    raise _Preempted
        return "".join(answer)


def remaining_candidates(text: str) -> tuple[Span, ...]:
    """The candidate sentences in which the rules find nothing."""
    found = extract(text)
    return tuple(
        span
        for span in candidates(text)
        if not any(one.start < span.start + len(span.source) and span.start < one.end for one in found)
    )


def _messages(spans: Sequence[Span]) -> list[Message]:
    messages = [Message("system", _SYSTEM_PROMPT)]
    for sentences_shown, picked in _EXAMPLES:
        facts = [{"quote": quote, "kind": kind.value} for quote, kind in picked]
        messages += [
            Message("user", "\n".join(sentences_shown)),
            Message("assistant", json.dumps({"facts": facts}, ensure_ascii=False)),
        ]
    return [*messages, Message("user", "\n".join(span.source for span in spans))]


def _schema(spans: Sequence[Span]) -> dict[str, Any]:
    """Facts whose quote is one of the sentences, in a fixed layout."""
    fact = {
        "type": "object",
        "properties": {
            "quote": {"enum": list(dict.fromkeys(span.source for span in spans))},
            "kind": {"enum": [kind.value for kind in KINDS]},
        },
        "required": ["quote", "kind"],
        "additionalProperties": False,
    }
    facts = {"type": "array", "items": fact, "maxItems": len(spans)}
    return {
        "x-guidance": _JSON_LAYOUT,
        "type": "object",
        "properties": {"facts": facts},
        "required": ["facts"],
        "additionalProperties": False,
    }


def _parse(answer: str) -> list[tuple[str, MemoryKind]]:
    """Raises UnusableAnswer."""
    try:
        facts = json.loads(answer)["facts"]
        return [(str(fact["quote"]), MemoryKind(fact["kind"])) for fact in facts]
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableAnswer(f"the model's answer is not the JSON that was asked for: {answer[:80]!r}") from error


def _findings(picked: Sequence[tuple[str, MemoryKind]], spans: Sequence[Span], at: float | None) -> tuple[Finding, ...]:
    """Each sentence once; a quote that is none of them is rejected, and an event without a day to come, too."""
    span_of = {span.source: span for span in spans}
    found: dict[int, Finding] = {}
    for quote, kind in picked:
        span = span_of.get(quote)
        if span is None or kind not in KINDS:
            continue
        finding = Finding(kind, to_third_person(quote), span.start, span.start + len(quote), confidence=CONFIDENCE)
        if kind is MemoryKind.EVENT:
            day = dates.find_future_date(quote, at)
            if day is None:
                continue
            finding = replace(finding, text=f"{finding.text.rstrip('.')} ({day.iso}).", valid_to=day.end)
        found.setdefault(span.start, finding)
    return tuple(found.values())
