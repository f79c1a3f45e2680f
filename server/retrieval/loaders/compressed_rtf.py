"""Rich Text as Outlook packs it ([MS-OXRTFCP]): a window of 4 KB, and references into it."""

from __future__ import annotations

import struct
from typing import Final

from server.errors import KnowledgeError

MAX_UNPACKED: Final = 64 * 1024 * 1024
_WINDOW: Final = 4096
_BEGIN: Final = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript "
    b"\\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n"
    b"\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)


def unpacked_rtf(data: bytes) -> bytes:
    if len(data) < 16:
        raise KnowledgeError("the message is damaged: its text cannot be unpacked")
    size, kind = struct.unpack_from("<4xI4s", data)
    if kind == b"MELA":
        return data[16 : 16 + size]
    if kind != b"LZFu":
        raise KnowledgeError("the message is damaged: its text cannot be unpacked")
    window = bytearray(_BEGIN.ljust(_WINDOW, b"\0"))
    write, out, at = len(_BEGIN), bytearray(), 16
    while at < len(data) and len(out) < min(size, MAX_UNPACKED):
        flags = data[at]
        at += 1
        for bit in range(8):
            if at >= len(data):
                break
            if not flags >> bit & 1:
                some = data[at : at + 1]
                at += 1
            else:
                reference = int.from_bytes(data[at : at + 2], "big")
                at += 2
                read = reference >> 4
                if read == write:  # the end
                    return bytes(out)
                some = b""
                for _ in range((reference & 15) + 2):
                    byte = window[read]
                    some += bytes([byte])
                    window[write] = byte
                    write, read = (write + 1) % _WINDOW, (read + 1) % _WINDOW
                out += some
                continue
            window[write] = some[0]
            write = (write + 1) % _WINDOW
            out += some
    return bytes(out)
