"""Memory of the model comes in huge pages where the system gives them to those who ask."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASKED = Path("/sys/kernel/mm/transparent_hugepage/enabled")

SCRIPT = """
import {first}
import torch
tensor = torch.ones(8 << 20)
print(open("/proc/self/smaps_rollup").read())
"""


def started(first: str, **environment: str) -> subprocess.Popen[str]:
    """A process that imports `first` and then makes a tensor of 32 MiB."""
    inherited = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(first=first)],
        cwd=ROOT,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def huge(process: subprocess.Popen[str]) -> int:
    """kB of huge pages that it has when it ends."""
    output, errors = process.communicate(timeout=300)
    found = re.search(r"AnonHugePages:\s+(\d+) kB", output)
    assert found, errors
    return int(found[1])


@pytest.mark.slow
@pytest.mark.skipif(
    not ASKED.is_file() or "[madvise]" not in ASKED.read_text(), reason="huge pages are not given to those who ask"
)
@pytest.mark.parametrize("first", ["server.cli.commands", "server.engine", "bench.engine"])
def test_large_tensors_come_in_huge_pages_unless_they_are_unwanted(first: str) -> None:
    wanted, unwanted = started(first), started(first, THP_MEM_ALLOC_ENABLE="0")  # side by side: each imports torch
    assert huge(wanted) >= 16 << 10
    assert huge(unwanted) == 0
