"""The process that reads files for the server: bytes in, documents out, one at a time.

Started by `reader.py`, which kills it when a file takes too long. Sets its own bound on memory, ends when the server's
end of the pipe closes, and is the first that the system ends when memory is short. It opens no file of its own.

A request is the length of a name, the length of its data, then both. A reply is its length and JSON: never anything
that its reader would execute, since a hostile file may have taken this process over. Knows nothing of the index.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from server.errors import KnowledgeError
from server.retrieval.loaders import import_all, load, recognition
from server.retrieval.loaders.document import MAX_OMITTED, MAX_OMITTED_CHARS, Block, BlockKind, Document

REQUEST: Final = struct.Struct("!IQ")
REPLY: Final = struct.Struct("!Q")
OUT_OF_MEMORY: Final = 86  # exit code
READY: Final = "ready"
TIMEOUT_GRACE_S: Final = 5.0  # after the time limit the process ends itself, should the server not end it


def _silence_output() -> None:
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)


def main(seconds: float, megabytes: int) -> None:
    replies = os.dup(1)
    import_all()
    recognition.limit_seconds(seconds)
    _prefer_in_oom_kill()
    memory_limit = _bound_memory(megabytes)
    _silence_output()
    requests: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests,), daemon=True).start()
    _send(replies, json.dumps({READY: True}).encode())
    while True:
        name, data = requests.get()
        with suppress(AttributeError):  # not on every system
            signal.setitimer(signal.ITIMER_REAL, seconds + TIMEOUT_GRACE_S)
        try:
            reply = _reply(name, data, memory_limit)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        with suppress(AttributeError):
            signal.setitimer(signal.ITIMER_REAL, 0)
        del data
        _send(replies, reply)


def _reply(name: str, data: bytes, memory_limit: int) -> bytes:
    try:
        packed = pack_document(load(name, data))
    except KnowledgeError as error:
        if _is_out_of_memory(error):
            raise MemoryError from error
        packed = {"error": str(error)}
    packed["spent"] = bool(memory_limit) and _address_space() > memory_limit // 2
    return json.dumps(packed, ensure_ascii=False).encode("utf-8", "surrogatepass")


def pack_document(document: Document) -> dict[str, object]:
    """As JSON values. Headings and headers, which many blocks share, are stored once."""
    shared: dict[object, int] = {}
    blocks = []
    for block in document.blocks:
        heading = shared.setdefault(block.heading, len(shared))
        header = shared.setdefault(block.header, len(shared))
        blocks.append((block.start, block.end, heading, block.kind.value, block.lines, block.page, header))
    return {
        "text": document.text, "numbered": document.numbered, "shared": list(shared), "blocks": blocks,
        "omitted": document.omitted,
    }  # fmt: skip


def unpack_document(packed: dict[str, object]) -> Document:
    """What `pack_document` gave. Raises LookupError, TypeError, ValueError for anything else."""
    text, shared, blocks, omitted = packed["text"], packed["shared"], packed["blocks"], packed["omitted"]
    if not (
        isinstance(text, str) and isinstance(shared, list) and isinstance(blocks, list) and isinstance(omitted, list)
    ):
        raise TypeError("not a document")
    shared_values = [tuple(map(str, one)) if isinstance(one, list) else str(one) for one in shared]
    unpacked = []
    for start, end, heading, kind, lines, page, header in blocks:
        heading_path, header_text = shared_values[heading], shared_values[header]
        if not (isinstance(heading_path, tuple) and isinstance(header_text, str) and 0 <= start < end <= len(text)):
            raise ValueError("not a block")
        line_range = (int(lines[0]), int(lines[1])) if lines else None
        number = None if page is None else int(page)
        unpacked.append(Block(start, end, heading_path, BlockKind(kind), line_range, number, header_text))
    said = tuple(str(what)[:MAX_OMITTED_CHARS] for what in omitted[:MAX_OMITTED])
    return Document(text, tuple(unpacked), bool(packed["numbered"]), said)


def _is_out_of_memory(error: BaseException | None) -> bool:
    """A library met the memory limit and raised an error of its own."""
    while error is not None:
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


# ── the process ──────────────────────────────────────────────────────────────────────────────────


def _receive(requests: queue.SimpleQueue[tuple[str, bytes]]) -> None:
    """Ends the process with the server, even in the middle of a file."""
    try:
        while True:
            name, data = REQUEST.unpack(_read_exactly(REQUEST.size))
            requests.put((_read_exactly(name).decode(), _read_exactly(data)))
    except EOFError:
        os._exit(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _read_exactly(size: int) -> bytes:
    data = sys.stdin.buffer.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _send(handle: int, reply: bytes) -> None:
    view = memoryview(REPLY.pack(len(reply)) + reply)
    while view:
        view = view[os.write(handle, view) :]


def _prefer_in_oom_kill() -> None:
    """When memory is short the system ends this process, not the server."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _bound_memory(megabytes: int) -> int:
    """Bytes of address space that this process may have from now on; 0 where that cannot be bounded."""
    now = _address_space()
    if not now:
        return 0
    import resource  # not on every system

    memory_limit = now + megabytes * 1024 * 1024
    for kind, limit in ((resource.RLIMIT_AS, memory_limit), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(kind)[1]
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (allowed, allowed))
    return memory_limit


def _address_space() -> int:
    """Bytes of address space; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
