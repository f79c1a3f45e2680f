"""Detects what must not be stored and put into prompts without asking: card numbers, resident numbers, keys, passwords,
and prompt injections.

A filter of shapes, not a vault: it stops what a user would regret, and knows that it cannot stop everything.
"""

from __future__ import annotations

import re
from itertools import pairwise

from server.words import normalize

_DIGITS = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)")
_RRN = re.compile(r"(?<!\d)(\d{2})(\d{2})(\d{2})\s?[-–]?\s?[1-8]\d{6}(?!\d)")
_SSN = re.compile(r"(?<!\d)(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?!\d)")
_KEYS = re.compile(
    r"\b(?:sk|pk|rk)[-_](?:live|test|proj|ant|or)?[-_]?[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|\bgithub_pat_\w{20,}"
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
_LONG_TOKEN = re.compile(r"(?<![\w/+-])[\w/+-]{32,}={0,2}(?![\w/+-])", re.ASCII)

_ROLE_MARKERS = re.compile(
    r"<\|\w+\|>|\[/?INST\]|<<\s*/?SYS\s*>>|</?(?:system|assistant)>|^\W*(?:system|assistant|developer)\s*(?:prompt|message|note)?\s*[:>\]]",
    re.IGNORECASE | re.MULTILINE,
)
_RULES = (
    r"(?:instructions?|prompts?|rules|guidelines|directives?|polic(?:y|ies)|restrictions?|safety|filters?"
    r"|guardrails?)"
)
_INJECTION = re.compile(
    rf"\b(?:ignore|disregard|forget|override|bypass|disable|turn off|drop|skip)\b[^.!?\n]{{0,40}}\b{_RULES}\b"
    rf"|\b(?:no|without(?: any)?|not bound by|free (?:of|from)|exempt from|unaffected by)\s+(?:any\s+|your\s+"
    rf"|the\s+)?(?:\w+\s+)?{_RULES}\b"
    r"|\b(?:reveal|print|show|repeat|leak|output|send|forward|share)\b[^.!?\n]{0,40}\b(?:system prompt"
    r"|hidden prompt|your prompt"
    r"|your instructions|initial instructions|other users?|passwords?|api keys?|credentials?|secrets?"
    r"|chat history|private data)\b"
    r"|\b(?:send|post|forward|upload|exfiltrate|append)\b[^.!?\n]{0,60}\b(?:https?://|to \S+@\S+)"
    r"|\b(?:system prompt|jailbreak|jailbroken|developer mode|dan mode|god mode|do anything now|admin"
    r"(?:istrator)? (?:mode|rights"
    r"|access|privileges)|root access|unrestricted|uncensored)\b"
    r"|\b(?:you are|you're|act as|behave as) (?:now )?(?:an? )?(?:unfiltered|unrestricted|uncensored|evil"
    r"|different (?:ai|model)|dan\b)"
    r"|\b(?:user|i|speaker) (?:is|am|has|have) (?:now )?(?:an? |the |full )?(?:admin(?:istrator)?|root"
    r"|super ?user|developer of this)\b"
    r"|(?:이전|위의?|앞의?|기존|모든|네|너의|시스템)\s?[^.!?\n]{0,15}(?:지시|명령|지침|프롬프트|규칙|제한"
    r"|안전)[^.!?\n]{0,12}"
    r"(?:무시|잊|따르지|버리|취소|해제|우회|공개|보여|출력|알려)"
    r"|시스템\s*프롬프트|탈옥|제한\s*없는\s*(?:AI|모델|인공지능)|관리자\s*(?:모드|권한)|개발자\s*모드|"
    r"(?:비밀번호|개인\s*정보|대화\s*내용)[^.!?\n]{0,20}"
    r"(?:전송|보내|유출|출력)",
    re.IGNORECASE,
)


def is_sensitive(text: str) -> bool:
    plain = normalize(text, "NFKC")
    if _KEYS.search(plain) or _PASSWORD.search(plain) or _SSN.search(plain):
        return True
    if any(_is_date(found[1], found[2], found[3]) for found in _RRN.finditer(plain)):
        return True
    if any(_luhn(re.sub(r"\D", "", found[0])) for found in _DIGITS.finditer(plain)):
        return True
    return any(_looks_random(found[0]) for found in _LONG_TOKEN.finditer(plain))


def _is_date(year: str, month: str, day: str) -> bool:
    return year.isdigit() and 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def _luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + position % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0 and len(set(digits)) > 1


def _looks_random(run: str) -> bool:
    """Letters and digits that change often: a token, not a word, a path or an identifier."""
    kinds = ["d" if char.isdigit() else "u" if char.isupper() else "l" for char in run if char.isalnum()]
    changes = sum(left != right for left, right in pairwise(kinds))
    return "d" in kinds and changes >= len(kinds) / 5


def is_prompt_injection(text: str) -> bool:
    """Whether the text reads like an order to a model to change what it is, not like a wish about its answers."""
    plain = normalize(text, "NFKC")
    return _INJECTION.search(plain) is not None or _ROLE_MARKERS.search(plain) is not None
