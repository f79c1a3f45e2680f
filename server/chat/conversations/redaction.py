"""Takes forgotten memories and quotes of deleted chats out of what is stored of other turns.

Pure. A memory stands in a record by its number, and in an exact prompt as a line of its own, with every text that
the records say it had. What the user wrote themselves stays as they wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from server.chat.conversations.records import AnswerRecord, PromptRecord
from server.prompting import MEMORY_HEAD
from server.types import Memory, Message, PromptSection

GONE = "…"
MOST_MARKS = 100


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How many stored answers and exact prompts named what was forgotten."""

    answers: int = 0
    prompts: int = 0


@dataclass
class Forgotten:
    """What is to go. `memories` None: all of them. `texts` and `nonces` grow while records are read."""

    memories: Collection[int] | None = ()
    names: Collection[str] = ()  # the user was called so in system texts
    chats: Collection[str] = ()  # deleted chats, which others may quote
    texts: set[str] = field(default_factory=set)
    nonces: set[str] = field(default_factory=set)  # of the fences around such quotes

    def has(self, memory: Memory) -> bool:
        return self.memories is None or memory.id in self.memories

    @property
    def marks(self) -> tuple[str, ...]:
        """Strings of which a stored record that names any of it holds one, as JSON."""
        if self.memories is None or len(self.memories) > MOST_MARKS:
            return ('{"id":', *self.chats)
        return (*(f'{{"id":{memory_id},"kind":' for memory_id in self.memories), *self.chats)

    def rest(self, held: tuple[Memory, ...]) -> tuple[Memory, ...]:
        """What stays; the texts of the others are noted."""
        self.texts |= {" ".join(memory.text.split()) for memory in held if self.has(memory)}
        return tuple(memory for memory in held if not self.has(memory))


def forget_in_answer(text: str, record: AnswerRecord, forgotten: Forgotten) -> tuple[str, AnswerRecord | None]:
    """The answer's text and record without what is forgotten; None for a record that named nothing of it."""
    context = record.context
    quotes = tuple(turn for turn in context.chats if turn.conversation_id not in forgotten.chats)
    if quotes != context.chats:
        forgotten.nonces.add(context.nonce)
    told = forgotten.rest(record.memories_told)
    if told != record.memories_told:  # the server's own list
        gone = {" ".join(memory.text.split()) for memory in record.memories_told} - {
            " ".join(memory.text.split()) for memory in told
        }
        text = without_lines(text, gone)
    kept = replace(
        record,
        context=replace(context, memories=forgotten.rest(context.memories), chats=quotes),
        memories_saved=forgotten.rest(record.memories_saved),
        memories_edited=forgotten.rest(record.memories_edited),
        memories_told=told,
    )
    return text, kept if kept != record else None


def forget_in_prompt(prompt: PromptRecord, forgotten: Forgotten) -> PromptRecord | None:
    """The prompt without the texts noted in the records; its token counts still say what was sent. None: none was
    there."""
    messages = tuple(
        Message(each.role, _cleaned(each.content, forgotten, names=each.role == "system")) for each in prompt.messages
    )
    sections = tuple(
        PromptSection(each.name, _cleaned(each.text, forgotten, names=each.name == "system"), each.tokens)
        for each in prompt.sections
    )
    kept = replace(prompt, messages=messages, sections=sections)
    return kept if kept != prompt else None


def _cleaned(text: str, forgotten: Forgotten, *, names: bool) -> str:
    text = without_lines(text, forgotten.texts)
    if forgotten.texts:
        text = re.sub(rf"{re.escape(MEMORY_HEAD)}\n(?!- )\n*", "", text)
    for nonce in forgotten.nonces:
        mark = re.escape(nonce)
        text = re.sub(rf"(<chats {mark}>\n).*?(\n</chats {mark}>)", rf"\1{GONE}\2", text, flags=re.DOTALL)
    for name in forgotten.names if names else ():
        bounded = rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"
        text = re.sub(bounded, GONE, text)
    return text


def without_lines(text: str, gone: Collection[str]) -> str:
    """`text` without the lines that tell these memories."""
    for memory in sorted(gone, key=len, reverse=True):
        if memory in text:
            text = re.sub(rf"(?m)^- {re.escape(memory)}(?: \([^()\n]*\))?(?:\n|\Z)", "", text)
    return text
