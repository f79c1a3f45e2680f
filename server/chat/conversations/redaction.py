"""Removes deleted memories, what says them, and quotes of deleted chats from texts, records and prompts.

A memory stands in a record by its id, and in an exact prompt as a line of its own, with every text that the records say
it had. The sentences that say it are found by its `Wording`, and then wherever they were copied. Pure: knows no
database.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from server.chat.conversations.records import AnswerRecord, PromptRecord
from server.memory import Wording
from server.prompting import MEMORY_HEAD
from server.types import Memory, Message, PromptSection

REDACTED = "…"
MAX_SEARCH_STRINGS = 100
MIN_CHARS = 4  # of a sentence that is looked for in other texts
_ROW_OF_MARKS = re.compile(rf"{REDACTED}(?:\s*{REDACTED})+")


@dataclass(frozen=True, slots=True)
class RedactionCounts:
    """How many stored answers' records, exact prompts, messages and titles contained what was deleted."""

    answers: int = 0
    prompts: int = 0
    messages: int = 0
    titles: int = 0


@dataclass
class Redaction:
    """What is to be removed. `memories` None: all of them. `texts`, `nonces` and `strings` grow while rows are read."""

    memories: Collection[int] | None = ()
    names: Collection[str] = ()  # the user was called so in system texts
    chats: Collection[str] = ()  # deleted chats, which others may quote
    texts: set[str] = field(default_factory=set)
    nonces: set[str] = field(default_factory=set)  # of the fences around such quotes
    wording: Wording | None = None  # of the sentences that go, too; None: those stay
    strings: set[str] = field(default_factory=set)  # such sentences, as they stood: they go wherever they were copied
    limit: int = 0  # the sequence of the last message that can hold it

    def copy(self) -> Redaction:
        """One of its own, for another thread."""
        return replace(self, texts=set(self.texts), nonces=set(self.nonces), strings=set(self.strings))

    def without_sentences(self, text: str, *, own: bool = False, at: float | None = None) -> str:
        """`text` without the sentences that say it; they join `strings`. `own`: the user wrote it, `at` that time."""
        spans = self.wording.sentences(text, own=own, at=at) if self.wording is not None else ()
        if not spans:
            return text
        self.add_strings(text[start:end] for start, end in spans)
        return _cut(text, spans)

    def add_strings(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.strings |= {one for one in (text.strip(), " ".join(text.split())) if len(one) >= MIN_CHARS}

    def strike(self, text: str) -> str:
        """`text` without copies of `strings`."""
        struck = text
        for string in sorted(self.strings, key=len, reverse=True):
            if string in struck:
                struck = re.sub(rf"(?<!\w){re.escape(string)}(?!\w)", REDACTED, struck)
        return struck if struck == text else _ROW_OF_MARKS.sub(REDACTED, struck)

    def strike_all(self, value: Any) -> Any:
        """A JSON value with every text in it struck."""
        if isinstance(value, str):
            return self.strike(value)
        if isinstance(value, list):
            return [self.strike_all(one) for one in value]
        return {key: self.strike_all(one) for key, one in value.items()} if isinstance(value, dict) else value

    def covers(self, memory: Memory) -> bool:
        return self.memories is None or memory.id in self.memories

    @property
    def search_strings(self) -> tuple[str, ...]:
        """Strings, as JSON, of which a stored record contains at least one if it names any of it."""
        if self.memories is None or len(self.memories) > MAX_SEARCH_STRINGS:
            return ('{"id":', *self.chats)
        return (*(f'{{"id":{memory_id},"kind":' for memory_id in self.memories), *self.chats)

    def remaining(self, memories_in_record: tuple[Memory, ...]) -> tuple[Memory, ...]:
        """The memories that stay; the texts of the others are added to `texts`."""
        self.texts |= {" ".join(memory.text.split()) for memory in memories_in_record if self.covers(memory)}
        return tuple(memory for memory in memories_in_record if not self.covers(memory))


def redact_answer(text: str, record: AnswerRecord, redaction: Redaction) -> tuple[str, AnswerRecord | None]:
    """The answer's text and record, redacted; None for a record that named nothing of it."""
    context = record.context
    quotes = tuple(turn for turn in context.chats if turn.conversation_id not in redaction.chats)
    if quotes != context.chats:
        redaction.nonces.add(context.nonce)
    listed = redaction.remaining(record.memories_told)
    if listed != record.memories_told:  # the server's own list
        removed = {" ".join(memory.text.split()) for memory in record.memories_told} - {
            " ".join(memory.text.split()) for memory in listed
        }
        text = remove_memory_lines(text, removed)
    redacted = replace(
        record,
        context=replace(context, memories=redaction.remaining(context.memories), chats=quotes),
        memories_saved=redaction.remaining(record.memories_saved),
        memories_edited=redaction.remaining(record.memories_edited),
        memories_told=listed,
    )
    return text, redacted if redacted != record else None


def redact_prompt(prompt: PromptRecord, redaction: Redaction) -> PromptRecord | None:
    """The prompt without `redaction.texts`; its token counts still say what was sent. None where nothing was
    removed."""
    messages = tuple(
        Message(each.role, _redact_text(each.content, redaction, names=each.role == "system"))
        for each in prompt.messages
    )
    sections = tuple(
        PromptSection(each.name, _redact_text(each.text, redaction, names=each.name == "system"), each.tokens)
        for each in prompt.sections
    )
    redacted = replace(prompt, messages=messages, sections=sections)
    return redacted if redacted != prompt else None


def _redact_text(text: str, redaction: Redaction, *, names: bool) -> str:
    text = redaction.strike(remove_memory_lines(text, redaction.texts))
    if redaction.texts:
        text = re.sub(rf"{re.escape(MEMORY_HEAD)}\n(?!- )\n*", "", text)
    for nonce in redaction.nonces:
        mark = re.escape(nonce)
        text = re.sub(rf"(<chats {mark}>\n).*?(\n</chats {mark}>)", rf"\1{REDACTED}\2", text, flags=re.DOTALL)
    for name in redaction.names if names else ():
        bounded = rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"
        text = re.sub(bounded, REDACTED, text)
    return text


def remove_memory_lines(text: str, removed: Collection[str]) -> str:
    """`text` without the lines that list these memories."""
    for memory in sorted(removed, key=len, reverse=True):
        if memory in text:
            text = re.sub(rf"(?m)^- {re.escape(memory)}(?: \([^()\n]*\))?(?:\n|\Z)", "", text)
    return text


def _cut(text: str, spans: Sequence[tuple[int, int]]) -> str:
    pieces, done = [], 0
    for start, end in spans:
        pieces += [text[done:start], REDACTED]
        done = end
    return _ROW_OF_MARKS.sub(REDACTED, "".join([*pieces, text[done:]]))
