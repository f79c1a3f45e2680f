"""Text in pictures, by the program Tesseract where it is installed, in the languages whose data are installed.

Each file gets so many seconds. A picture goes to the program, and its text comes back, through pipes: no file is
written. Knows nothing of files and their formats.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from functools import cache
from typing import Final

INSTALL: Final = (
    "install Tesseract (Debian, Ubuntu: apt-get install tesseract-ocr tesseract-ocr-kor; macOS: brew install tesseract "
    "tesseract-lang)"
)
MAX_PIXELS: Final = 16_000_000  # of a picture that it is given
MAX_LANGUAGES: Final = 4  # with more it is slow and no better
PICTURE_SECONDS: Final = 30.0
LEAST_SECONDS: Final = 1.0
SHARE: Final = 2 / 3  # of the time for a file
_PROGRAM: Final = "tesseract"
_FIRST: Final = ("kor", "eng")
_NO_LANGUAGE: Final = ("osd", "equ")
_ANY_LAYOUT: Final = "3"  # finds columns, and loses lines of Korean
_ONE_COLUMN: Final = "4"  # finds every line, and reads across columns
_FEW_LETTERS: Final = 100
_limits = {"seconds": 60.0}


def limit_seconds(seconds: float) -> None:
    """What reading a whole file may take; text recognition ends before."""
    _limits["seconds"] = seconds


@cache
def is_available() -> bool:
    return bool(languages())


@cache
def languages() -> tuple[str, ...]:
    """Korean and English first."""
    program = shutil.which(_PROGRAM)
    if program is None:
        return ()
    try:
        listed = subprocess.run([program, "--list-langs"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    found = {line.strip() for line in listed.stdout.splitlines() if line.strip().replace("_", "").isalpha()}
    found -= set(_NO_LANGUAGE)
    first = [one for one in _FIRST if one in found]
    return tuple([*first, *sorted(found.difference(first))][:MAX_LANGUAGES])


class Recognition:
    """Of the pictures of one file."""

    def __init__(self) -> None:
        self._ends = time.monotonic() + SHARE * _limits["seconds"]

    @property
    def is_over(self) -> bool:
        """There is no time left for another picture."""
        return self._ends - time.monotonic() < LEAST_SECONDS

    def read(self, width: int, height: int, gray: bytes) -> str | None:
        """The text of a picture of one byte a pixel; None where there is no time left, or the program failed."""
        picture = b"P5 %d %d 255\n" % (width, height) + gray
        text = self._run(picture, _ANY_LAYOUT)
        if text is None or not ("kor" in languages() and (_has_hangul(text) or _letters(text) < _FEW_LETTERS)):
            return text
        other = self._run(picture, _ONE_COLUMN)
        return other if other is not None and _letters(other) > _letters(text) else text

    def _run(self, picture: bytes, layout: str) -> str | None:
        program, seconds = shutil.which(_PROGRAM), min(PICTURE_SECONDS, self._ends - time.monotonic())
        if program is None or seconds < LEAST_SECONDS:
            return None
        command = [program, "stdin", "stdout", "-l", "+".join(languages()), "--psm", layout]
        try:
            done = _run_bounded(command, picture, seconds)
        except (OSError, subprocess.SubprocessError):
            return None
        return None if done is None else _tidied(done.decode("utf-8", "ignore"))


def _run_bounded(command: list[str], picture: bytes, seconds: float) -> bytes | None:
    """Should this process be killed meanwhile, the program ends by itself after as many seconds of work."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_THREAD_LIMIT": "1"},  # its threads wait for each other more than they work
    ) as process:  # fmt: skip
        with suppress(ImportError, AttributeError, OSError, ValueError):  # not on every system
            import resource

            whole = int(seconds) + 1
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (whole, whole))
        try:
            out, _ = process.communicate(picture, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return out if process.returncode == 0 else None


def _has_hangul(text: str) -> bool:
    return any("가" <= char <= "힣" for char in text)


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


def _tidied(text: str) -> str:
    """Without lines of marks only, which it sees in lines and shades."""
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return "\n".join(line for line in lines if not line or _letters(line))
