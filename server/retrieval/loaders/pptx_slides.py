"""PowerPoint: each slide is a page under its title, with tables, charts, diagrams, the speaker's notes and comments.

Hidden slides are read and called hidden. What stands on every slide, such as a footer, is said with the first. Texts of
layouts and masters are not a slide's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from server.retrieval.loaders.document import MAX_TITLE, BlockKind, Document, DocumentBuilder
from server.retrieval.loaders.office.drawings import keep_one_alternative, paragraph_text
from server.retrieval.loaders.office.package import Package, attribute, child, every, target_of
from server.retrieval.loaders.office.slide_shapes import Shapes, is_shown


def load_pptx(data: bytes) -> Document:
    package = Package(data, ".pptx")
    slides = _Slides(package)
    main = package.main_part()
    root, relations = package.xml(main), package.relations(main)
    if root is not None:
        places = [target_of(relations, node) for node in every(root, "sldId")]
        for number, part in enumerate(places, start=1):
            slides.add(number, part)
    return slides.document()


@dataclass(slots=True)
class _Slides:
    package: Package
    builder: DocumentBuilder = field(default_factory=DocumentBuilder)
    _authors: dict[str, str] | None = None
    _repeated: set[str] = field(default_factory=set)
    _pictures: list[int] = field(default_factory=list)
    _embedded: list[int] = field(default_factory=list)

    def add(self, number: int, part: str) -> None:
        root = self.package.take(part)
        if root is None:
            return
        shapes = self._shapes(root, part)
        path = (shapes.title,) if shapes.title else ()
        if not is_shown(root):
            path = (f"{shapes.title} (hidden slide)".strip(),)
        for text, kind in shapes.texts:
            header = text.split("\n", 1)[0] if kind is BlockKind.TABLE else ""
            self.builder.add(text, path, kind=kind, page=number, header=header)
        if not shapes.texts or len(shapes.title) > MAX_TITLE:
            self.builder.add(shapes.title, path, page=number)  # a slide of a title only keeps its words
        self.builder.add(self._new(shapes.repeated), path, page=number)
        self._add_notes(part, path, number)
        self.builder.add("\n".join(self._comments(part)), (*path, "Comments"), page=number)
        self._pictures += [number] if shapes.pictures else []
        self._embedded += [number] if shapes.embedded else []

    def _shapes(self, root: etree._Element, part: str) -> Shapes:
        keep_one_alternative(root)
        shapes, tree = Shapes(self.package, part), child(root, "cSld", "spTree")
        if tree is not None:
            shapes.read(tree)
        return shapes

    def _add_notes(self, part: str, path: tuple[str, ...], number: int) -> None:
        for notes in self.package.related(part, "notesSlide"):
            root = self.package.take(notes)
            if root is not None:
                shapes = self._shapes(root, notes)
                for text, kind in (*shapes.texts, (self._new(shapes.repeated), BlockKind.TEXT)):
                    self.builder.add(text, (*path, "Notes"), kind=kind, page=number)

    def _new(self, texts: list[str]) -> str:
        """Of what stands on every slide, what no slide before had."""
        new = [text for text in dict.fromkeys(texts) if text not in self._repeated]
        self._repeated.update(new)
        return "\n".join(new)

    def _comments(self, part: str) -> Iterator[str]:
        for inner in self.package.related(part, "comments"):
            root = self.package.take(inner)
            for node in root.iter("{*}cm", "{*}reply") if root is not None else ():
                plain, rich = child(node, "text"), child(node, "txBody")
                lines = [] if plain is None else [plain.text or ""]
                lines += [] if rich is None else [paragraph_text(one) for one in every(rich, "p")]
                text, author = " ".join(" ".join(lines).split()), self._author(attribute(node, "authorId"))
                if text:
                    yield f"{author}: {text}" if author else text

    def _author(self, number: str) -> str:
        if self._authors is None:
            self._authors = {}
            for part in self.package.related(self.package.main_part(), "commentAuthors", "authors"):
                root = self.package.take(part)
                for node in root if root is not None else ():
                    self._authors[attribute(node, "id")] = attribute(node, "name")
        return self._authors.get(number, "")

    def document(self) -> Document:
        for what, slides in (("pictures", self._pictures), ("embedded files", self._embedded)):
            if slides:
                shown = ", ".join(map(str, slides[:20])) + (", …" if len(slides) > 20 else "")
                self.builder.omit(f"{what} on {'slide' if len(slides) == 1 else 'slides'} {shown}")
        return self.builder.build()
