"""The parts of an Office file: XML without entities, and what each part refers to.

Elements are known by their local names, since the strict and the transitional form of the format differ in
namespaces alone. Nothing outside of the file is opened. Knows nothing of what the parts mean.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from lxml import etree

from server.errors import KnowledgeError
from server.retrieval.loaders.office_zip import check_package

_SAFE: Final = {
    "resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False,
    "remove_comments": True, "remove_pis": True,
}  # fmt: skip
_ENTITIES = "the file is damaged: its XML declares a document type, which Office files never do"


def local(node: etree._Element) -> str:
    """The tag without its namespace."""
    return str(node.tag).rpartition("}")[2]


def attribute(node: etree._Element, name: str, default: str = "") -> str:
    """By local name, in whatever namespace it is."""
    value = node.get(name)
    if value is not None:
        return str(value)
    return next((str(value) for key, value in node.attrib.items() if str(key).rpartition("}")[2] == name), default)


def child(node: etree._Element | None, *path: str) -> etree._Element | None:
    """The first child of that name, of which the first child of the next name, …"""
    for name in path:
        if node is None:
            return None
        node = next((one for one in node if local(one) == name), None)
    return node


def every(node: etree._Element, name: str) -> Iterator[etree._Element]:
    """All below, in the order of the document."""
    yield from node.iter(f"{{*}}{name}")


def number_of(text: str, default: int = 0) -> int:
    """A whole number as files have them, of a sensible size."""
    try:
        return max(-(2**31), min(int(text[:12]), 2**31))
    except ValueError:
        return default


def is_on(node: etree._Element | None) -> bool:
    """A switch such as <w:vanish/>: there, and not switched off."""
    return node is not None and attribute(node, "val", "true") not in ("0", "false", "off", "none")


@dataclass(frozen=True, slots=True)
class Relation:
    kind: str  # the last word of its type: "footnotes", "chart", …
    target: str  # the name of a part; "" where it leads out of the file


def target_of(relations: dict[str, Relation], node: etree._Element, name: str = "id") -> str:
    """The part that a reference such as r:id="…" leads to; "" for none."""
    references = (str(value) for key, value in node.attrib.items() if str(key).endswith(f"}}{name}"))
    relation = relations.get(next(references, ""))
    return relation.target if relation else ""


class Package:
    """One file. Raises KnowledgeError for what is none."""

    def __init__(self, data: bytes, ending: str) -> None:
        check_package(data, ending)
        self._zip = zipfile.ZipFile(io.BytesIO(data))
        self._entries = {_normal(entry.filename): entry for entry in self._zip.infolist()}
        self._relations: dict[str, dict[str, Relation]] = {}
        self._taken: set[str] = set()

    def has(self, part: str) -> bool:
        return _normal(part) in self._entries

    def read(self, part: str) -> bytes:
        """b"" where there is no such part."""
        entry = self._entries.get(_normal(part))
        return self._zip.read(entry) if entry else b""

    def xml(self, part: str) -> etree._Element | None:
        """The part's root; None where there is no such part."""
        if not self.has(part):
            return None
        root = etree.fromstring(self.read(part), etree.XMLParser(**_SAFE))
        _refuse_entities(root)
        return root

    def take(self, part: str) -> etree._Element | None:
        """Like `xml` for a part that is shown in one place: None when it was taken before."""
        if part in self._taken:
            return None
        self._taken.add(part)
        return self.xml(part)

    def elements(self, part: str, *names: str) -> Iterator[etree._Element]:
        """Elements of these names as they end, which are forgotten after; for parts too large for a tree."""
        entry = self._entries.get(_normal(part))
        if entry is None:
            return
        tags = tuple(f"{{*}}{name}" for name in names)
        with self._zip.open(entry) as file:
            first = True
            for _, node in etree.iterparse(file, events=("end",), tag=tags, **_SAFE):
                if first:
                    _refuse_entities(node)
                    first = False
                yield node
                node.clear()
                parent = node.getparent()
                while parent is not None and node.getprevious() is not None:
                    del parent[0]

    def relations(self, part: str) -> dict[str, Relation]:
        """By their ids."""
        found = self._relations.get(part)
        if found is None:
            folder, _, name = part.rpartition("/")
            root = self.xml(f"{folder}/_rels/{name}.rels" if folder else f"_rels/{name}.rels")
            found = {} if root is None else {attribute(one, "Id"): _relation(one, folder) for one in root}
            self._relations[part] = found
        return found

    def related(self, part: str, *kinds: str) -> list[str]:
        """The parts that this one refers to in one of these ways."""
        return [one.target for one in self.relations(part).values() if one.kind in kinds and self.has(one.target)]

    def main_part(self) -> str:
        """Raises KnowledgeError where there is none."""
        for part in self.related("", "officeDocument"):
            return part
        raise KnowledgeError("the file is damaged: it has no main part")


def _relation(node: etree._Element, folder: str) -> Relation:
    kind = attribute(node, "Type").rpartition("/")[2]
    if attribute(node, "TargetMode") == "External":
        return Relation(kind, "")
    target = unquote(attribute(node, "Target"))
    return Relation(kind, posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/"))


def _normal(part: str) -> str:
    """Names of parts are compared without case."""
    return part.replace("\\", "/").lstrip("/").lower()


def _refuse_entities(node: etree._Element) -> None:
    if node.getroottree().docinfo.internalDTD is not None:
        raise KnowledgeError(_ENTITIES)
