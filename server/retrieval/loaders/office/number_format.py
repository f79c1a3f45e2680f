"""Numbers as a spreadsheet shows them: "15%", "14:30", "00042", "₩4,200", by their format code (ECMA-376, 18.8.31).

A code is at most four sections: above zero, below, zero, text. Names of months and days are English; a date whose form
depends on the reader's country is year-month-day. What cannot be shown by its code is shown plainly. Knows nothing of
cells.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from typing import Final

from server.retrieval.loaders.office.number_tokens import Section, Token, sections

BUILT_IN: Final = {
    0: "General", 1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%", 11: "0.00E+00", 12: "# ?/?",
    13: "# ??/??", 14: "yyyy-mm-dd", 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy", 18: "h:mm AM/PM", 19: "h:mm:ss AM/PM",
    20: "h:mm", 21: "h:mm:ss", 22: "yyyy-mm-dd h:mm", 32: "h:mm", 33: "h:mm:ss", 37: "#,##0;(#,##0)",
    38: "#,##0;(#,##0)", 39: "#,##0.00;(#,##0.00)", 40: "#,##0.00;(#,##0.00)", 41: "#,##0;-#,##0;-",
    42: "#,##0;-#,##0;-", 43: "#,##0.00;-#,##0.00;-", 44: "#,##0.00;-#,##0.00;-", 45: "mm:ss", 46: "[h]:mm:ss",
    47: "mm:ss.0", 48: "##0.0E+0", 49: "@",
    **dict.fromkeys((27, 28, 29, 30, 31, 34, 35, 36, *range(50, 59)), "yyyy-mm-dd"),
}  # fmt: skip
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LAST_DAY: Final = 2_958_466  # the year 10000
_MOST_DIGITS: Final = 30


def shown_number(raw: str, code: str, since_1904: bool = False) -> str:
    """`raw` is a number as files have it; anything else is given back."""
    try:
        value = float(raw)
    except ValueError:
        return raw
    if not math.isfinite(value):
        return raw
    if code == "General":
        return _general(value)
    try:
        return _shown(value, code, since_1904) or _general(value)
    except (ValueError, ArithmeticError, LookupError):
        return _general(value)


@lru_cache(maxsize=1_000)
def is_date(code: str) -> bool:
    return any(token.kind == "date" for section in sections(code) for token in section.tokens)


def shown_text(text: str, code: str) -> str:
    """A text by a code with a section for text, such as '"No. "@'."""
    parts = sections(code)
    section = parts[3] if len(parts) > 3 else parts[-1]
    if not any(token.kind == "text" for token in section.tokens):
        return text
    return "".join(text if token.kind == "text" else token.text for token in section.tokens).strip()


def _shown(value: float, code: str, since_1904: bool) -> str:
    section, value = _chosen(sections(code), value)
    kinds = {token.kind for token in section.tokens}
    if "date" in kinds:
        return _date(value, section, since_1904)
    if kinds & {"general", "text"}:
        shown = "".join(
            _general(value) if token.kind in ("general", "text") else token.text for token in section.tokens
        )
    elif "slash" in kinds and "digit" in kinds:
        shown = _fraction(value, section)
    else:
        shown = _decimal(value, section)
    return " ".join(shown.split())


def _chosen(parts: tuple[Section, ...], value: float) -> tuple[Section, float]:
    """The section for this number, and the number that it shows: without its sign where the section is for such."""
    for part in parts[:3]:
        if part.condition is not None and part.holds(value):
            return part, value
    if any(part.condition is not None for part in parts):
        plain = [part for part in parts[:3] if part.condition is None]
        return (plain[0] if plain else parts[-1]), value
    if value < 0 and len(parts) > 1:
        return parts[1], -value
    if value == 0 and len(parts) > 2:
        return parts[2], value
    return parts[0], value


def _general(value: float) -> str:
    return f"{value:.15g}".replace("e", "E")


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Pattern:
    """The digits of a section: tokens before the point, after it, and how the value is scaled."""

    whole: list[Token]
    rest: list[Token]
    exponent: list[Token]
    grouped: bool
    scale: int


def _pattern(section: Section) -> _Pattern:
    areas: list[list[Token]] = [[], [], []]
    area, scale, grouped, waiting = 0, 0, False, 0
    for token in section.tokens:
        if token.kind == "comma" and area < 2:
            waiting += 1
            continue
        if token.kind == "digit" and waiting:
            grouped, waiting = True, 0
        if token.kind == "point" and area == 0:
            area = 1
        elif token.kind == "exponent" and area < 2:
            area = 2
            areas[2].append(token)
        else:
            areas[area].append(token)
        scale += 2 if token.kind == "percent" else 0
    return _Pattern(areas[0], areas[1], areas[2], grouped, scale - 3 * waiting)


def _decimal(value: float, section: Section) -> str:
    pattern = _pattern(section)
    places = min(sum(token.kind == "digit" for token in pattern.rest), _MOST_DIGITS)
    with localcontext() as context:
        context.prec = 700
        number = Decimal(repr(value)).scaleb(pattern.scale)
        power = 0
        if pattern.exponent:
            width = max(sum(token.kind == "digit" for token in pattern.whole), 1)
            power = (number.adjusted() // width) * width if number and width > 1 else number.adjusted() if number else 0
            number = number.scaleb(-power)
        rounded = abs(number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))
        digits, _, decimals = f"{rounded:f}".partition(".")
    sign = "-" if value < 0 and any(char in "123456789" for char in digits + decimals) else ""
    if not any(token.kind == "digit" for token in section.tokens):
        return sign + "".join(token.text for token in section.tokens)
    shown = _filled_whole(pattern.whole, digits, pattern.grouped) + _filled_rest(pattern.rest, decimals)
    return sign + shown + _filled_exponent(pattern.exponent, power)


def _filled_whole(tokens: list[Token], digits: str, grouped: bool) -> str:
    """From right to left: the leftmost place takes all digits that are left."""
    left = digits.lstrip("0")
    out: list[str] = []
    count, places = 0, sum(token.kind == "digit" for token in tokens)
    for token in reversed(tokens):
        if token.kind != "digit":
            out.append(token.text)
            continue
        places -= 1
        taken = left[-1:] if places else left
        left = left[: len(left) - len(taken)]
        for digit in reversed(taken or ("0" if token.text == "0" else "")):
            if grouped and count and count % 3 == 0:
                out.append(",")
            out.append(digit)
            count += 1
    return ("" if places or not left else left) + "".join(reversed(out))


def _filled_rest(tokens: list[Token], decimals: str) -> str:
    places = [token for token in tokens if token.kind == "digit"]
    needed = max((at for at, token in enumerate(places, start=1) if token.text == "0"), default=0)
    kept = iter(decimals.rstrip("0").ljust(needed, "0"))
    shown = "".join(next(kept, "") if token.kind == "digit" else token.text for token in tokens)
    has_digits = bool(places) and shown[:1].isdigit()
    return f".{shown}" if has_digits else shown


def _filled_exponent(tokens: list[Token], power: int) -> str:
    if not tokens:
        return ""
    width = sum(token.text == "0" for token in tokens if token.kind == "digit")
    sign = "-" if power < 0 else "+" if "+" in tokens[0].text else ""
    return f"E{sign}{abs(power):0{width}d}" + "".join(token.text for token in tokens[1:] if token.kind != "digit")


def _fraction(value: float, section: Section) -> str:
    tokens = [*section.tokens]
    at = next(place for place, token in enumerate(tokens) if token.kind == "slash")
    below = "".join(token.text for token in tokens[at + 1 :]).strip()
    exact = Fraction(abs(value))
    has_whole = "#" in "".join(token.text for token in tokens[:at]).strip().split(" ")[0] and " " in "".join(
        token.text for token in tokens[:at]
    )
    whole = int(exact) if has_whole else 0
    part = exact - whole
    if below.isdigit() and int(below):
        bottom = int(below)
        top = round(part * bottom)
    else:
        near = part.limit_denominator(10 ** min(max(len(below), 1), 5) - 1)
        top, bottom = near.numerator, near.denominator
    if top == bottom and has_whole:
        whole, top = whole + 1, 0
    sign = "-" if value < 0 else ""
    return sign + (f"{whole or ''} {top}/{bottom}".strip() if top else str(whole))


# ── dates and times ──────────────────────────────────────────────────────────────────────────────


def _date(value: float, section: Section, since_1904: bool) -> str:
    if not 0 <= value < _LAST_DAY:
        return _general(value)
    tokens = section.tokens
    fraction = max((len(token.text) for token in tokens if token.kind == "fraction"), default=0)
    ticks = round(value * 86_400 * 10**fraction)
    seconds, ticks = divmod(ticks, 10**fraction)
    days, rest = divmod(seconds, 86_400)
    first = datetime.datetime(1904, 1, 1) if since_1904 else datetime.datetime(1899, 12, 30 if days >= 60 else 31)
    moment = first + datetime.timedelta(days=days, seconds=rest)
    half = any(token.kind == "half" for token in tokens)
    out = []
    for at, token in enumerate(tokens):
        if token.kind == "date":
            out.append(_date_part(token.text, moment, seconds, half, _is_minutes(tokens, at)))
        elif token.kind == "half":
            out.append("AM" if moment.hour < 12 else "PM")
        elif token.kind == "fraction":
            out.append(f".{ticks:0{fraction}d}")
        else:
            out.append("" if token.kind == "general" else token.text)
    return " ".join("".join(out).split())


def _is_minutes(tokens: tuple[Token, ...], at: int) -> bool:
    """An m after hours or before seconds."""
    before = next((token.text for token in reversed(tokens[:at]) if token.kind == "date"), "")
    after = next((token.text for token in tokens[at + 1 :] if token.kind == "date"), "")
    return before.strip("[]")[:1] == "h" or after.strip("[]")[:1] == "s"


def _date_part(code: str, moment: datetime.datetime, seconds: int, half: bool, minutes: bool) -> str:
    if code[0] == "[":
        unit = {"h": 3600, "m": 60, "s": 1}[code[1]]
        return f"{seconds // unit:0{len(code) - 2}d}"
    kind, width = code[0], len(code)
    if kind in "ye":
        return f"{moment.year % 100:02d}" if kind == "y" and width <= 2 else f"{moment.year:04d}"
    if kind == "m" and not minutes:
        name = _MONTHS[moment.month - 1]
        return [str(moment.month), f"{moment.month:02d}", name[:3], name][width - 1] if width < 5 else name[0]
    if kind in "da" and width >= 3:
        name = _DAYS[moment.weekday()]
        return name if width >= 4 else name[:3]
    hour = (moment.hour - 1) % 12 + 1 if half else moment.hour
    number = {"d": moment.day, "h": hour, "m": moment.minute, "s": moment.second}[kind]
    return f"{number:0{min(width, 2)}d}"
