"""Reads files in a process of its own, so that none of them can stall or crash the server.

One worker process is kept warm. A file that takes longer or more memory than the settings allow ends it and
fails with that reason, and the next file gets a new worker. Small text and Markdown are read in this process, so that a
saved note is searchable at once. Knows nothing of the index.
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
from server.retrieval.loaders import ending, is_container, load
from server.retrieval.loaders.document import Document
from server.retrieval.updating.worker import OUT_OF_MEMORY, READY, REPLY, REQUEST, unpack_document

log = logging.getLogger("tailor.retrieval")

READ_INLINE: Final = (".md", ".markdown", ".txt")
READ_INLINE_BYTES: Final = 256 * 1024
START_TIMEOUT_S: Final = 60.0
MAX_REPLY: Final = 768 * 1024 * 1024
ATTEMPTS: Final = 2  # with a file on which the worker ended by itself: it may have been ended from outside
_PASSED_ENV: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")

# Imports only what reading needs: the part's own __init__ would import the whole index. numpy, which libraries import
# where it is installed, would cost memory for nothing.
_BOOT_SCRIPT = """
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


def is_read_inline(name: str, data: bytes) -> bool:
    """It needs no worker."""
    return ending(name) in READ_INLINE and len(data) <= READ_INLINE_BYTES and not is_container(data)


class ReaderClosed(Exception):
    """It was closed, before or while the file was read."""


class WorkerUnavailable(Exception):
    """No worker could be started: that is no error of the file."""


class _WorkerEnded(Exception):
    """The worker ended. `reason` is set where the file is the cause; `started` is False where it never came up."""

    def __init__(self, cause: str, reason: str = "", *, started: bool = True) -> None:
        super().__init__(cause)
        self.cause = cause
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
        """Allows reading again after `close`; the worker is started when a file needs it, or by `prestart`."""
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
        if is_read_inline(name, data):
            return load(name, data)
        cause = ""
        for _ in range(ATTEMPTS):
            worker = self._running_worker()
            try:
                reply = worker.ask(name, data)
            except _WorkerEnded as ended:
                cause = ended.cause
                self._discard(worker)
                if not ended.started:
                    raise WorkerUnavailable(f"the process that reads files does not start: {cause}") from ended
                self._running_worker()
                if ended.reason:
                    raise KnowledgeError(ended.reason) from ended
                log.warning("the process that read %s ended (%s)", name, cause)
                continue
            if reply.get("spent") or not worker.alive:
                self._discard(worker)
                self._running_worker()
            return _document(reply)
        raise KnowledgeError(f"reading it crashed {ATTEMPTS} times ({cause}): the file is damaged or hostile")

    def prestart(self, names: Iterable[str]) -> None:
        """Starts the worker if files of such names need it, so that the next file does not wait for its start."""
        if all(ending(name) in READ_INLINE for name in names):
            return
        with suppress(ReaderClosed, WorkerUnavailable):  # the next `read` raises it
            self._running_worker()

    def _running_worker(self) -> _Worker:
        """The worker, started if there is none: it comes up while the caller goes on."""
        with self._lock:
            if self._closed:
                raise ReaderClosed
            if self._worker is None:
                self._worker = _Worker(self._seconds, self._megabytes)
            return self._worker

    def _discard(self, worker: _Worker) -> None:
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
        self._timed_out = False
        root = Path(__file__).parents[3]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT_SCRIPT, str(root), str(seconds), str(megabytes)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True,
                env={key: os.environ[key] for key in _PASSED_ENV if key in os.environ} | {"MALLOC_ARENA_MAX": "1"},
            )  # fmt: skip
        except OSError as error:
            raise WorkerUnavailable(f"the process that reads files does not start: {error}") from error
        self._reap = weakref.finalize(self, _reap, self._process)

    @property
    def alive(self) -> bool:
        return not self._timed_out and self._process.poll() is None

    def ask(self, name: str, data: bytes) -> dict[str, object]:
        """Raises _Ended."""
        with self._lock:
            if not self._ready:
                self._ready = bool(self._exchange((), START_TIMEOUT_S, READY).get(READY))
            encoded = name.encode("utf-8", "surrogateescape")
            request = (REQUEST.pack(len(encoded), len(data)), encoded, data)
            return self._exchange(request, self._seconds, name)

    def end(self) -> None:
        """Whoever waits for a reply gets _WorkerEnded."""
        with suppress(OSError):
            self._process.kill()
        with self._lock:
            self._reap()

    def _exchange(self, request: tuple[bytes, ...], seconds: float, what: str) -> dict[str, object]:
        timer = threading.Timer(seconds, self._time_out)
        timer.daemon = True
        timer.start()
        try:
            for part in request:
                self._write(part)
            (size,) = REPLY.unpack(self._read_exactly(REPLY.size))
            if size > MAX_REPLY:
                raise ValueError(f"a reply of {size} bytes")
            reply = json.loads(self._read_exactly(size).decode("utf-8", "surrogatepass"))
            if not isinstance(reply, dict):
                raise ValueError("a reply of another kind")
            return reply
        except (OSError, EOFError, ValueError) as error:
            raise self._ended(error) from error
        finally:
            timer.cancel()

    def _time_out(self) -> None:
        self._timed_out = True
        with suppress(OSError):
            self._process.kill()

    def _ended(self, error: Exception) -> _WorkerEnded:
        with suppress(OSError):
            self._process.kill()  # does nothing where it has ended
        code = self._process.wait()
        cause = f"signal {-code}" if code < 0 else f"exit code {code}"
        if self._timed_out:
            cause = "too late"
            reason = (
                f"took longer than {self._seconds:g} s to read: split the file, or raise retrieval.parse_seconds and "
                "rebuild the index"
            )
        elif code == OUT_OF_MEMORY:
            cause = "out of memory"
            reason = (
                f"needs more than {self._megabytes} MB of memory to be read: split the file, or raise "
                "retrieval.parse_mb and rebuild the index"
            )
        else:
            cause, reason = cause if isinstance(error, EOFError | OSError) else str(error), ""
        return _WorkerEnded(cause, reason, started=self._ready)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[_open_pipe(self._process.stdin).write(view) :]

    def _read_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = _open_pipe(self._process.stdout).read(min(size - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)


def _open_pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise EOFError
    return pipe


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Leaves neither a process nor a pipe behind."""
    with suppress(OSError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _document(reply: dict[str, object]) -> Document:
    if "error" in reply:
        raise KnowledgeError(str(reply["error"]))
    try:
        return unpack_document(reply)
    except (LookupError, TypeError, ValueError) as error:
        raise KnowledgeError("reading it gave no document: the file is damaged or hostile") from error
