"""A new process that opens an index and answers once: `python -m bench.knowledge.starter ROOT INDEX EMBEDDER QUESTION`.

Prints one line of JSON: seconds from the opening to the first answer, chunks, and the memory that came with it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import psutil

from bench.knowledge.large import FOLDER
from server.config import RetrievalSettings
from server.embedding import SentenceEmbedder
from server.retrieval import KnowledgeBase

SEARCHES = 200  # after which memory is read


async def main(root: Path, index: Path, embedder: Path, question: str) -> None:
    embeds = SentenceEmbedder(str(embedder))
    embeds.embed(["warm"])
    process = psutil.Process()
    before = process.memory_full_info()
    began = time.perf_counter()
    base = KnowledgeBase(root, index, embeds, RetrievalSettings())
    await base.start()
    found = await asyncio.to_thread(base.search, question, [FOLDER])
    seconds = time.perf_counter() - began
    if not found.folders:
        raise RuntimeError("the index is empty")
    for number in range(SEARCHES):
        await asyncio.to_thread(base.search, f"{question} {number}", [FOLDER])
    after = process.memory_full_info()
    chunks = base.history()[0].chunks
    await base.close()
    told = {"seconds": seconds, "chunks": chunks, "memory": after.rss - before.rss, "own": after.uss - before.uss}
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]))
