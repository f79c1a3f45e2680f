"""A process that changes files and indexes them until it is killed: `python -m bench.knowledge.victim ROOT INDEX SEED`.

It says `ready` once the index is synced and its changes begin. Vectors are hashed words, so that it is mostly storing,
where a kill could hurt.
"""

from __future__ import annotations

import os
import random
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.config import RetrievalSettings
from server.relations import Relation, TextRole
from server.retrieval import KnowledgeBase

FOLDER: Final = "changing"
MOST: Final = 40  # files of one change
_LETTERS: Final = "bcdfghjklm"


class Words:
    """An embedder by hashed words."""

    fingerprint = "hashed-words"
    dimension = 64

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        vectors = np.full((len(texts), self.dimension), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for each in text.lower().split():
                vectors[row, zlib.crc32(each.encode()) % self.dimension] += 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def count(self, text: str) -> int:
        return len(text.split())

    def knows(self, text: str) -> bool:
        """Never: two words may have the same place, so its likeness finds nothing for sure."""
        return False

    def likelihood(
        self, relation: Relation, cosines: NDArray[np.float32], *, crossing: NDArray[np.bool_] | bool = False
    ) -> NDArray[np.float32]:
        return np.zeros_like(cosines)


def word(number: int) -> str:
    """One that no other file has."""
    return "z" + "".join(f"{_LETTERS[int(digit)]}a" for digit in f"{number:04}")


def made(root: Path, index: Path) -> KnowledgeBase:
    return KnowledgeBase(root, index, Words(), RetrievalSettings(generations=4))


def main(root: Path, index: Path, seed: int) -> None:
    base, draw = made(root, index), random.Random(seed)
    base.sync()
    numbers = [int(path.stem) for path in (root / FOLDER).iterdir()]
    print("ready", flush=True)
    for turn in range(1_000_000):
        for number in draw.sample(numbers, draw.randint(1, min(MOST, len(numbers)))):
            path = root / FOLDER / f"{number}.md"
            if draw.random() < 0.1:
                path.unlink(missing_ok=True)
                continue
            lines = (f"Line {line} of turn {turn} by {seed}." for line in range(draw.randint(1, 200)))
            draft = index.parent / "draft"  # in one step: a file cut off by the kill would not be the index's fault
            draft.write_text(f"# File\n\n{word(number)} is here.\n\n" + "\n\n".join(lines) + "\n")
            os.replace(draft, path)
        base.sync()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
