"""The command: its options, and a run from end to end on a tiny model."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench import context, engine, table
from bench.figures import FIGURES
from tests.conftest import ROOT
from tests.test_layers import run as tool

SOURCES = sorted((ROOT / "bench").rglob("*.py"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "alone,nonsense"], "no figure nonsense on cpu; there are adapters-one,"),
        (["--only", "cuda-alone"], "no figure cuda-alone on cpu"),
        (["--device", "cuda", "--only", "alone"], "no figure alone on cuda; there are cuda-tests,"),
        (["--write", "--only", "alone"], "--write takes the whole table"),
        (["--write", "--quick"], "--write takes the whole table"),
        (["--write", "--model", "m"], "--write takes the whole table"),
        (["--device", "abacus"], "invalid choice"),
        (["--rounds", "0"], "--rounds"),
        (["--threads", "x"], "--threads"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        engine.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_without_a_choice_all_figures_of_the_device_are_run() -> None:
    for device in ("cpu", "cuda"):
        options = engine._parser().parse_args(["--device", device])
        assert engine.chosen(options) == [figure for figure in FIGURES if figure.device == device]


def test_the_document_names_every_figure() -> None:
    text = engine.DOCUMENT.read_text(encoding="utf-8")
    assert [figure.name for figure in FIGURES if f"`{figure.name}`" not in text] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_measures_prints_and_writes(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    monkeypatch.setattr(engine, "WORK", work)
    code = engine.main(["--quick", "--model", str(tiny), "--only", "alone,mixed", "--rounds", "2", "--threads", "1"])
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| `")]
    assert [(row[0], row[1][:16]) for row in rows] == [
        ("| `alone`", "one chat, base, "),
        ("| `alone`", "one chat, base: "),
        ("| `mixed`", "16 chats over 8 "),
    ]
    assert all("failed" not in row[-1] for row in rows), printed
    assert "same text in 1 of 1" in rows[0][-1]
    assert ["(2)" in row[4] for row in rows] == [True, True, False]
    assert "(6)" in rows[2][4]
    assert code == (1 if any("missed" in row[-1] for row in rows) else 0)
    assert list(work.iterdir()) == [], "a run leaves nothing behind"


def test_the_written_table_is_the_printed_one(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "benchmarks.md"
    begin, end = table.marks("cpu")
    document.write_text(f"# Benchmarks\n\n{begin}\n{end}\n")
    monkeypatch.setattr(engine, "DOCUMENT", document)
    monkeypatch.setattr(engine, "WORK", tmp_path / "work")
    monkeypatch.setattr(engine, "FIGURES", ())
    monkeypatch.setattr(engine, "ROOT", tmp_path)
    assert engine.main(["--write"]) == 0
    written = document.read_text()
    assert "- Command: `python -m bench.engine --write`" in written
    assert table.markdown([]) in written
    assert table.markdown([]) in capsys.readouterr().out


# ── the code, by the product's own rules ─────────────────────────────────────────────────────────


def test_ruff_finds_nothing() -> None:
    tool("ruff", "check", "bench", "tests/bench")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_sitting_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text))
    assert "TODO" not in text


def test_nothing_is_measured_behind_the_engines_back() -> None:
    """Of our parts the figures see what their packages export. What asks no index cuts its text by itself; a start is
    the whole server's."""
    cutting = {f"server.retrieval.{name}" for name in ("index.chunker", "index.files", "loaders")}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("server."):
                if (path.name, node.module) == ("startup.py", "server.app"):
                    continue
                assert (path.name == "injection.py" and node.module in cutting) or node.module in {
                    "server.config", "server.database", "server.embedding", "server.engine", "server.errors",
                    "server.memory", "server.model_router", "server.model_store", "server.prompting",
                    "server.relations", "server.retrieval",
                    "server.types", "server.words",
                }, f"{path.name} imports {node.module}"  # fmt: skip


def test_runs_work_where_git_does_not_look() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert "/build/" in ignored
    assert context.WORK.is_relative_to(ROOT / "build")
    assert context.PEERS.is_relative_to(ROOT / "build")
