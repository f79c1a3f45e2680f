"""The one SQLite file: migrations, transactions, threads."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from server.database import Database

TABLE = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL);"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "state" / "tailor.db")


def notes(database: Database) -> list[str]:
    return [row["text"] for row in database.connection().query("SELECT text FROM notes ORDER BY id")]


def insert(database: Database, text: str) -> None:
    with database.transaction() as db:
        db.execute("INSERT INTO notes (text) VALUES (?)", [text])


# ── opening ──────────────────────────────────────────────────────────────────────────────────────


def test_the_folder_is_made_and_the_file_is_wal_with_foreign_keys(database: Database) -> None:
    def pragma(name: str) -> object:
        return database.connection().execute(f"PRAGMA {name}").fetchone()[0]

    assert database.path.parent.is_dir()
    assert pragma("journal_mode") == "wal"
    assert pragma("foreign_keys") == 1
    assert int(str(pragma("busy_timeout"))) > 1000


def test_a_thread_keeps_its_connection_and_another_gets_its_own(database: Database) -> None:
    mine = database.connection()
    assert database.connection() is mine
    others: list[object] = []
    thread = threading.Thread(target=lambda: others.append(database.connection()))
    thread.start()
    thread.join()
    assert others[0] is not mine


def test_foreign_keys_hold_in_every_thread(database: Database) -> None:
    database.migrate("a", [TABLE, "CREATE TABLE tags (note INTEGER NOT NULL REFERENCES notes (id));"])

    def tag() -> str:
        try:
            with database.transaction() as db:
                db.execute("INSERT INTO tags VALUES (99)")
        except sqlite3.IntegrityError as error:
            return str(error)
        return "inserted"

    async def elsewhere() -> str:
        return await asyncio.to_thread(tag)

    assert "FOREIGN KEY" in tag()
    assert "FOREIGN KEY" in asyncio.run(elsewhere())


def test_a_transaction_inside_another_is_a_part_of_it(database: Database) -> None:
    database.migrate("a", [TABLE])
    with database.transaction():
        insert(database, "one")
        insert(database, "two")

    def half_done() -> None:
        with database.transaction():
            insert(database, "three")
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        half_done()
    assert notes(database) == ["one", "two"]
    insert(database, "four")
    assert notes(database) == ["one", "two", "four"]


def test_what_was_written_is_there_after_reopening(database: Database) -> None:
    database.migrate("a", [TABLE])
    insert(database, "kept")
    database.close()
    again = Database(database.path)
    again.migrate("a", [TABLE])
    assert notes(again) == ["kept"]


def test_a_closed_database_opens_again_when_asked(database: Database) -> None:
    database.migrate("a", [TABLE])
    held = database.connection()
    database.close()
    with pytest.raises(sqlite3.ProgrammingError):
        held.execute("SELECT 1")
    insert(database, "again")
    assert notes(database) == ["again"]


# ── migrations ───────────────────────────────────────────────────────────────────────────────────


def test_a_migration_runs_once(database: Database) -> None:
    for _ in range(3):
        database.migrate("a", [TABLE, "INSERT INTO notes (text) VALUES ('seed');"])
    assert notes(database) == ["seed"]


def test_later_migrations_run_on_the_data_of_earlier_ones(database: Database) -> None:
    database.migrate("a", [TABLE])
    insert(database, "old")
    database.migrate("a", [TABLE, "ALTER TABLE notes ADD COLUMN mark TEXT NOT NULL DEFAULT 'none';"])
    row = next(iter(database.connection().query("SELECT * FROM notes")))
    assert (row["text"], row["mark"]) == ("old", "none")


def test_parts_number_their_migrations_on_their_own(database: Database) -> None:
    database.migrate("a", [TABLE])
    database.migrate("b", ["CREATE TABLE others (id INTEGER PRIMARY KEY);"])
    applied = database.connection().execute("SELECT part, number FROM migrations ORDER BY part").fetchall()
    assert [tuple(row) for row in applied] == [("a", 1), ("b", 1)]


def test_a_migration_that_fails_leaves_nothing_and_is_tried_again(database: Database) -> None:
    broken = f"{TABLE}\nINSERT INTO notes (text) VALUES (NULL);"
    with pytest.raises(sqlite3.IntegrityError):
        database.migrate("a", [broken])
    assert not database.connection()["notes"].exists()
    database.migrate("a", [TABLE])
    assert notes(database) == []


def test_migrations_before_the_one_that_fails_stay(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError):
        database.migrate("a", [TABLE, "ALTER TABLE nowhere ADD COLUMN x;"])
    assert notes(database) == []


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE a (x); CREATE TABLE b (x); CREATE TABLE c (x)",
        "-- a comment; with a semicolon\nCREATE TABLE a (x);\n\nCREATE TABLE b (x);CREATE TABLE c (x);\n-- end",
        "CREATE TABLE a (x TEXT DEFAULT ';');\nCREATE TABLE b (x);\n"
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN INSERT INTO b VALUES (1); DELETE FROM b; END;\nCREATE TABLE c (x);",
    ],
)
def test_scripts_of_several_statements_run_whole(database: Database, script: str) -> None:
    database.migrate("a", [script])
    assert {"a", "b", "c"} <= set(database.connection().table_names())


@pytest.mark.parametrize("_round", range(10))  # the race for the switch to WAL is lost about once in ten rounds
def test_two_starts_at_once_migrate_once(database: Database, _round: int) -> None:
    barrier = threading.Barrier(6)
    failures: list[BaseException] = []

    def start() -> None:
        barrier.wait()
        try:
            Database(database.path).migrate("a", [TABLE, "INSERT INTO notes (text) VALUES ('seed');"])
        except sqlite3.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert notes(database) == ["seed"]


# ── transactions ─────────────────────────────────────────────────────────────────────────────────


def write_and_fail(database: Database) -> None:
    with database.transaction() as db:
        db.execute("INSERT INTO notes (text) VALUES ('one')")
        db["notes"].insert({"text": "two"})  # sqlite-utils does not commit by itself inside
        raise RuntimeError("no")


def test_an_exception_takes_back_everything(database: Database) -> None:
    database.migrate("a", [TABLE])
    with pytest.raises(RuntimeError):
        write_and_fail(database)
    assert notes(database) == []
    insert(database, "after")  # the lock is free
    assert notes(database) == ["after"]


def test_a_commit_that_fails_frees_the_lock(database: Database) -> None:
    child = "CREATE TABLE tags (note INTEGER REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED);"
    database.migrate("a", [TABLE, child])
    transaction = database.transaction()
    db = transaction.__enter__()
    db.execute("INSERT INTO tags VALUES (7)")
    with pytest.raises(sqlite3.IntegrityError):
        transaction.__exit__(None, None, None)
    insert(database, "after")
    assert notes(database) == ["after"]


def test_others_see_nothing_before_the_commit(database: Database) -> None:
    database.migrate("a", [TABLE])
    seen: list[list[str]] = []

    def look() -> None:
        thread = threading.Thread(target=lambda: seen.append(notes(database)))
        thread.start()
        thread.join()

    with database.transaction() as db:
        db.execute("INSERT INTO notes (text) VALUES ('one')")
        look()
    look()
    assert seen == [[], ["one"]]


def test_writers_of_many_threads_queue_instead_of_failing(database: Database) -> None:
    database.migrate("a", [TABLE, "CREATE TABLE counts (n INTEGER);\nINSERT INTO counts VALUES (0);"])

    def count_up() -> None:
        for _ in range(20):
            with database.transaction() as db:
                (n,) = db.execute("SELECT n FROM counts").fetchone()
                db.execute("UPDATE counts SET n = ?", [n + 1])

    async def together() -> None:
        await asyncio.gather(*(asyncio.to_thread(count_up) for _ in range(6)))

    asyncio.run(together())
    assert database.connection().execute("SELECT n FROM counts").fetchone()[0] == 120


# ── deleted text ─────────────────────────────────────────────────────────────────────────────────


def stands_in_the_files(database: Database, text: str) -> bool:
    """Read by another process: closing a handle of the file here would drop SQLite's locks on it."""
    script = (
        "import sys; from pathlib import Path; folder, text = Path(sys.argv[1]), sys.argv[2].encode(); "
        "sys.exit(any(text in path.read_bytes() for path in folder.iterdir()))"
    )
    return bool(subprocess.run([sys.executable, "-c", script, database.path.parent, text], check=False).returncode)


