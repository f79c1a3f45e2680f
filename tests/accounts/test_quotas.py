"""How much one user may ask, and what of it a restart gives back: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from argon2 import PasswordHasher

from server.accounts import Accounts, Quotas
from server.accounts import quotas as module
from server.config import LimitSettings
from server.database import Database
from server.errors import QuotaExceeded, RateLimited
from server.types import UserId

LOCAL, OTHER = UserId("local"), UserId("other")
NOON = 20_000 * 86_400 + 43_200.0


class Clock:
    now = NOON

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
    database = Database(tmp_path / "tailor.db")
    Accounts(database, hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    return database


def test_messages_a_minute(database: Database, clock: Clock) -> None:
    quotas = Quotas(database, LimitSettings(messages_per_minute=3))
    for _ in range(3):
        quotas.admit(LOCAL)
        clock.now += 10
    for _ in range(5):  # asking too early makes it no longer
        with pytest.raises(RateLimited, match="3 messages a minute") as caught:
            quotas.admit(LOCAL)
        assert (caught.value.code, caught.value.retry_after_s) == ("rate_limited", 30)
    quotas.admit(OTHER)
    clock.now += 30
    quotas.admit(LOCAL)
    with pytest.raises(RateLimited) as caught:
        quotas.admit(LOCAL)
    assert caught.value.retry_after_s == 10


def test_tokens_a_day_outlive_a_restart_and_end_at_midnight(database: Database, clock: Clock) -> None:
    settings = LimitSettings(tokens_per_day=100)
    quotas = Quotas(database, settings)
    quotas.spend(LOCAL, 60)
    quotas.admit(LOCAL)
    quotas.spend(LOCAL, 60)
    assert quotas.spent_today(LOCAL) == 120  # written or not
    quotas.close()
    again = Quotas(database, settings)
    with pytest.raises(QuotaExceeded, match="100 tokens of today") as caught:
        again.admit(LOCAL)
    assert (caught.value.code, caught.value.retry_after_s) == ("quota_exceeded", 43_200)
    again.admit(OTHER)
    clock.now += 43_200
    again.admit(LOCAL)
    clock.now += 86_400
    again.spend(LOCAL, 1)
    again.close()
    rows = database.connection().execute("SELECT day, tokens FROM token_usage").fetchall()
    assert rows == [(20_002, 1)]


def test_no_token_is_missed_while_counts_are_written(database: Database) -> None:
    quotas = Quotas(database, LimitSettings(tokens_per_day=10**9))
    for n in range(1, 400):
        quotas.spend(LOCAL, 1)
        assert quotas.spent_today(LOCAL) == n
    quotas.close()


def test_no_limit_counts_nothing(database: Database) -> None:
    quotas = Quotas(database, LimitSettings())
    for _ in range(1_000):
        quotas.admit(LOCAL)
        quotas.spend(LOCAL, 1_000_000)
    quotas.close()
    assert quotas.spent_today(LOCAL) == 0
    assert not quotas._messages


def test_a_removed_account_leaves_no_count(database: Database) -> None:
    accounts = Accounts(database, hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    user = accounts.add("mina", "correct horse").user_id
    quotas = Quotas(database, LimitSettings(tokens_per_day=10))
    quotas.spend(user, 5)
    while quotas._pending or quotas._writing:
        pass
    accounts.remove("mina")
    quotas.spend(user, 5)  # an answer that was running
    quotas.close()
    assert database.connection().execute("SELECT count(*) FROM token_usage").fetchone()[0] == 0
