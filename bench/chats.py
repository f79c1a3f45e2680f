"""What engines are asked, and what came of it: prompts as token ids, drawn anew for each round.

A prompt is a function of (key, round, place), so a run can be repeated, and no prompt of a run resembles an
earlier one: nothing that an engine keeps can help it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.models import FIRST_PLAIN
from server.types import ChatTokenizer, Message


@dataclass(frozen=True)
class Chats:
    """Chats that are asked at once. `adapters` has a name, or None for the base, for each prompt."""

    prompts: tuple[tuple[int, ...], ...]
    adapters: tuple[str | None, ...]
    new: int  # tokens each answer must have

    @property
    def tokens(self) -> int:
        """New tokens altogether."""
        return len(self.prompts) * self.new


@dataclass(frozen=True)
class Timed:
    """What one engine did with some chats: wall-clock seconds, new tokens, and the answers it gave."""

    seconds: float
    tokens: int
    texts: tuple[str, ...] = ()

    @property
    def speed(self) -> float:
        """New tokens a second."""
        return self.tokens / self.seconds


def draw(
    key: str, number: int, *, count: int, length: int, new: int, vocabulary: int, adapters: Sequence[str] = ()
) -> Chats:
    """`count` chats of random tokens for round `number`; adapters are dealt out in turn."""
    prompts = []
    for place in range(count):
        drawn = random.Random(f"{key}/{number}/{place}")
        prompts.append(tuple(drawn.randrange(FIRST_PLAIN, vocabulary) for _ in range(length)))
    names = tuple(adapters[place % len(adapters)] if adapters else None for place in range(count))
    return Chats(tuple(prompts), names, new)


def shorter(chats: Chats, new: int) -> Chats:
    """The same chats with fewer new tokens, to warm up with."""
    return replace(chats, new=min(new, chats.new))


def message(key: str, number: int, place: int, tokenizer: ChatTokenizer, length: int) -> str:
    """A message of plain words whose rendered chat has about `length` tokens, at least one word."""
    words = plain_words(key, number, place, tokenizer)
    text = next(words)
    while len(tokenizer.render([Message("user", text)])) < length:
        text += " " + next(words)
    return text


def plain_words(key: str, number: int, place: int, tokenizer: ChatTokenizer) -> Iterator[str]:
    """Without end: words that the tokenizer writes in lower-case ASCII."""
    drawn = random.Random(f"{key}/{number}/{place}")
    last = FIRST_PLAIN + 700
    known = [tokenizer.decode([token]).strip() for token in range(FIRST_PLAIN, last)]
    words = sorted({word for word in known if re.fullmatch(r"[a-z][a-z0-9]+", word)})
    while True:
        yield drawn.choice(words)


def alike(ours: Timed, peer: Timed) -> str:
    """How many answers are the same text, for the remark beside a figure."""
    pairs = list(zip(ours.texts, peer.texts, strict=True))
    same = sum(mine.rstrip("\ufffd") == theirs.rstrip("\ufffd") for mine, theirs in pairs)
    return f"same text in {same} of {len(pairs)}"
