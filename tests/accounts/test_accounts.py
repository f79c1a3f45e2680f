"""Accounts, sessions and keys: who gets in, for how long, and what a copy of the database tells."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from server.accounts import Accounts, Origin, Role, Session
from server.accounts import accounts as module
from server.accounts import passwords as passwords_module
from server.accounts.accounts import KEY_PREFIX, MAX_KEYS
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


@pytest.mark.parametrize("password", ["", "correct hors", "correct horse ", "Correct horse", "x" * 1_024, "\ud800"])
def test_a_wrong_password_opens_nothing(mina: Accounts, password: str) -> None:
    with pytest.raises(Unauthorized, match=r"^wrong name or password$"):
        mina.login("mina", password)


def test_a_wrong_name_says_the_same_as_a_wrong_password(mina: Accounts) -> None:
    assert fail(mina, "nobody") == fail(mina, "mina")


def test_a_password_too_long_is_refused_before_it_is_looked_at(mina: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    def normalised(*_: object) -> str:
        raise AssertionError("it was normalised")

    monkeypatch.setattr(passwords_module, "normalize", normalised)
    with pytest.raises(InvalidInput, match="at most 1,024 characters"):
        mina.login("mina", "\u0301" * 320_000)


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

    monkeypatch.setattr(mina._passwords, "_hasher", Slow(time_cost=1, memory_cost=8, parallelism=1))
    with pytest.raises(Unauthorized, match="wrong name or password"):
        mina.login("mina", "correct horse")


# ── timing ───────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_name_costs_as_much_as_a_wrong_password(mina: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]
            verified.append(str(hash).rpartition("$")[0].rpartition("$")[0])
            return bool(super().verify(hash, password))

    monkeypatch.setattr(mina._passwords, "_hasher", Counting(time_cost=1, memory_cost=8, parallelism=1))
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
        for _ in range(4):
            started = time.thread_time()
            fail(accounts, name)
            times.append(time.thread_time() - started)
        return min(times)  # what else runs on the machine only adds

    known, unknown = quickest("mina"), quickest("nobody")
    assert 0.4 < unknown / known < 2.5


# ── threads ──────────────────────────────────────────────────────────────────────────────────────


async def test_many_threads_at_once(mina: Accounts) -> None:
    async def open_and_close() -> bool:
        session: Session = await asyncio.to_thread(mina.login, "mina", "correct horse")
        account = await asyncio.to_thread(mina.session, session.token)
        await asyncio.to_thread(mina.logout, session.token)
        gone = await asyncio.to_thread(mina.session, session.token)
        return account is not None and gone is None

    for _ in range(6):
        assert all(await asyncio.gather(*(open_and_close() for _ in range(4))))


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


# ── roles ────────────────────────────────────────────────────────────────────────────────────────


def test_roles_are_a_set(accounts: Accounts) -> None:
    account = accounts.add("mina", "correct horse", roles=["curator", "trainer"])
    assert account.roles == {Role.USER, Role.CURATOR, Role.TRAINER}
    assert accounts.get("mina") == account
    assert accounts.set_roles("mina", ["approver"]).roles == {Role.USER, Role.APPROVER}
    assert accounts.session(accounts.login("mina", "correct horse").token) == accounts.get("mina")
    with pytest.raises(InvalidInput, match="no role 'king'; there are user, curator"):
        accounts.set_roles("mina", ["king"])
    with pytest.raises(NotFound):
        accounts.set_roles("jun", [])


def test_somebody_is_left_to_manage_accounts(mina: Accounts) -> None:
    mina.add("root", "correct horse", admin=True)
    for change in (lambda: mina.set_roles("root", ["curator"]), lambda: mina.remove("root")):
        with pytest.raises(Conflict, match="'root' is the only administrator"):
            change()
    mina.set_roles("mina", ["admin"])
    mina.remove("root")
    assert [account.name for account in mina.list()] == ["mina"]
    mina.remove("mina")  # with nobody left there is nobody to manage
    assert mina.list() == ()


def test_a_database_from_before_roles_keeps_its_admins_sessions_and_keys(database: Database) -> None:
    database.migrate("accounts", module.MIGRATIONS[:1])
    with database.transaction() as db:
        for name, admin in (("root", 1), ("mina", 0)):
            db.execute(
                "INSERT INTO accounts VALUES (?, ?, ?, ?, 1.0)", [f"id-{name}", name, CHEAP.hash("correct"), admin]
            )
            db.execute("INSERT INTO sessions VALUES (?, ?, 1.0, 9e9)", [module._digest(f"token-{name}"), f"id-{name}"])
            db.execute("INSERT INTO api_keys VALUES (?, ?, 1.0)", [module._digest(f"tlr-{name}"), f"id-{name}"])
    accounts = Accounts(database, hasher=CHEAP)
    assert {account.name: account.admin for account in accounts.list()} == {"root": True, "mina": False}
    for name in ("root", "mina"):
        (session,), (key,) = (read(accounts.get(name).user_id) for read in (accounts.sessions, accounts.api_keys))
        assert session.id
        assert key.id
        assert accounts.session(f"token-{name}") == accounts.by_api_key(f"tlr-{name}") == accounts.get(name)


# ── one's own sessions and keys ──────────────────────────────────────────────────────────────────


def test_sessions_are_listed_with_where_they_came_from(mina: Accounts, clock: Clock) -> None:
    one = mina.login("mina", "correct horse", origin=Origin("203.0.113.7", "Firefox" * 100))
    clock.now += 10
    two = mina.login("mina", "correct horse", origin=Origin("2001:db8::1", "curl"))
    clock.now += 1_000
    mina.session(one.token)
    listed = mina.sessions(one.account.user_id)
    assert [session.id for session in listed] == [one.id, two.id]
    assert (listed[0].address, listed[0].last_seen) == ("203.0.113.7", clock.now)
    assert listed[0].agent.startswith("Firefox")
    assert len(listed[0].agent) == module.MAX_AGENT
    assert mina.known_blocks("mina") == {"203.0.113.7", "2001:db8::/64"}
    mina.add("jun", "battery staple")
    jun = mina.get("jun").user_id
    with pytest.raises(NotFound):
        mina.revoke_session(jun, one.id)
    mina.revoke_session(one.account.user_id, two.id)
    assert mina.session(two.token) is None
    mina.login("mina", "correct horse")
    assert mina.revoke_other_sessions(one.account.user_id, one.id) == 1
    assert mina.session(one.token) is not None


def test_keys_are_listed_used_and_revoked(mina: Accounts, clock: Clock) -> None:
    user = mina.get("mina").user_id
    key, secret = mina.make_api_key(user, " backup ")
    assert (key.name, key.prefix, key.last_used) == ("backup", secret[:8], None)
    clock.now += 500
    mina.by_api_key(secret)
    assert [(one.id, one.last_used) for one in mina.api_keys(user)] == [(key.id, clock.now)]
    mina.add("jun", "battery staple")
    with pytest.raises(NotFound):
        mina.revoke_api_key(mina.get("jun").user_id, key.id)
    mina.revoke_api_key(user, key.id)
    assert mina.by_api_key(secret) is None
    with pytest.raises(InvalidInput, match="at most 64"):
        mina.make_api_key(user, "x" * 65)
    for _ in range(MAX_KEYS):
        mina.make_api_key(user, "")
    with pytest.raises(Conflict, match="revoke one first"):
        mina.make_api_key(user, "")


def test_ones_own_new_password_keeps_the_session_it_came_from(mina: Accounts) -> None:
    here, there = mina.login("mina", "correct horse"), mina.login("mina", "correct horse")
    key = mina.new_api_key("mina")
    mina.set_password("mina", "a new password", keep_session=here.id)
    assert mina.session(here.token) is not None
    assert mina.session(there.token) is None
    assert mina.by_api_key(key) is None
    assert mina.has_password(here.account.user_id, "a new password")
    assert not mina.has_password(here.account.user_id, "correct horse")


def test_what_still_opens_something_is_told_in_one_go(mina: Accounts, clock: Clock) -> None:
    user = mina.get("mina").user_id
    sessions = [mina.login("mina", "correct horse", days=1) for _ in range(3)]
    key, _ = mina.make_api_key(user, "")
    credentials = {module.Credential("session", one.id) for one in sessions} | {module.Credential("key", key.id)}
    assert mina.live(credentials | {module.Credential("key", sessions[0].id)}) == credentials
    mina.logout(sessions[0].token)
    mina.revoke_api_key(user, key.id)
    assert mina.live(credentials) == {module.Credential("session", one.id) for one in sessions[1:]}
    clock.now += DAY
    assert mina.live(credentials) == set()


def test_an_account_without_a_password_has_none_that_opens_it(accounts: Accounts) -> None:
    accounts.add("mina", None)
    for password in ("", "-", "correct horse"):
        with pytest.raises(Unauthorized):
            accounts.login("mina", password)


def test_a_removed_account_is_noted_until_its_data_is_erased(mina: Accounts) -> None:
    user = mina.remove("mina").user_id
    assert mina.erasures() == (user,)
    mina.erased(user)
    assert mina.erasures() == ()
