"""A library's deprecation fails the test whose code called what is deprecated, and is only shown where another
library called it: that cannot be changed here.

Registered by `conftest.py`. `warnings` calls `showwarning` while the caller's frames are still there, so the one who
called is the first frame outside of the library that warns and of what stands between two callers (torch's
`Module.__call__`, decorators, `functools`).
"""

from __future__ import annotations

import sys
import sysconfig
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
OURS = tuple(str(ROOT / folder) + "/" for folder in ("server", "tests", "bench"))
LIBRARIES = tuple(sysconfig.get_path(name) + "/" for name in ("purelib", "platlib"))
STANDARD = sysconfig.get_path("stdlib") + "/"
BETWEEN = ("torch/nn/modules/", "torch/utils/_contextlib.py", "torch/_dynamo/")

DEPRECATIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def library_of(file: str) -> str:
    """The first folder or file below site-packages; '' for files elsewhere."""
    for root in LIBRARIES:
        if file.startswith(root):
            return file.removeprefix(root).split("/")[0]
    return ""


def caller(frame: FrameType | None) -> tuple[str, int]:
    """File and line of who called the library that warns, from the frame that warned on; ('', 0) where nobody did."""
    warner = None
    while frame is not None:
        file = frame.f_code.co_filename
        library = library_of(file)
        passed_on = any(part in file for part in BETWEEN) or (file.startswith(STANDARD) and not library)
        if file.startswith(OURS) and file != __file__:
            return file, frame.f_lineno
        if library and not passed_on:
            warner = warner or library
            if library != warner:
                return file, frame.f_lineno
        frame = frame.f_back
    return "", 0


@contextmanager
def ours_raised() -> Iterator[None]:
    """While it holds, a deprecation of ours is raised; any other warning goes where it went before."""
    record, before = warnings._showwarnmsg_impl, warnings.showwarning  # type: ignore[attr-defined]

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, DEPRECATIONS):
            file, line = caller(sys._getframe(1))
            if file.startswith(OURS):
                raise category(f"{Path(file).relative_to(ROOT)}:{line} calls what is deprecated: {message}")
        record(warnings.WarningMessage(message, category, *place))

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, Any, Any]:
    """Inside of pytest's own catching of warnings, which covers a test with its fixtures."""
    with ours_raised():
        return (yield)
