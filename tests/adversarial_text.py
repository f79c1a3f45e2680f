"""Texts that cost much to read for what reads them badly: each repeats or nests one thing, to a given size in UTF-8."""

from __future__ import annotations

import random

UNITS: dict[str, str] = {
    "marks": "\u0301",
    "marks in disorder": "\u0301\u0323",
    "marks on letters": "e\u0301\u0323",
    "spaces": " ",
    "newlines": "\n",
    "blank lines": " \n",
    "tabs": "\t",
    "digits": "1",
    "digits and spaces": "1 ",
    "digits and hyphens": "12-",
    "commas": ",",
    "dots": ".",
    "full stops": ". ",
    "questions": "?! ",
    "colons": "a: ",
    "numbers with commas": "1,",
    "numbers in thousands": ",123",
    "addresses of machines": "1.1.1.1",
    "versions": "1.",
    "dates": "2024-01-",
    "quotes": '"',
    "apostrophes": "'",
    "apostrophes at words": "a' ",
    "opening quotes": "“",
    "closing quotes": ".” ",
    "Korean quotes": "「",
    "round brackets": "(",
    "square brackets": "[",
    "curly brackets": "{",
    "angle brackets": "<",
    "links": "[a](",
    "images": "![",
    "link texts": "[a",
    "citation marks": "[1] ",
    "opened citation marks": "[1, ",
    "backticks": "`",
    "backticks and letters": "`a",
    "double backticks": "``a",
    "fences": "```\n",
    "opened fences": "```a\n",
    "longer and longer fences": "````\n```\n",
    "list items": "- a\n",
    "list marks": "- ",
    "numbered items": "1. a\n",
    "quoted lines": "> ",
    "headings": "# a\n",
    "heading marks": "#",
    "bold": "**",
    "underscores": "_",
    "bold letters": "**a ",
    "breaks": "* ",
    "tildes": "~",
    "table bars": "|",
    "table cells": "| a ",
    "table rules": "|-",
    "table rows": "| a | b |\n",
    "e-mail": "a@",
    "e-mail with dots": "a.b@c.",
    "links to pages": "http://",
    "links to a page": "https://a.b/c ",
    "hyphens": "-",
    "hyphens and letters": "a-",
    "dashes": "a – ",
    "equals": "=",
    "slashes": "/",
    "plus": "+",
    "Hangul jamo": "ᄀ",
    "Hangul jamo of syllables": "각",
    "Hangul letters": "ㅋ",
    "Hangul syllables": "가",
    "Hangul words": "가나 ",
    "Hangul polite ends": "해요 ",
    "ideographs": "中",
    "kana": "あ",
    "zero width": "\u200b",
    "joiners": "\u200d",
    "direction": "\u202e",
    "family emoji": "👨\u200d",
    "flags": "🇰",
    "one letter": "a",
    "one capital": "A",
    "letters and spaces": "a ",
    "capitals and spaces": "A ",
    "capitalised words": "Aa ",
    "letters and digits": "a1",
    "names with numbers": "a1-",
    "letters and newlines": "a\n",
    "long lines": "word " * 40 + "\n",
    "my name is": "my name is ",
    "I am": "I'm a ",
    "I like": "i like ",
    "and I": "and i ",
    "remember": "remember that ",
    "forget": "forget that ",
    "please": "please ",
    "do you know": "what do you know about me ",
    "not": "not a ",
    "not the": ", not the ",
    "what did we": "what did we say ",
    "last week": "last week ",
    "from to": "from Monday to ",
    "password": "password for ",
    "ignore": "ignore all ",
    "system": "system: ",
    "between": "between 3 ",
    "Korean name": "제 이름은 ",
    "Korean remember": "기억해 줘 ",
    "Korean forget": "내 이름 잊어 ",
    "Korean last time": "지난번에 ",
    "Korean from": "부산에서 ",
    "Korean numbers": "3만 ",
    "nulls that are none": "\u0000",
    "wide letters": "ａ",
    "ligatures": "ﷺ",
    "words": "the quick brown fox. ",
    "Korean prose": "저는 서울에 살아요. ",
    "Korean ends": "고 ",
    "Korean degrees": "좀 ",
    "code and marks": "`a` [1] ",
    "items and marks": "- a b c [1]\n",
    "rows and marks": "| a | b [1] |\n",
    "sentences and marks": "Aa bb cc [1]. ",
    "claims and marks": "Refund in 14 days [1] and 3 hours [2] ",
    "links and marks": "[a](b) [1] ",
    "marks on lines": "a b c\n[1]\n",
    "durations": "a day ",
    "rules and titles": "a\n=\n",
    "directives": ".. code::\n",
    "rows of a grid": "+-+\n",
    "entries": "key: value\n",
    "quoted cells": '"a","b"\n',
    "quotes in cells": '"""",',
}  # fmt: skip

_PAIRS = {
    "brackets in brackets": ("(", ")"),
    "square brackets in brackets": ("[", "]"),
    "quotes in quotes": ("“", "”"),
    "tags in tags": ("<b>", "</b>"),
    "lists in lists": ("[1, ", "]"),
}


def adversarial_texts(size: int) -> dict[str, str]:
    """By name, each of about `size` bytes of UTF-8."""
    found = {name: unit * (size // len(unit.encode())) for name, unit in UNITS.items()}
    for name, (opening, closing) in _PAIRS.items():
        depth = size // len((opening + closing).encode())
        found[name] = opening * depth + closing * depth
    found["an end after one letter"] = "a" * (size - 1) + "!"
    found["an end after spaces"] = "a" + " " * (size - 2) + "!"
    found["an end after blank lines"] = "a" + "\n" * (size - 2) + "!"
    found["a quote before one line"] = '"' + "a" * (size - 1)
    found["lines that grow"] = "\n".join("a" * length for length in range(int((2 * size) ** 0.5)))
    found["deeper and deeper"] = "\n".join(" " * length + "- a" for length in range(int((2 * size) ** 0.5)))
    found["longer and longer code"] = " a ".join("`" * length for length in range(1, int((2 * size) ** 0.5)))
    for length in (390, 1_990):  # as long as a reader takes for one sentence
        found[f"laid out in {length}"] = ("I live in" + " " * (length - 10) + "Busan. ") * (size // length)
        found[f"sentences of {length}"] = ("my name is " * (length // 11) + ". ") * (size // length)
        found[f"Korean sentences of {length}"] = ("저는 고 " * (length // 5) + ". ") * (size // (3 * length))
    found["mixed"] = _mixed(size)
    return found


def _mixed(size: int) -> str:
    chosen = random.Random(7)
    units = [*UNITS.values()]
    pieces: list[str] = []
    while sum(len(piece.encode()) for piece in pieces) < size:
        pieces.append(chosen.choice(units) * chosen.randint(1, 200))
    return "".join(pieces)
