"""Accounts, sessions and keys: who gets in, for how long, and what a copy of the database tells."""

from __future__ import annotations

import asyncio
import threading
import time
import unicodedata
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from server.api import accounts as module
from server.api.accounts import FREE_FAILURES, KEY_PREFIX, MAX_WAIT_S, Accounts, Session, _Throttle
from server.database import Database
from server.errors import Conflict, InvalidInput, NotFound, Unauthorized

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
DAY = 86_400


class Clock:
    """Both clocks of the module, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "tailor.db")


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database, hasher=CHEAP)


@pytest.fixture
def mina(accounts: Accounts) -> Accounts:
    accounts.add("mina", "correct horse")
    return accounts


def fail(accounts: Accounts, name: str = "mina") -> str:
    with pytest.raises(Unauthorized) as caught:
        accounts.login(name, "wrong password")
    return str(caught.value)


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────


def test_an_account_is_added_and_listed(accounts: Accounts) -> None:
    mina = accounts.add("mina", "correct horse")
    root = accounts.add("root", "correct horse", admin=True)
    assert accounts.list() == (mina, root)
    assert (mina.name, mina.admin) == ("mina", False)
    assert (root.name, root.admin) == ("root", True)
    assert mina.user_id != root.user_id
    assert len(mina.user_id) >= 32


@pytest.mark.parametrize("name", ["mina", "a", "x" * 64, "min.a_1-2", "0"])
def test_names_that_are_fine(accounts: Accounts, name: str) -> None:
    assert accounts.add(name, "correct horse").name == name


@pytest.mark.parametrize("name", ["Mina", " MINA ", "mina\n"])
def test_names_are_lowered_and_trimmed(accounts: Accounts, name: str) -> None:
    assert accounts.add(name, "correct horse").name == "mina"
    assert accounts.login("MINA", "correct horse").account.name == "mina"


@pytest.mark.parametrize(
    "name", ["", " ", "x" * 65, "mi na", "민아", "mina@x", "../mina", "mina/x", "a\x00b", "İ", "' OR 1=1 --"]
)
def test_names_that_are_not(accounts: Accounts, name: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 64"):
        accounts.add(name, "correct horse")
    assert accounts.list() == ()


def test_a_name_is_given_once(mina: Accounts) -> None:
    with pytest.raises(Conflict, match="'mina'"):
        mina.add("Mina", "another password")
    mina.login("mina", "correct horse")


@pytest.mark.parametrize(
    ("password", "said"), [("", "at least 8"), ("1234567", "at least 8"), ("x" * 1_025, "at most 1,024")]
)
def test_passwords_have_a_length(mina: Accounts, password: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        mina.add("jun", password)
    with pytest.raises(InvalidInput, match=said):
        mina.set_password("mina", password)
    mina.login("mina", "correct horse")


def test_korean_characters_count_as_characters(accounts: Accounts) -> None:
    with pytest.raises(InvalidInput, match="at least 8"):
        accounts.add("mina", "비밀번호")
    accounts.add("mina", "아주긴비밀번호요")
    decomposed = unicodedata.normalize("NFD", "아주긴비밀번호요")
    assert accounts.login("mina", decomposed).account.name == "mina"


def test_a_name_that_is_given_again_inherits_nothing(mina: Accounts) -> None:
    before = mina.list()[0]
    token = mina.login("mina", "correct horse").token
    key = mina.new_api_key("mina")
    mina.remove("mina")
    after = mina.add("mina", "correct horse")
    assert after.user_id != before.user_id
    assert mina.session(token) is None
    assert mina.by_api_key(key) is None


@pytest.mark.parametrize("call", ["remove", "new_api_key"])
def test_an_unknown_name_is_not_found(mina: Accounts, call: str) -> None:
    with pytest.raises(NotFound, match="'jun'"):
        getattr(mina, call)("jun")


def test_setting_the_password_of_nobody_is_not_found(mina: Accounts) -> None:
    with pytest.raises(NotFound, match="'jun'"):
        mina.set_password("jun", "correct horse")


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


def test_a_login_opens_a_session(mina: Accounts) -> None:
    session = mina.login("mina", "correct horse")
    assert mina.session(session.token) == session.account == mina.list()[0]
    assert len(session.token) >= 43  # 32 bytes
    assert session.token not in repr(session)


def test_sessions_are_of_their_own(mina: Accounts) -> None:
    mina.add("jun", "battery staple")
    one, two = mina.login("mina", "correct horse"), mina.login("mina", "correct horse")
    jun = mina.login("jun", "battery staple")
    assert len({one.token, two.token, jun.token}) == 3
    mina.logout(one.token)
    assert mina.session(one.token) is None
    assert mina.session(two.token) is not None
    account = mina.session(jun.token)
    assert account is not None
    assert account.name == "jun"


@pytest.mark.parametrize("password", ["", "correct hors", "correct horse ", "Correct horse", "x" * 100_000, "\ud800"])
def test_a_wrong_password_opens_nothing(mina: Accounts, password: str) -> None:
    with pytest.raises(Unauthorized, match=r"^wrong name or password$"):
        mina.login("mina", password)


def test_a_wrong_name_says_the_same_as_a_wrong_password(mina: Accounts) -> None:
    assert fail(mina, "nobody") == fail(mina, "mina")


@pytest.mark.parametrize("token", ["", "x", "\ud800", "' OR 1=1 --", "a" * 100_000])
def test_a_token_that_was_never_given_is_nobodys(mina: Accounts, token: str) -> None:
    assert mina.session(token) is None
    assert mina.by_api_key(token) is None
    mina.logout(token)


def test_a_session_ends_on_its_day(mina: Accounts, clock: Clock) -> None:
    session = mina.login("mina", "correct horse", days=2)
    assert session.expires_at == clock.now + 2 * DAY
    clock.now += 2 * DAY - 1
    assert mina.session(session.token) is not None
    clock.now += 1
    assert mina.session(session.token) is None


def test_a_login_sweeps_out_what_has_ended(mina: Accounts, clock: Clock, database: Database) -> None:
    for _ in range(3):
        mina.login("mina", "correct horse", days=1)
    clock.now += 2 * DAY
    mina.login("mina", "correct horse", days=1)
    assert database.connection().execute("SELECT count(*) FROM sessions").fetchone()[0] == 1


def test_sessions_and_keys_outlive_a_restart(mina: Accounts, database: Database) -> None:
    token, key = mina.login("mina", "correct horse").token, mina.new_api_key("mina")
    database.close()
    again = Accounts(Database(database.path), hasher=CHEAP)
    assert again.session(token) == again.by_api_key(key) == again.list()[0]


def test_a_new_password_ends_every_session_and_key_of_that_user(mina: Accounts) -> None:
    mina.add("jun", "battery staple")
    tokens = [mina.login("mina", "correct horse").token for _ in range(2)]
    keys = [mina.new_api_key("mina") for _ in range(2)]
    other_token, other_key = mina.login("jun", "battery staple").token, mina.new_api_key("jun")
    mina.set_password("MINA", "a new password")
    assert [mina.session(token) for token in tokens] == [None, None]
    assert [mina.by_api_key(key) for key in keys] == [None, None]
    assert mina.session(other_token) == mina.by_api_key(other_key) is not None
    fail(mina)
    assert mina.login("mina", "a new password").account == mina.list()[1]


def test_removing_ends_sessions_and_keys(mina: Accounts, database: Database) -> None:
    token, key = mina.login("mina", "correct horse").token, mina.new_api_key("mina")
    mina.remove("mina")
    assert mina.session(token) is None
    assert mina.by_api_key(key) is None
    for table in ("accounts", "sessions", "api_keys"):
        assert database.connection().execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0
    fail(mina)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_its_owners(mina: Accounts) -> None:
    mina.add("jun", "battery staple", admin=True)
    keys = {name: mina.new_api_key(name) for name in ("mina", "jun", "MINA")}
    assert len(set(keys.values())) == 3
    for name, key in keys.items():
        account = mina.by_api_key(key)
        assert account is not None
        assert account.name == name.lower()
        assert account.admin is (name == "jun")
        assert key.startswith(KEY_PREFIX)
        assert len(key) >= len(KEY_PREFIX) + 43


def test_keys_and_tokens_do_not_stand_for_each_other(mina: Accounts) -> None:
    assert mina.session(mina.new_api_key("mina")) is None
    assert mina.by_api_key(mina.login("mina", "correct horse").token) is None


# ── what lies in the file ────────────────────────────────────────────────────────────────────────


def test_the_file_holds_no_secret(mina: Accounts, database: Database) -> None:
    token, key = mina.login("mina", "correct horse").token, mina.new_api_key("mina")
    dump = "\n".join(database.connection().conn.iterdump())
    for secret in ("correct horse", token, key, token.encode().hex(), key.encode().hex()):
        assert secret not in dump
    assert "$argon2id$" in dump


def test_equal_passwords_have_different_hashes(accounts: Accounts, database: Database) -> None:
    for name in ("mina", "jun"):
        accounts.add(name, "correct horse")
    hashes = database.connection().execute("SELECT password FROM accounts").fetchall()
    assert len({row[0] for row in hashes}) == 2


def test_an_old_hash_is_made_stronger_on_login_and_sessions_stay(mina: Accounts, database: Database) -> None:
    def stored() -> str:
        return str(database.connection().execute("SELECT password FROM accounts").fetchone()[0])

    token = mina.login("mina", "correct horse").token
    before = stored()
    strong = Accounts(database, hasher=PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    strong.login("mina", "correct horse")
    assert "m=8,t=1" in before
    assert "m=16,t=2" in stored()
    strengthened = stored()
    strong.login("mina", "correct horse")
    assert stored() == strengthened
    assert strong.session(token) is not None


def test_a_damaged_hash_opens_nothing(mina: Accounts, database: Database) -> None:
    with database.transaction() as db:
        db.execute("UPDATE accounts SET password = 'correct horse'")
    with pytest.raises(Unauthorized):
        mina.login("mina", "correct horse")


def test_a_password_changed_while_it_is_verified_opens_nothing(mina: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = CHEAP.verify

    class Slow(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]
            right = verify(hash, password)
            mina.set_password("mina", "a new password")
            return bool(right)

    monkeypatch.setattr(mina, "_hasher", Slow(time_cost=1, memory_cost=8, parallelism=1))
    with pytest.raises(Unauthorized, match="wrong name or password"):
        mina.login("mina", "correct horse")


# ── timing ───────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_name_costs_as_much_as_a_wrong_password(mina: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]
            verified.append(str(hash).rpartition("$")[0].rpartition("$")[0])
            return bool(super().verify(hash, password))

    monkeypatch.setattr(mina, "_hasher", Counting(time_cost=1, memory_cost=8, parallelism=1))
    fail(mina, "mina")
    fail(mina, "nobody")
    assert len(verified) == 2
    assert verified[0] == verified[1]  # the same parameters, so the same work


@pytest.mark.slow
def test_by_the_clock_too(database: Database) -> None:
    accounts = Accounts(database, hasher=PasswordHasher(time_cost=2, memory_cost=16_384, parallelism=1))
    accounts.add("mina", "correct horse")

    def quickest(name: str) -> float:
        times = []
        for _ in range(FREE_FAILURES - 1):
            started = time.thread_time()
            fail(accounts, name)
            times.append(time.thread_time() - started)
        return min(times)  # what else runs on the machine only adds

    known, unknown = quickest("mina"), quickest("nobody")
    assert 0.4 < unknown / known < 2.5


# ── throttling ───────────────────────────────────────────────────────────────────────────────────


def test_failures_in_a_row_make_wait_longer_and_longer(mina: Accounts, clock: Clock) -> None:
    for _ in range(FREE_FAILURES):
        assert fail(mina) == "wrong name or password"
    waits = []
    for _ in range(12):
        said = fail(mina)
        assert "try again in" in said
        waits.append(int(said.split("again in ")[1].split()[0]))
        clock.now += waits[-1]
        assert fail(mina) == "wrong name or password"
    assert waits[0] == 1
    assert waits == sorted(waits)
    assert waits[-1] == MAX_WAIT_S


def test_who_waits_is_refused_even_with_the_right_password(mina: Accounts, clock: Clock) -> None:
    for _ in range(FREE_FAILURES):
        fail(mina)
    with pytest.raises(Unauthorized, match=r"try again in 1 second$"):
        mina.login("mina", "correct horse")
    clock.now += 1
    mina.login("mina", "correct horse")


def test_asking_too_early_does_not_make_it_longer(mina: Accounts, clock: Clock) -> None:
    for _ in range(FREE_FAILURES + 1):
        fail(mina)
    for _ in range(50):
        assert "in 1 second" in fail(mina)
    clock.now += 1
    mina.login("mina", "correct horse")


def test_a_success_starts_the_count_again(mina: Accounts, clock: Clock) -> None:
    for _ in range(3):
        for _ in range(FREE_FAILURES - 1):
            assert fail(mina) == "wrong name or password"
        mina.login("mina", "correct horse")


def test_one_name_does_not_slow_another(mina: Accounts, clock: Clock) -> None:
    mina.add("jun", "battery staple")
    for _ in range(FREE_FAILURES):
        fail(mina, "jun")
    mina.login("mina", "correct horse")
    assert "try again" in fail(mina, " JUN ")


def test_names_that_do_not_exist_are_slowed_alike(mina: Accounts, clock: Clock) -> None:
    for _ in range(FREE_FAILURES):
        fail(mina, "nobody")
    assert "try again" in fail(mina, "nobody")


def test_a_new_password_ends_the_wait(mina: Accounts) -> None:
    for _ in range(FREE_FAILURES + 1):
        fail(mina)
    mina.set_password("mina", "a new password")
    mina.login("mina", "a new password")


def test_a_burst_in_parallel_gets_no_more_tries_than_one_after_another(mina: Accounts, clock: Clock) -> None:
    tried: list[str] = []
    barrier = threading.Barrier(16)

    def attempt() -> None:
        barrier.wait()
        tried.append(fail(mina))

    threads = [threading.Thread(target=attempt) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tried.count("wrong name or password") == FREE_FAILURES


def test_the_memory_of_failures_is_bounded_and_keeps_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_THROTTLED_NAMES", 100)
    throttle = _Throttle()
    for n in range(1_000):
        throttle.attempt(f"name-{n}")
    assert len(throttle._failures) == 100
    assert "name-999" in throttle._failures
    assert "name-0" not in throttle._failures


# ── threads ──────────────────────────────────────────────────────────────────────────────────────


async def test_many_threads_at_once(mina: Accounts) -> None:
    async def open_and_close() -> bool:
        session: Session = await asyncio.to_thread(mina.login, "mina", "correct horse")
        account = await asyncio.to_thread(mina.session, session.token)
        await asyncio.to_thread(mina.logout, session.token)
        gone = await asyncio.to_thread(mina.session, session.token)
        return account is not None and gone is None

    for _ in range(6):
        assert all(await asyncio.gather(*(open_and_close() for _ in range(FREE_FAILURES - 1))))


async def test_one_name_is_given_once_even_at_once(accounts: Accounts) -> None:
    async def add() -> bool:
        try:
            await asyncio.to_thread(accounts.add, "mina", "correct horse")
        except Conflict:
            return False
        return True

    assert sum(await asyncio.gather(*(add() for _ in range(8)))) == 1


def test_ensuring_keeps_sessions_until_the_password_changes(accounts: Accounts) -> None:
    accounts.ensure("admin", "first password", admin=True)
    token = accounts.login("admin", "first password").token
    accounts.ensure("admin", "first password", admin=True)
    kept = accounts.session(token)
    assert kept is not None
    assert kept.admin
    accounts.ensure("admin", "second password", admin=True)
    assert accounts.session(token) is None
    assert accounts.login("admin", "second password")
