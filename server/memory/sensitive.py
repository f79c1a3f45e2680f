"""What must not be kept in plain text and put into prompts: card numbers, resident numbers, keys, passwords.

A filter of shapes, not a vault: it stops what a user would regret, and knows that it cannot stop everything.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

_DIGITS = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)")
_RRN = re.compile(r"(?<!\d)(\d{2})(\d{2})(\d{2})\s?[-–]?\s?[1-8]\d{6}(?!\d)")
_SSN = re.compile(r"(?<!\d)(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?!\d)")
_KEYS = re.compile(
    r"\b(?:sk|pk|rk)[-_](?:live|test|proj|ant|or)?[-_]?[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
    r"|\bA[KS]IA[0-9A-Z]{16}\b|\bAIza[\w-]{30,}|\bxox[abeprs]-[\w-]{10,}|\bglpat-[\w-]{16,}|\bhf_[A-Za-z0-9]{20,}"
    r"|\bnpm_[A-Za-z0-9]{20,}|\bpypi-[\w-]{20,}|\btlr-[\w-]{16,}|\beyJ[\w-]{8,}\.[\w-]{8,}\."
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_PASSWORD = re.compile(
    r"\b(?:pass ?(?:word|code|phrase|wd)|pwd|pin(?: (?:code|number))?|cvc|cvv|secret key|api key|access token"
    r"|private key|security code)(?:\s+(?:for|of|to|on|at)\s+[^.!?\n]{1,40}?)?\s*(?:\bis\b|\bwas\b|'s|=|:)\s*\S"
    r"|(?:비밀\s*번호|비번|패스워드|암호|인증\s*번호|보안\s*코드|핀\s*번호)(?:(?:은|는|이|가|\s*[=:])\s*\S|\s+[!-~]{4,})",
    re.IGNORECASE,
)
_LONG = re.compile(r"(?<![\w/+-])[\w/+-]{32,}={0,2}(?![\w/+-])", re.ASCII)


def is_sensitive(text: str) -> bool:
    plain = unicodedata.normalize("NFKC", text)
    if _KEYS.search(plain) or _PASSWORD.search(plain) or _SSN.search(plain):
        return True
    if any(_is_date(found[1], found[2], found[3]) for found in _RRN.finditer(plain)):
        return True
    if any(_luhn(re.sub(r"\D", "", found[0])) for found in _DIGITS.finditer(plain)):
        return True
    return any(_random(found[0]) for found in _LONG.finditer(plain))


def _is_date(year: str, month: str, day: str) -> bool:
    return year.isdigit() and 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def _luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0 and len(set(digits)) > 1


def _random(run: str) -> bool:
    """Letters and digits that change often: a token, not a word, a path or an identifier."""
    kinds = ["d" if char.isdigit() else "u" if char.isupper() else "l" for char in run if char.isalnum()]
    changes = sum(left != right for left, right in pairwise(kinds))
    return "d" in kinds and changes >= len(kinds) / 5