def test_what_was_deleted_leaves_the_file_and_its_log(database: Database) -> None:
    database.migrate("a", [TABLE])
    insert(database, "zanzibar")
    assert stands_in_the_files(database, "zanzibar")
    database.connection().execute("DELETE FROM notes")
    assert database.scrub()
    assert not stands_in_the_files(database, "zanzibar")


def test_while_somebody_reads_a_scrub_is_pending_and_done_later(database: Database, tmp_path: Path) -> None:
    database.migrate("a", [TABLE])
    insert(database, "zanzibar")
    with closing(sqlite3.connect(database.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM notes").fetchall()
        database.connection().execute("DELETE FROM notes")
        assert not database.scrub()
        assert not database.scrub()
        assert database.unscrubbed
        assert stands_in_the_files(database, "zanzibar")
    deadline = time.monotonic() + 60
    while database.unscrubbed:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not stands_in_the_files(database, "zanzibar")


def test_bytes_that_a_divided_page_kept_are_found_and_go(database: Database) -> None:
    """Rows that an index moves from page to page leave copies that no deletion overwrites; a text of 3,000 does."""
    divide_pages(database)
    assert database.scrub(["zanzibar"])  # without the word it stands there still, by SQLite 3.40
    assert not stands_in_the_files(database, "zanzibar")
    assert len(notes(database)) == 3000


def test_bytes_that_an_earlier_process_left_go_without_a_word_of_them(database: Database) -> None:
    divide_pages(database)
    assert stands_in_the_files(database, "zanzibar")
    database.rewrite()
    assert not stands_in_the_files(database, "zanzibar")
    assert len(notes(database)) == 3000


def divide_pages(database: Database) -> None:
    database.migrate("a", [TABLE, "CREATE INDEX notes_by_text ON notes (text)"])
    draw = random.Random(1)
    texts = [f"zanzibar {draw.random()} {number}" for number in range(3000)]
    for text in texts:
        insert(database, text)
    with database.transaction() as db:
        for text in texts:
            db.execute("UPDATE notes SET text = '' WHERE text = ?", [text])


def test_a_scrub_inside_a_transaction_is_left_to_who_began_it(database: Database) -> None:
    database.migrate("a", [TABLE])
    with database.transaction():
        assert not database.scrub()
    assert not database.unscrubbed
