"""Office Math to one line of text: (a+b)/2, x^2, √(x). Knows nothing of the file around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from lxml import etree

from server.retrieval.loaders.office.package import attribute, child, local

_PROPERTIES: Final = ("Pr", "rPr", "ctrlPr", "argPr")


def linear(node: etree._Element) -> str:
    """What a reader sees, in the order of reading."""
    if local(node) == "t":
        return node.text or ""
    shape = _SHAPES.get(local(node))
    return shape(node) if shape else _joined(node)


def _joined(node: etree._Element) -> str:
    return "".join(linear(one) for one in node if not local(one).endswith(_PROPERTIES))


def _part(node: etree._Element, name: str) -> str:
    found = child(node, name)
    return "" if found is None else _joined(found).strip()


def _grouped(text: str) -> str:
    return text if len(text) <= 1 or text.isalnum() else f"({text})"


def _property(node: etree._Element, name: str, default: str) -> str:
    found = child(node, f"{local(node)}Pr", name)
    return default if found is None else attribute(found, "val", "")


def _fraction(node: etree._Element) -> str:
    return f"{_grouped(_part(node, 'num'))}/{_grouped(_part(node, 'den'))}"


def _script(node: etree._Element) -> str:
    below, above = _part(node, "sub"), _part(node, "sup")
    return _part(node, "e") + (f"_{_grouped(below)}" if below else "") + (f"^{_grouped(above)}" if above else "")


def _root(node: etree._Element) -> str:
    degree = _part(node, "deg")
    return f"{degree}√({_part(node, 'e')})"


def _big_operator(node: etree._Element) -> str:
    below, above = _part(node, "sub"), _part(node, "sup")
    sign = _property(node, "chr", "∫")
    limits = (f"_{_grouped(below)}" if below else "") + (f"^{_grouped(above)}" if above else "")
    return f"{sign}{limits} {_part(node, 'e')}"


def _delimited(node: etree._Element) -> str:
    inside = _property(node, "sepChr", "|").join(_joined(one).strip() for one in _named(node, "e"))
    return f"{_property(node, 'begChr', '(')}{inside}{_property(node, 'endChr', ')')}"


def _matrix(node: etree._Element) -> str:
    if child(node, "mr") is None:  # what holds an equation on a slide has the same name
        return _joined(node)
    rows = (", ".join(_joined(cell).strip() for cell in _named(row, "e")) for row in _named(node, "mr"))
    return f"[{'; '.join(rows)}]"


def _lines(node: etree._Element) -> str:
    return "; ".join(_joined(one).strip() for one in _named(node, "e"))


def _function(node: etree._Element) -> str:
    return f"{_part(node, 'fName')} {_part(node, 'e')}"


def _limit(sign: str) -> Callable[[etree._Element], str]:
    return lambda node: f"{_part(node, 'e')}{sign}{_grouped(_part(node, 'lim'))}"


def _accent(node: etree._Element) -> str:
    return f"{_part(node, 'e')}{_property(node, 'chr', '̂')}"


def _named(node: etree._Element, name: str) -> Iterable[etree._Element]:
    return (one for one in node if local(one) == name)


_SHAPES: Final[dict[str, Callable[[etree._Element], str]]] = {
    "f": _fraction, "sSub": _script, "sSup": _script, "sSubSup": _script, "sPre": _script, "rad": _root,
    "nary": _big_operator, "d": _delimited, "m": _matrix, "eqArr": _lines, "func": _function,
    "limLow": _limit("_"), "limUpp": _limit("^"), "acc": _accent,
}  # fmt: skip
