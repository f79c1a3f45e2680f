"""Removes deleted memories and quotes of deleted chats from what is stored of other turns.

A memory stands in a record by its id, and in an exact prompt as a line of its own, with every text that the records say
it had. What the user wrote themselves stays as they wrote it. Pure: knows no database.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from server.chat.conversations.records import AnswerRecord, PromptRecord
from server.prompting import MEMORY_HEAD
from server.types import Memory, Message, PromptSection

REDACTED = "…"
MAX_SEARCH_STRINGS = 100


@dataclass(frozen=True, slots=True)
class RedactionCounts:
    """How many stored answers and exact prompts contained what was deleted."""

    answers: int = 0
    prompts: int = 0


@dataclass
class Redaction:
    """What is to be removed. `memories` None: all of them. `texts` and `nonces` grow while records are read."""

    memories: Collection[int] | None = ()
    names: Collection[str] = ()  # the user was called so in system texts
    chats: Collection[str] = ()  # deleted chats, which others may quote
    texts: set[str] = field(default_factory=set)
    nonces: set[str] = field(default_factory=set)  # of the fences around such quotes

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
    text = remove_memory_lines(text, redaction.texts)
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
