"""What the command line imports, and when: help and quick commands must not wait for a model's libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SLOW = ("torch", "transformers", "peft", "sentence_transformers", "faiss", "numpy", "fastapi", "scipy")

SCRIPT = """
import sys
from server.cli import main
sys.argv = ["tailor", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    print(ended.code, file=sys.stderr)
print("imported", *(name for name in {slow} if name in sys.modules))
"""


def imported(*arguments: str, cwd: Path = ROOT) -> set[str]:
    """The slow libraries that `tailor arguments` has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(slow=SLOW), *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(done.stdout.rsplit("imported", 1)[1].split())


@pytest.mark.parametrize("command", [
    (), ("--help",), ("serve", "--help"), ("train", "--help"), ("compare", "--help"), ("chat", "--help"),
    ("index", "--help"), ("adapters", "list", "--help"), ("users", "--help"),
], ids=" ".join)  # fmt: skip
def test_help_imports_nothing_slow(command: tuple[str, ...]) -> None:
    assert imported(*command) == set()


@pytest.mark.parametrize("command", [
    ("serve", "--set", "server.prot=1"),
    ("serve", "--host", "0.0.0.0"),
    ("users", "list"),
    ("chat", "--url", "http://127.0.0.1:9", "Hello?"),
    ("adapters", "list", "--url", "http://127.0.0.1:9"),
], ids=" ".join)  # fmt: skip
def test_what_needs_no_model_imports_none_of_its_libraries(command: tuple[str, ...], tmp_path: Path) -> None:
    assert imported(*command, cwd=tmp_path) - {"numpy"} == set()  # sqlite_utils takes it where it is


def test_asking_a_server_for_its_index_loads_no_model(tmp_path: Path) -> None:
    assert "torch" not in imported("index", "status", "--url", "http://127.0.0.1:9", cwd=tmp_path)
