"""Fields of a Word document: what they show, not their code.

A field is a beginning, its code, a separator, its result and an end, each somewhere in the text. `mark_fields` gives
those that belong together one number, so that a beginning without an end hides nothing. Knows nothing of paragraphs.
"""

from __future__ import annotations

import re
from typing import Final

from lxml import etree

from server.retrieval.loaders.office.package import attribute, child, is_on, local, number_of

NUMBER: Final = "field-number"
SHOWN: Final = "field-shown"  # of a field that has no result
_BUTTON = re.compile(r"\s*(?:MACROBUTTON|GOTOBUTTON)\s+\S+\s+(.*)", re.IGNORECASE | re.DOTALL)
_EQUATION = re.compile(r"\s*EQ\b(.*)", re.IGNORECASE | re.DOTALL)
_SYMBOL = re.compile(r"\s*SYMBOL\s+(0x[0-9a-f]{1,6}|\d{1,6})\b", re.IGNORECASE)
_SWITCH = re.compile(r'\\\*\s*(?:"[^"]*"|\w+)|\\[a-zA-Z]{1,2}(?: ?\d+)?|[()]')


def mark_fields(root: etree._Element) -> None:
    """Writes NUMBER on the parts of each complete field, and SHOWN on the beginning of one without a result."""
    open_fields: list[list[etree._Element]] = []
    codes: list[list[str]] = []
    count = 0
    for node in root.iter("{*}fldChar", "{*}instrText"):
        if local(node) == "instrText":
            if codes:
                codes[-1].append(node.text or "")
            continue
        kind = attribute(node, "fldCharType")
        if kind == "begin":
            open_fields.append([node])
            codes.append([])
        elif kind == "separate" and open_fields:
            open_fields[-1].append(node)
        elif kind == "end" and open_fields:
            parts, code = [*open_fields.pop(), node], "".join(codes.pop())
            count += 1
            for part in parts:
                part.set(NUMBER, str(count))
            if len(parts) == 2:
                parts[0].set(SHOWN, _without_result(parts[0], code))


def _without_result(begin: etree._Element, code: str) -> str:
    form = child(begin, "ffData")
    box, choices = child(form, "checkBox"), child(form, "ddList")
    if box is not None:
        checked = child(box, "checked")
        return "☒" if is_on(checked if checked is not None else child(box, "default")) else "☐"
    if choices is not None:
        return _chosen(choices)
    if match := _BUTTON.fullmatch(code):
        return match[1].strip()
    if match := _SYMBOL.match(code):
        number = int(match[1], 0) if match[1].lower().startswith("0x") else int(match[1].lstrip("0") or "0")
        return chr(number) if 32 <= number < 0xD800 else ""
    if match := _EQUATION.fullmatch(code):
        return f" {' '.join(_SWITCH.sub(' ', match[1]).split())} "
    return ""


def _chosen(choices: etree._Element) -> str:
    """The entry of a list that is shown."""
    entries = [attribute(one, "val") for one in choices if local(one) == "listEntry"]
    result = child(choices, "result")
    place = 0 if result is None else number_of(attribute(result, "val"))
    return entries[place] if 0 <= place < len(entries) else ""
