"""Format codes of spreadsheets, taken apart: sections with their condition, of tokens. Knows nothing of values."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_LONGEST: Final = 1_000  # characters of a code; Excel allows 255
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le, ">=": operator.ge, "<>": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
_HALVES: Final = ("am/pm", "a/p", "上午/下午", "午前/午後", "오전/오후")
_GENERAL: Final = ("general", "standard", "g/표준", "g/標準", "g/通用格式")
_SINGLE: Final = {
    **dict.fromkeys("0#?", "digit"), ".": "point", ",": "comma", "%": "percent", "@": "text", "/": "slash",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # digit, point, comma, percent, exponent, slash, text, general, date, half, fraction or literal
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    tokens: tuple[Token, ...]
    condition: tuple[str, float] | None = None

    def holds(self, value: float) -> bool:
        return self.condition is None or _COMPARE[self.condition[0]](value, self.condition[1])


@lru_cache(maxsize=1_000)
def sections(code: str) -> tuple[Section, ...]:
    """At least one."""
    scanner = _Scanner(code[:_LONGEST] or "General")
    found = [scanner.section()]
    while scanner.more and len(found) < 4:
        found.append(scanner.section())
    return tuple(found)


class _Scanner:
    def __init__(self, code: str) -> None:
        self._code = code
        self._lower = code.lower()
        self._at = 0
        self.more = True

    def section(self) -> Section:
        tokens: list[Token] = []
        condition: tuple[str, float] | None = None
        while self._at < len(self._code):
            char = self._code[self._at]
            if char == ";":
                self._at += 1
                return Section(_as_date(tokens), condition)
            if char == "[":
                condition = self._bracket(tokens) or condition
            else:
                tokens += self._token(char, tokens)
        self.more = False
        return Section(_as_date(tokens), condition)

    def _token(self, char: str, before: list[Token]) -> list[Token]:
        if char == '"':
            end = self._code.find('"', self._at + 1)
            end = len(self._code) if end < 0 else end
            text, self._at = self._code[self._at + 1 : end], end + 1
            return [Token("literal", text)]
        if char in "\\!_*":
            text, self._at = self._code[self._at + 1 : self._at + 2], self._at + 2
            return [Token("literal", text if char in "\\!" else " " if char == "_" else "")]
        for kind, words in (("half", _HALVES), ("general", _GENERAL)):
            for word in words:
                if self._lower.startswith(word, self._at):
                    self._at += len(word)
                    return [Token(kind, word)]
        if char in "eE" and self._code[self._at + 1 : self._at + 2] in ("+", "-"):
            self._at += 2
            return [Token("exponent", self._code[self._at - 2 : self._at])]
        if self._lower[self._at] in "ymdhsea":
            return [Token("date", self._run())]
        return self._simple(char, before)

    def _simple(self, char: str, before: list[Token]) -> list[Token]:
        if char == "." and before and before[-1].kind == "date":
            end = self._at + 1
            while self._code[end : end + 1] == "0":
                end += 1
            if end > self._at + 1:
                text, self._at = self._code[self._at + 1 : end][:6], end
                return [Token("fraction", text)]
        self._at += 1
        return [Token(_SINGLE.get(char, "literal"), char)]

    def _run(self) -> str:
        letter, start = self._lower[self._at], self._at
        while self._lower[self._at : self._at + 1] == letter:
            self._at += 1
        return self._lower[start : self._at]

    def _bracket(self, tokens: list[Token]) -> tuple[str, float] | None:
        """A condition, or time that goes on beyond a day, or a currency; colours and the like say nothing."""
        end = self._code.find("]", self._at)
        end = len(self._code) if end < 0 else end
        inside, self._at = self._code[self._at + 1 : end], end + 1
        if inside.startswith("$"):
            tokens.append(Token("literal", inside[1:].partition("-")[0]))
        elif inside and set(inside.lower()) <= {inside[0].lower()} and inside[0].lower() in "hms":
            tokens.append(Token("date", f"[{inside.lower()}]"))
        for sign in _COMPARE:
            if inside.startswith(sign):
                try:
                    return sign, float(inside[len(sign) :])
                except ValueError:
                    return None
        return None


def _as_date(tokens: list[Token]) -> tuple[Token, ...]:
    """In a date a slash, a point or a comma is only itself; letters outside of one are only letters."""
    if any(token.kind == "date" and (token.text[0] not in "ae" or token.text[:3] == "aaa") for token in tokens):
        kept = ("half", "fraction", "literal")
        return tuple(
            token
            if token.kind in kept or (token.kind == "date" and token.text not in ("a", "aa"))
            else Token("literal", token.text)
            for token in tokens
        )
    return tuple(Token("literal", token.text) if token.kind in ("date", "half") else token for token in tokens)
