"""What the server keeps can be read by its own account alone, also where it was once made with wider rights."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.private_files import make_private, private_folder, write_private
from tests.live import make_app, make_workspace, serving


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def rights(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def test_what_is_new_and_what_was_there(tmp_path: Path) -> None:
    private_folder(tmp_path / "a" / "b")
    assert rights(tmp_path / "a" / "b") == "0o700"
    wide = tmp_path / "wide"
    wide.write_text("old")
    assert rights(wide) == "0o666"
    make_private(wide)
    assert rights(wide) == "0o600"
    wide.chmod(0o644)
    write_private(wide, "new")
    write_private(tmp_path / "made", "new")
    assert (wide.read_text(), rights(wide), rights(tmp_path / "made")) == ("new", "0o600", "0o600")
    make_private(tmp_path / "absent")


@pytest.mark.parametrize("existed", [False, True])
def test_the_data_of_a_running_server(tmp_path: Path, existed: bool) -> None:
    workspace = make_workspace(tmp_path / "ws")
    data = workspace / "data"
    (workspace / "knowledge" / "support" / ".users").write_text("ann\n")
    if existed:
        (data / "index").mkdir(parents=True)
        (data / "index" / "access.json").write_text("{}")
        holder = sqlite3.connect(data / "tailor.db")
        holder.execute("PRAGMA journal_mode = WAL")
        holder.execute("CREATE TABLE t (x)")
        assert rights(data / "tailor.db-wal") == "0o644"
    with serving(make_app(workspace)):
        assert rights(data) == "0o700"
        for name in ("tailor.db", "tailor.db-wal", "tailor.db-shm", "index/access.json"):
            assert rights(data / name) == "0o600", name
    if existed:
        holder.close()
