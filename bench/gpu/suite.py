"""The tests that need a card: pytest's own run of what is marked `gpu`, in a process of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from bench import peers
from bench.context import ROOT, Bench
from bench.figure import Bound, Figure, Measure, Reading, Round, Unavailable

_RUN_S = 1800.0


@dataclass(frozen=True)
class Counts:
    passed: int
    failed: int  # or broken before they began
    skipped: int


def counts(report: Path) -> Counts:
    """Of pytest's report in JUnit's form. Raises ValueError where it cannot be read."""
    try:
        suites = list(ElementTree.parse(report).iter("testsuite"))
    except (OSError, ElementTree.ParseError) as error:
        raise ValueError(f"pytest left no report that can be read: {error}") from error

    def total(name: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites)

    failed, skipped = total("failures") + total("errors"), total("skipped")
    return Counts(total("tests") - failed - skipped, failed, skipped)


@asynccontextmanager
async def marked(bench: Bench, *, tests: Path = ROOT / "tests") -> AsyncIterator[Round]:
    """`tests`: the folder they are in. Raises Unavailable without pytest."""
    if importlib.util.find_spec("pytest") is None:
        raise Unavailable("pytest is not installed: `make bench` installs it, or pip install -e '.[dev]'")

    async def one_round(number: int) -> Mapping[str, Reading]:
        report, log = bench.folder / "gpu-tests.xml", bench.folder / "gpu-tests.log"
        command = [
            sys.executable, "-m", "pytest", str(tests), "-m", "gpu", "-p", "no:cacheprovider", "-rfEs",
            f"--junitxml={report}",
        ]  # fmt: skip
        process = await peers.spawn(bench, command, log)
        try:
            await asyncio.wait_for(process.wait(), _RUN_S)
        finally:
            await peers.stop(process)
        words = peers.last_words(log, 40)
        bench.report(words)
        try:
            found = counts(report)
        except ValueError as error:
            raise RuntimeError(f"{error}; its last words:\n{words}") from error
        note = words.splitlines()[-1].strip("= ") if words else ""
        return {"failed": Reading(found.failed, note=note), "passed": Reading(found.passed)}

    yield one_round


FIGURE = Figure(
    "cuda-tests",
    (
        Measure("failed", "tests marked `gpu` that fail", "tests", Bound(0, at_most=True)),
        Measure("passed", "the same: that pass", "tests", Bound(1)),
    ),
    partial(marked),
    device="cuda",
    rounds=1,
    gate=True,
)
