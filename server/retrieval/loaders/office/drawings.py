"""DrawingML, which all Office files have: paragraphs of shapes, diagrams, and alternate content.

Knows nothing of pages, slides or sheets.
"""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from server.retrieval.loaders.office.equations import linear
from server.retrieval.loaders.office.package import attribute, child, every, local, number_of

_DROPPED = ("delText", "delInstrText")


def keep_one_alternative(root: etree._Element, *also: str) -> None:
    """Of each thing that is written in several ways for several programs the first stays, else what older programs
    show. Elements named in `also` go, with what is in them."""
    for node in [*every(root, "AlternateContent")]:
        kept = next((one for one in node if local(one) == "Choice" and len(one)), None)
        kept = kept if kept is not None else child(node, "Fallback")
        for one in [*node]:
            if one is not kept:
                node.remove(one)
    for name in (*also, *_DROPPED):
        for node in [*every(root, name)]:
            parent = node.getparent()
            if parent is not None:
                parent.remove(node)


def paragraph_text(paragraph: etree._Element) -> str:
    """Of an <a:p>, without the slide's number, on one line."""
    parts: list[str] = []
    for node in paragraph:
        name = local(node)
        if name in ("oMath", "oMathPara", "m"):
            parts.append(linear(node))
        elif name == "br":
            parts.append(" ")
        elif name == "AlternateContent":
            parts += [paragraph_text(one) for one in node]
        elif not (name == "fld" and attribute(node, "type") == "slidenum"):
            parts += [one.text or "" for one in every(node, "t")]
    return " ".join("".join(parts).split())


def shape_lines(body: etree._Element) -> list[str]:
    """A line a paragraph of a shape or a diagram; those under another one are indented items, numbered where they are
    numbered."""
    lines, counts = [], dict[int, int]()
    for paragraph in every(body, "p"):
        text = paragraph_text(paragraph)
        properties = child(paragraph, "pPr")
        level = 0 if properties is None else min(max(number_of(attribute(properties, "lvl")), 0), 8)
        automatic = child(properties, "buAutoNum")
        if not text:
            continue
        counts = {above: count for above, count in counts.items() if above <= level}
        if automatic is None:
            counts.pop(level, None)
            lines.append(f"{'  ' * level}- {text}" if level else text)
        else:
            counts[level] = counts.get(level, number_of(attribute(automatic, "startAt"), 1) - 1) + 1
            lines.append(f"{'  ' * level}{_mark(counts[level], attribute(automatic, 'type'))} {text}")
    return lines


def _mark(number: int, kind: str) -> str:
    letter = chr(ord("a") + (number - 1) % 26)
    text = letter if kind.startswith("alphaLc") else letter.upper() if kind.startswith("alphaUc") else str(number)
    return f"({text})" if kind.endswith("ParenBoth") else f"{text})" if kind.endswith("ParenR") else f"{text}."


def diagram_lines(data: etree._Element) -> list[str]:
    """The points of a diagram's data, each under the one that it belongs to."""
    points = {
        attribute(one, "modelId"): one
        for one in every(data, "pt")
        if attribute(one, "type", "node") not in ("pres", "parTrans", "sibTrans")
    }
    below: dict[str, list[tuple[int, str]]] = {}
    for link in every(data, "cxn"):
        if attribute(link, "type", "parOf") == "parOf" and attribute(link, "destId") in points:
            order = number_of(attribute(link, "srcOrd"))
            below.setdefault(attribute(link, "srcId"), []).append((order, attribute(link, "destId")))
    roots = [one for one in points if attribute(points[one], "type") == "doc"]
    lines: list[str] = []
    seen: set[str] = set()
    for start in (*roots, *points):  # the last for what hangs nowhere
        todo = [(start, -1 if start in roots else 0)]
        while todo:
            one, depth = todo.pop()
            if one in seen:
                continue
            seen.add(one)
            text = " ".join(_texts(points[one]))
            if text:
                lines.append(f"{'  ' * min(depth, 8)}- {text}")
            todo += [(inner, depth + 1) for _, inner in sorted(below.get(one, ()), reverse=True)]
    return lines


def _texts(point: etree._Element) -> Iterable[str]:
    return filter(None, (paragraph_text(paragraph) for paragraph in every(point, "p")))
