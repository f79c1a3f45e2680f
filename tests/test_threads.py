"""The model's thread alone computes in parallel: a second team of threads in the process halves its speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SCRIPT = """
import asyncio, os, sys, threading
import torch
from pathlib import Path
from server.config import EngineSettings, ModelSettings
from server.embedding import SentenceEmbedder
from server.engine import AdapterCatalogue, LocalEngine
from server.types import GenerationRequest, SamplingParams

def tasks():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

async def main():
    embedder = SentenceEmbedder(sys.argv[2])
    await asyncio.to_thread(embedder.embed, ["some words to embed " * 20] * 40)
    before = tasks()
    adapters = AdapterCatalogue(Path(sys.argv[3]))
    engine = LocalEngine(sys.argv[1], EngineSettings(), ModelSettings(device="cpu"), adapters)
    await engine.start()
    async for _ in engine.generate(GenerationRequest((5, 6, 7), SamplingParams(max_tokens=3), "grounded")):
        pass
    await asyncio.to_thread(embedder.embed, ["some more words " * 20] * 40)
    print(tasks() - before, len(os.sched_getaffinity(0)) - 1)
    await engine.close()

asyncio.run(main())
"""


@pytest.mark.model
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_only_the_model_has_helping_threads(chat_model_dir: Path, embedder_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(chat_model_dir), str(embedder_dir), str(ROOT / "adapters")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    helpers, expected = map(int, done.stdout.split()[-2:])
    assert helpers == expected, done.stdout
