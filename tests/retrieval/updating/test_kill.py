"""The index after a process that was killed, for real, while it indexed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from server.config import RetrievalSettings
from server.retrieval import FileState, KnowledgeBase
from tests.fakes import WordEmbedder
from tests.tiers import cases

ROUNDS = cases(6, 60)
INDEX = """
import sys, random
from pathlib import Path
from server.config import RetrievalSettings
from server.retrieval import KnowledgeBase
from tests.fakes import WordEmbedder
from tests.retrieval.updating.test_kill import word

root, index, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
base = KnowledgeBase(root, index, WordEmbedder(), RetrievalSettings(generations=4))
base.sync()
print("ready", flush=True)
draw = random.Random(seed)
for turn in range(100_000):
    for number in draw.sample(range(40), draw.randint(1, 12)):
        path = root / "f" / f"{number}.md"
        if draw.random() < 0.2:
            path.unlink(missing_ok=True)
        else:
            text = f"# File {number}\\n\\n{word(number)} lives in house {turn}.\\n"
            path.write_text(text + f"\\nline {turn}\\n" * draw.randint(1, 40))
    base.sync()
"""


def word(number: int) -> str:
    """One that no other file has."""
    letters = "bcdfghjklm"
    return f"zeb{letters[number // 10]}o{letters[number % 10]}a"


def test_a_killed_process_leaves_a_whole_index_and_loses_nothing(tmp_path: Path) -> None:
    root, index = tmp_path / "knowledge", tmp_path / "index"
    (root / "f").mkdir(parents=True)
    draw = random.Random(7)
    for number in range(40):
        (root / "f" / f"{number}.md").write_text(word(number))
    for turn in range(ROUNDS):
        process = subprocess.Popen(
            [sys.executable, "-c", INDEX, str(root), str(index), str(turn)], stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        base = KnowledgeBase(root, index, WordEmbedder(), RetrievalSettings())
        base._updater.open()
        base.check_integrity()
        base.sync()
        base.check_integrity()
        files = {file.file: file.state for folder in base.status().folders for file in folder.files}
        there = {path.name for path in (root / "f").iterdir()}
        assert files.keys() == there
        assert set(files.values()) <= {FileState.INDEXED, FileState.EMPTY}
        for name in there:
            if (root / "f" / name).stat().st_size:
                wanted = word(int(name.removesuffix(".md")))
                found = base.search(wanted, ["f"]).passages  # two of the words have one vector: not always first
                assert any(wanted in passage.text for passage in found)
        base._updater.close()
