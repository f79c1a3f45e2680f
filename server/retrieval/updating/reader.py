"""Reads files in a process of its own, so that none of them can stall the server or take it down.

One worker process is kept warm. A file that takes longer or more memory than the settings allow ends it, gets its
reason, and the next file finds a new one. Small text and Markdown are read here, so that a saved note is searchable at
once.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from server.errors import KnowledgeError
from server.retrieval.loaders import ending, load
from server.retrieval.loaders.document import Document
from server.retrieval.updating.worker import OUT_OF_MEMORY, READY, REPLY, REQUEST, unpacked

log = logging.getLogger("tailor.retrieval")

AT_ONCE: Final = (".md", ".markdown", ".txt")
AT_ONCE_BYTES: Final = 256 * 1024
START_S: Final = 60.0
MAX_REPLY: Final = 768 * 1024 * 1024
TRIES: Final = 2   # with a file on which the worker ended by itself: it may have been ended from outside
_KEPT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")

# Imports what reading needs alone: the part's own __init__ would bring the whole index with it. numpy, which openpyxl
# imports where it is, would take memory for nothing.
_BOOT = """
import sys, types
root, seconds, megabytes = sys.argv[1:]
sys.path.insert(0, root)
part = types.ModuleType("server.retrieval")
part.__path__ = [root + "/server/retrieval"]
sys.modules["server.retrieval"] = part
sys.modules["numpy"] = None
from server.retrieval.updating.worker import main
main(float(seconds), int(megabytes))
"""


class ReaderClosed(Exception):
    """It was closed, before or while the file was read."""


class WorkerMissing(Exception):
    """No worker could be started: that says nothing of the file."""


class _Ended(Exception):
    """The worker ended. `reason` when the file is known to be why; `started` is False when it never came up."""

    def __init__(self, how: str, reason: str = "", *, started: bool = True) -> None:
        super().__init__(how)
        self.how = how
        self.reason = reason
        self.started = started


class Reader:
    """`read` is for one thread at a time; `open` and `close` are safe from any."""

    def __init__(self, seconds: float, megabytes: int) -> None:
        self._seconds = seconds
        self._megabytes = megabytes
        self._worker: _Worker | None = None
        self._closed = False
        self._lock = threading.Lock()

    def open(self) -> None:
        """Lets it read again after `close`; the worker is started when a file needs it, or is expected to."""
        with self._lock:
            self._closed = False

    def close(self) -> None:
        """Ends the worker, in the middle of a file too."""
        with self._lock:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    def read(self, name: str, data: bytes) -> Document:
        """The document in `data`; `name` gives the format. Raises KnowledgeError, ReaderClosed, WorkerMissing."""
        if ending(name) in AT_ONCE and len(data) <= AT_ONCE_BYTES:
            return load(name, data)
        how = ""
        for _ in range(TRIES):
            worker = self._warm()
            try:
                answer = worker.ask(name, data)
            except _Ended as ended:
                how = ended.how
                self._drop(worker)
                if not ended.started:
                    raise WorkerMissing(f"the process that reads files does not start: {how}") from ended
                self._warm()
                if ended.reason:
                    raise KnowledgeError(ended.reason) from ended
                log.warning("the process that read %s ended (%s)", name, how)
                continue
            if answer.get("spent") or not worker.alive:
                self._drop(worker)
                self._warm()
            return _document(answer)
        raise KnowledgeError(f"reading it crashed {TRIES} times ({how}): the file is damaged or hostile")

    def expect(self, names: Iterable[str]) -> None:
        """Begins the worker if files of such names need it, so that the next one does not wait for its start."""
        if all(ending(name) in AT_ONCE for name in names):
            return
        with suppress(ReaderClosed, WorkerMissing):  # whoever reads the next file is told
            self._warm()

    def _warm(self) -> _Worker:
        """The worker, begun if there is none: it comes up while the caller goes on."""
        with self._lock:
            if self._closed:
                raise ReaderClosed
            if self._worker is None:
                self._worker = _Worker(self._seconds, self._megabytes)
            return self._worker

    def _drop(self, worker: _Worker) -> None:
        with self._lock:
            if self._worker is worker:
                self._worker = None
            closed = self._closed
        worker.end()
        if closed:
            raise ReaderClosed


class _Worker:
    """One process. `ask` is for one thread at a time; `end` is safe from any."""

    def __init__(self, seconds: float, megabytes: int) -> None:
        self._seconds = seconds
        self._megabytes = megabytes
        self._lock = threading.Lock()
        self._ready = False
        self._late = False
        root = Path(__file__).parents[3]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, str(root), str(seconds), str(megabytes)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True,
                env={key: os.environ[key] for key in _KEPT if key in os.environ} | {"MALLOC_ARENA_MAX": "1"},
            )  # fmt: skip
        except OSError as error:
            raise WorkerMissing(f"the process that reads files does not start: {error}") from error
        self._finish = weakref.finalize(self, _finish, self._process)

    @property
    def alive(self) -> bool:
        return not self._late and self._process.poll() is None

    def ask(self, name: str, data: bytes) -> dict[str, object]:
        """Raises _Ended."""
        with self._lock:
            if not self._ready:
                self._ready = bool(self._exchange((), START_S, READY).get(READY))
            encoded = name.encode("utf-8", "surrogateescape")
            request = (REQUEST.pack(len(encoded), len(data)), encoded, data)
            return self._exchange(request, self._seconds, name)

    def end(self) -> None:
        """Whoever waits for an answer gets _Ended."""
        with suppress(OSError):
            self._process.kill()
        with self._lock:
            self._finish()

    def _exchange(self, request: tuple[bytes, ...], seconds: float, what: str) -> dict[str, object]:
        timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        timer.start()
        try:
            for part in request:
                self._write(part)
            (size,) = REPLY.unpack(self._exactly(REPLY.size))
            if size > MAX_REPLY:
                raise ValueError(f"a reply of {size} bytes")
            answer = json.loads(self._exactly(size).decode("utf-8", "surrogatepass"))
            if not isinstance(answer, dict):
                raise ValueError("a reply of another kind")
            return answer
        except (OSError, EOFError, ValueError) as error:
            raise self._ended(error) from error
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._late = True
        with suppress(OSError):
            self._process.kill()

    def _ended(self, error: Exception) -> _Ended:
        with suppress(OSError):
            self._process.kill()  # does nothing where it has ended
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if self._late:
            how = "too late"
            reason = (
                f"took longer than {self._seconds:g} s to read: split the file, or raise retrieval.parse_seconds and "
                "rebuild the index"
            )
        elif code == OUT_OF_MEMORY:
            how = "out of memory"
            reason = (
                f"needs more than {self._megabytes} MB of memory to be read: split the file, or raise "
                "retrieval.parse_mb and rebuild the index"
            )
        else:
            how, reason = how if isinstance(error, EOFError | OSError) else str(error), ""
        return _Ended(how, reason, started=self._ready)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[_pipe(self._process.stdin).write(view) :]

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = _pipe(self._process.stdout).read(min(size - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise EOFError
    return pipe


def _finish(process: subprocess.Popen[bytes]) -> None:
    """Leaves neither a process nor a pipe behind."""
    with suppress(OSError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _document(answer: dict[str, object]) -> Document:
    if "error" in answer:
        raise KnowledgeError(str(answer["error"]))
    try:
        return unpacked(answer)
    except (LookupError, TypeError, ValueError) as error:
        raise KnowledgeError("reading it gave no document: the file is damaged or hostile") from error
