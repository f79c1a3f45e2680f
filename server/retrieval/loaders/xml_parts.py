"""XML parts of zipped formats (.hwpx, .odt, .epub): checked, then read as trees without namespaces' prefixes."""

from __future__ import annotations

import io
import zipfile
from xml.etree import ElementTree

from server.errors import KnowledgeError
from server.retrieval.loaders.office.package import attribute, local
from server.retrieval.loaders.office_zip import check_package

__all__ = ["Package", "attribute", "local", "parsed"]


class Package:
    """Raises KnowledgeError for what is no such ZIP, has a password or unpacks to too much."""

    def __init__(self, data: bytes, ending: str) -> None:
        check_package(data, ending)
        self._archive = zipfile.ZipFile(io.BytesIO(data))
        self.names = self._archive.namelist()

    def read(self, name: str) -> bytes:
        """Its bytes; none where there is no such part. Names lead to parts only, never to files."""
        try:
            return self._archive.read(name)
        except KeyError:
            return b""

    def tree(self, name: str) -> ElementTree.Element | None:
        data = self.read(name)
        return parsed(data) if data.strip() else None


def parsed(data: bytes) -> ElementTree.Element:
    """Entities of its own could unfold to anything, and none of these formats needs them."""
    if b"<!ENTITY" in data or "<!ENTITY".encode("utf-16-le") in data or "<!ENTITY".encode("utf-16-be") in data:
        raise KnowledgeError("the file is damaged: its XML defines entities")
    return ElementTree.fromstring(data)
