"""OLE compound files (.hwp, .msg, old Office): their streams by name. Knows nothing of what these hold."""

from __future__ import annotations

import io
import re
from typing import Final

import olefile

from server.errors import KnowledgeError

MAX_UNPACKED: Final = 256 * 1024 * 1024  # bytes of one stream
MAX_STREAMS: Final = 100_000
MAGIC: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class Streams:
    """Raises KnowledgeError for what is no such file."""

    def __init__(self, data: bytes, ending: str) -> None:
        try:
            self._file = olefile.OleFileIO(io.BytesIO(data))
            self.names = ["/".join(path) for path in self._file.listdir()[:MAX_STREAMS]]
        except (OSError, ValueError, IndexError) as error:
            raise KnowledgeError(f"not a {ending} file: it is damaged or something else ({error})") from error

    def read(self, name: str) -> bytes:
        """Its bytes; none where there is no such stream."""
        if not self._file.exists(name):
            return b""
        return bytes(self._file.openstream(name).read())

    def numbered(self, folder: str, name: str) -> list[str]:
        """The streams `folder/name0`, `folder/name1`, … in order."""
        pattern = re.compile(rf"{re.escape(folder)}/{re.escape(name)}(\d{{1,6}})", re.IGNORECASE)
        found = [(int(match[1]), one) for one in self.names if (match := pattern.fullmatch(one))]
        return [one for _, one in sorted(found)]
