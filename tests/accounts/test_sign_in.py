"""Signing in: what a login may cost, and whom a stranger's guesses slow down."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from server.accounts import Accounts, Origin, PasswordWorkers, Session, SignIn
from server.accounts import throttle as module
from server.accounts.throttle import (
    ADDRESS_BUDGET,
    FREE_FAILURES,
    MAX_WAIT_S,
    NAME_BUDGET,
    LoginThrottle,
    address_block,
)
from server.database import Database
from server.errors import InvalidInput, Overloaded, RateLimited, Unauthorized

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
RIGHT = "correct horse"
STRANGER, HOME = Origin("203.0.113.66"), Origin("198.51.100.7")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    made = Accounts(Database(tmp_path / "tailor.db"), hasher=CHEAP)
    made.add("admin", RIGHT, admin=True)
    made.add("mina", RIGHT)
    return made


@pytest.fixture
def sign_in(accounts: Accounts) -> SignIn:
    return SignIn(accounts, PasswordWorkers())


async def guess(sign_in: SignIn, name: str = "admin", origin: Origin = STRANGER, token: str = "") -> float | None:
    """Fails to sign in: how many seconds the throttle wants it to wait, None where the password was looked at."""
    with pytest.raises((RateLimited, Unauthorized)) as caught:
        await sign_in.sign_in(name, "wrong password", origin, current_token=token)
    if isinstance(caught.value, RateLimited):
        return caught.value.retry_after_s
    assert str(caught.value) == "wrong name or password"
    return None


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "password", "said"),
    [
        ("x" * 65, RIGHT, "a name has at most 64"),
        ("\u0301" * 320_000, "", "a name"),
        ("mina", "x" * 1_025, "at most 1,024"),
    ],
)
async def test_what_is_too_long_is_refused_first(sign_in: SignIn, name: str, password: str, said: str) -> None:
    for _ in range(ADDRESS_BUDGET + 1):  # and is no guess
        with pytest.raises(InvalidInput, match=said):
            await sign_in.sign_in(name, password, STRANGER)


async def test_long_names_of_strangers_are_kept_nowhere(sign_in: SignIn) -> None:
    names = ["x" * 8_000_000 + str(n) for n in range(3)]
    tracemalloc.start()
    try:
        for name in names:
            with pytest.raises(InvalidInput):
                await sign_in.sign_in(name, "wrong password", STRANGER)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_tables_have_a_bound_in_entries_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 1_000)
    throttle = LoginThrottle()
    tracemalloc.start()
    try:
        for n in range(3_000):
            throttle.ended(throttle.attempt(f"{n}" + "x" * 100_000, f"source {n}"))
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert [len(table) for table in (throttle._pairs, throttle._sources, throttle._names)] == [1_000] * 3
    assert not throttle._running
    assert grown < 3 * 1_000 * 500
    assert throttle._pairs.keys() == {key for key in throttle._pairs if len(key) == module.DIGEST_BYTES}


# ── hashing has threads of its own ───────────────────────────────────────────────────────────────


async def test_hashing_has_two_threads_and_a_bounded_queue_and_the_database_waits_for_neither(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, running = threading.Event(), []

    class Slow(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]
            running.append(threading.current_thread().name)
            release.wait(60)
            return bool(super().verify(hash, password))

    monkeypatch.setattr(accounts._passwords, "_hasher", Slow(time_cost=1, memory_cost=8, parallelism=1))
    sign_in = SignIn(accounts, PasswordWorkers(workers=2, waiting=3))
    logins = [asyncio.create_task(sign_in.sign_in("mina", RIGHT, Origin(f"192.0.2.{n}"))) for n in range(5)]
    await until(lambda: len(running) == 2)
    for _ in range(3 * FREE_FAILURES):  # refused, and no guess
        with pytest.raises(Overloaded) as refused:
            await sign_in.sign_in("mina", RIGHT, HOME)
        assert refused.value.retry_after_s > 0
    assert len(await asyncio.wait_for(asyncio.to_thread(accounts.list), 10)) == 2
    assert len(running) == 2
    release.set()
    assert all(session.account.name == "mina" for session in await asyncio.gather(*logins))
    assert len(set(running)) == 2
    assert (await sign_in.sign_in("mina", RIGHT, HOME)).account.name == "mina"


async def test_a_caller_who_hangs_up_has_tried(
    sign_in: SignIn, accounts: Accounts, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at, gate, login = threading.Event(), threading.Event(), accounts.login

    def held(*arguments: Any, **named: Any) -> Session:
        looked_at.set()
        gate.wait(30)
        return login(*arguments, **named)

    monkeypatch.setattr(accounts, "login", held)
    for _ in range(FREE_FAILURES):
        looked_at.clear()
        gate.clear()
        task = asyncio.create_task(sign_in.sign_in("admin", "wrong password", STRANGER))
        await until(looked_at.is_set)
        task.cancel()
        await asyncio.wait([task])
        gate.set()
    assert await guess(sign_in)


# ── guessing is slowed ───────────────────────────────────────────────────────────────────────────


async def test_failures_in_a_row_make_wait_longer_and_longer(sign_in: SignIn, clock: Clock) -> None:
    for _ in range(FREE_FAILURES):
        assert await guess(sign_in) is None
    waits = []
    for _ in range(12):
        wait = await guess(sign_in)
        assert wait
        waits.append(wait)
        clock.now += wait
        assert await guess(sign_in) is None
    assert waits[0] == 1
    assert waits == sorted(waits)
    assert waits[-1] == MAX_WAIT_S


async def test_who_waits_is_refused_even_with_the_right_password(sign_in: SignIn, clock: Clock) -> None:
    for _ in range(FREE_FAILURES):
        await guess(sign_in)
    for _ in range(50):  # asking too early makes it no longer
        with pytest.raises(RateLimited, match=r"try again in 1 second$"):
            await sign_in.sign_in("admin", RIGHT, STRANGER)
    clock.now += 1
    await sign_in.sign_in("admin", RIGHT, STRANGER)


async def test_a_success_starts_the_count_again(sign_in: SignIn, clock: Clock) -> None:
    for _ in range(ADDRESS_BUDGET):
        for _ in range(FREE_FAILURES - 1):
            clock.now += module.ADDRESS_REFILL_S
            assert await guess(sign_in) is None
        await sign_in.sign_in("admin", RIGHT, STRANGER)


async def test_names_that_do_not_exist_are_slowed_alike(sign_in: SignIn, clock: Clock) -> None:
    for _ in range(FREE_FAILURES):
        assert await guess(sign_in, "nobody") is None
    assert await guess(sign_in, "nobody") == 1
    assert await guess(sign_in, " NOBODY ") == 1


async def test_a_burst_in_parallel_gets_no_more_tries_than_one_after_another(sign_in: SignIn, clock: Clock) -> None:
    tried = await asyncio.gather(*(guess(sign_in) for _ in range(40)))
    assert 1 <= tried.count(None) <= FREE_FAILURES


async def test_a_list_of_names_gets_no_further_than_the_budget_of_its_address(sign_in: SignIn, clock: Clock) -> None:
    tried = [await guess(sign_in, f"name-{n}") for n in range(10 * ADDRESS_BUDGET)]
    assert tried.count(None) == ADDRESS_BUDGET
    clock.now += module.ADDRESS_REFILL_S
    assert [await guess(sign_in, f"more-{n}") for n in range(3)].count(None) == 1
    await sign_in.sign_in("mina", RIGHT, HOME)  # and stalls nobody else


async def test_an_ipv6_network_is_one_address(sign_in: SignIn, clock: Clock) -> None:
    origins = [Origin(f"2001:db8:1:2::{n:x}") for n in range(1, 100)]
    tried = [await guess(sign_in, "admin", origin) for origin in origins]
    assert tried.count(None) == FREE_FAILURES
    assert await guess(sign_in, "admin", Origin("2001:db8:1:3::1")) is None


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", ""),
    ],
)
def test_blocks(address: str, block: str) -> None:
    assert address_block(address) == block


# ── and locks nobody out ─────────────────────────────────────────────────────────────────────────


async def test_a_stranger_locks_nobody_out(sign_in: SignIn, clock: Clock) -> None:
    """One stranger, many names and tries; the owner comes from an address that did not fail."""
    for n in range(500):
        await guess(sign_in, "admin" if n % 2 else f"name-{n}")
    assert (await sign_in.sign_in("admin", RIGHT, HOME)).account.admin


async def test_strangers_at_many_addresses_lock_nobody_out(sign_in: SignIn, clock: Clock) -> None:
    for n in range(3 * NAME_BUDGET):
        await guess(sign_in, "admin", Origin(f"10.0.{n // 200}.{n % 200}"))
    assert (await sign_in.sign_in("admin", RIGHT, HOME)).account.admin


async def test_a_name_under_attack_leaves_one_try_to_a_new_address_and_five_to_a_known_one(
    sign_in: SignIn, clock: Clock
) -> None:
    await sign_in.sign_in("admin", RIGHT, HOME)
    for n in range(NAME_BUDGET):
        assert await guess(sign_in, "admin", Origin(f"10.0.0.{n}")) is None
    new = Origin("192.0.2.1")
    assert [await guess(sign_in, "admin", new) for _ in range(3)] == [None, 60, 60]
    assert [await guess(sign_in, "admin", HOME) for _ in range(FREE_FAILURES)] == [None] * FREE_FAILURES
    assert await guess(sign_in, "admin", HOME) == 1
    assert await guess(sign_in, "mina", new) is None  # other names are not slowed
    clock.now += 10 * module.NAME_REFILL_S
    assert [await guess(sign_in, "admin", Origin("192.0.2.2")) for _ in range(2)] == [None, None]


async def test_a_live_session_gets_in_from_the_very_address_of_the_stranger(sign_in: SignIn, clock: Clock) -> None:
    token = (await sign_in.sign_in("admin", RIGHT, STRANGER)).token
    other = (await sign_in.sign_in("mina", RIGHT, HOME)).token
    for n in range(200):
        await guess(sign_in, "admin" if n % 2 else f"name-{n}")
    for useless in ("", "made up", other):
        with pytest.raises(RateLimited):
            await sign_in.sign_in("admin", RIGHT, STRANGER, current_token=useless)
    assert (await sign_in.sign_in("admin", RIGHT, STRANGER, current_token=token)).account.admin


async def test_who_has_a_session_guesses_its_password_no_faster(sign_in: SignIn, clock: Clock) -> None:
    token = (await sign_in.sign_in("admin", RIGHT, STRANGER)).token
    tried = [await guess(sign_in, "admin", STRANGER, token) for _ in range(20)]
    assert tried.count(None) == FREE_FAILURES


async def test_the_password_asked_for_again_is_slowed_too(sign_in: SignIn, accounts: Accounts, clock: Clock) -> None:
    session = await sign_in.sign_in("mina", RIGHT, HOME)
    login = accounts.login_of_session(session.token)
    assert login is not None
    await sign_in.confirm(login, RIGHT, HOME)
    for _ in range(FREE_FAILURES):
        with pytest.raises(Unauthorized, match="the password is wrong"):
            await sign_in.confirm(login, "wrong password", HOME)
    with pytest.raises(RateLimited):
        await sign_in.confirm(login, RIGHT, HOME)
    await sign_in.sign_in("mina", RIGHT, Origin("192.0.2.9"))


async def test_changing_ones_password_needs_the_old_one(sign_in: SignIn, accounts: Accounts) -> None:
    session, other = [await sign_in.sign_in("mina", RIGHT, HOME) for _ in range(2)]
    login = accounts.login_of_session(session.token)
    assert login is not None
    with pytest.raises(Unauthorized):
        await sign_in.change_password(login, "wrong password", "a new password", HOME)
    await sign_in.change_password(login, RIGHT, "a new password", HOME)
    assert accounts.session(session.token) is not None
    assert accounts.session(other.token) is None
    assert await guess(sign_in, "mina") is None
    await sign_in.sign_in("mina", "a new password", HOME)
