"""What Word, Excel and PowerPoint files have in common: a ZIP of XML, checked before it is unpacked."""

from __future__ import annotations

import io
import zipfile
from typing import Final

from server.errors import KnowledgeError

MAX_UNPACKED: Final = 512 * 1024 * 1024
_OLE = b"\xd0\xcf\x11\xe0"
_PROTECTED = "EncryptedPackage".encode("utf-16-le")  # the stream that holds a file with a password
_ENCRYPTED_ENTRY = 0x1


def check_package(data: bytes, ending: str) -> None:
    """`ending` is the format's, with its dot. Raises KnowledgeError for what is no such package, has a password, or
    would unpack to more than MAX_UNPACKED. The sizes in a ZIP's directory bound what is read of it, so a false one does
    no harm."""
    if data.startswith(_OLE):
        if _PROTECTED in data:
            raise KnowledgeError("the file is encrypted with a password: save it without one")
        raise KnowledgeError(f"the file is in an old Office format: save it as {ending}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise KnowledgeError(f"not a {ending} file: it is damaged or something else ({error})") from error
    if any(entry.flag_bits & _ENCRYPTED_ENTRY for entry in entries):
        raise KnowledgeError("the file is a ZIP with a password: save it without one")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_UNPACKED:
        size, limit = unpacked // 1024**2, MAX_UNPACKED // 1024**2
        raise KnowledgeError(f"the file unpacks to {size} MB, the limit is {limit} MB: split it")
