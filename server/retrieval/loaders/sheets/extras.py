"""What lies beside or over the cells of a sheet: comments, named tables, shapes and charts. Knows nothing of rows."""

from __future__ import annotations

from collections.abc import Iterator

from server.retrieval.loaders.office.charts import chart_texts
from server.retrieval.loaders.office.drawings import diagram_lines, keep_one_alternative, shape_lines
from server.retrieval.loaders.office.package import Package, attribute, child, every, local
from server.retrieval.loaders.sheets.rows import Area, area, position
from server.retrieval.loaders.sheets.workbook import rich_text

_NOTICE = "[Threaded comment]"  # a copy for older programs


def named_tables(package: Package, sheet: str) -> list[Area]:
    """Those with a header row."""
    found = []
    for part in package.related(sheet, "table"):
        root = package.xml(part)
        place = None if root is None else area(attribute(root, "ref"))
        if root is not None and place is not None and attribute(root, "headerRowCount", "1") != "0":
            found.append(place)
    return found


def comments(package: Package, sheet: str, book: str) -> dict[int, list[str]]:
    """By row: "Comment on B3 by Kim: …"."""
    people = {
        attribute(one, "id"): attribute(one, "displayName")
        for part in package.related(book, "person")
        if (root := package.take(part)) is not None
        for one in every(root, "person")
    }
    found: dict[int, list[str]] = {}
    for part in package.related(sheet, "threadedComment"):
        root = package.take(part)
        for one in every(root, "threadedComment") if root is not None else ():
            text = child(one, "text")
            author = people.get(attribute(one, "personId"), "")
            _note(found, attribute(one, "ref"), author, "" if text is None else text.text or "")
    for part in package.related(sheet, "comments"):
        root = package.take(part)
        authors = [one.text or "" for one in every(root, "author")] if root is not None else []
        for one in every(root, "comment") if root is not None else ():
            text, number = child(one, "text"), attribute(one, "authorId")
            author = authors[int(number)] if number.isdecimal() and int(number[:9]) < len(authors) else ""
            said = "" if text is None else rich_text(text)
            if not said.startswith(_NOTICE):
                _note(found, attribute(one, "ref"), author, said)
    return found


def _note(found: dict[int, list[str]], reference: str, author: str, text: str) -> None:
    said, by = " ".join(text.split()), " ".join(author.split())
    if by and said.startswith(f"{by}:"):  # older programs write the name into the text
        said = said[len(by) + 1 :].strip()
    if not said or by.startswith("tc={"):
        by = ""
    place = position(reference)
    if said:
        line = f"Comment on {reference}{f' by {by}' if by else ''}: {said}"
        found.setdefault(place[0] if place else 0, []).append(line)


def drawn(package: Package, sheet: str) -> Iterator[tuple[str, bool]]:
    """Texts of shapes, diagrams and charts; whether each is a table."""
    for part in package.related(sheet, "drawing"):
        root = package.take(part)
        if root is None:
            continue
        keep_one_alternative(root)
        for body in every(root, "txBody"):
            yield "\n".join(shape_lines(body)), False
        for kind in ("diagramData", "chart", "chartEx"):
            for inner in package.related(part, kind):
                if kind != "diagramData":
                    yield from chart_texts(package, inner)
                elif (data := package.take(inner)) is not None:
                    yield "\n".join(diagram_lines(data)), False


def pictures(package: Package, sheet: str) -> int:
    count = 0
    for part in package.related(sheet, "drawing"):
        root = package.xml(part)
        count += 0 if root is None else sum(local(one) == "pic" for one in every(root, "pic"))
    return count
