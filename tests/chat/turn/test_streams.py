from __future__ import annotations

import asyncio
import gc

import pytest

from server.chat.events import AnswerDelta, Closed, TurnEvent
from server.chat.turn.streams import StreamRegistry, TurnStream
from server.errors import NotFound
from server.types import UserId

MINA, JUN = UserId("mina"), UserId("jun")


async def collect(stream: TurnStream, after: int = 0) -> list[TurnEvent]:
    return [event async for event in stream.follow(after)]


async def test_numbers_run_from_one_without_gaps() -> None:
    stream = TurnStream(MINA, "m1")
    for word in ("a", "b", "c"):
        stream.publish(AnswerDelta, text=word)
    stream.publish(Closed)
    assert [event.seq for event in await collect(stream)] == [1, 2, 3, 4]


async def test_a_reader_that_comes_back_gets_the_rest_and_what_is_new() -> None:
    stream = TurnStream(MINA, "m1")
    stream.publish(AnswerDelta, text="a")
    stream.publish(AnswerDelta, text="b")
    reader = asyncio.create_task(collect(stream, after=1))
    await asyncio.sleep(0)
    stream.publish(AnswerDelta, text="c")
    stream.publish(Closed)
    assert [event.seq for event in await reader] == [2, 3, 4]


async def test_many_readers_see_the_same() -> None:
    stream = TurnStream(MINA, "m1")
    readers = [asyncio.create_task(collect(stream)) for _ in range(5)]
    for n in range(50):
        stream.publish(AnswerDelta, text=str(n))
        if n % 7 == 0:
            await asyncio.sleep(0)
    stream.publish(Closed)
    results = await asyncio.gather(*readers)
    assert all(result == results[0] for result in results)
    assert len(results[0]) == 51


async def test_a_number_beyond_the_end_waits_for_what_comes() -> None:
    stream = TurnStream(MINA, "m1")
    stream.publish(Closed)
    assert await asyncio.wait_for(collect(stream, after=99), 60) == []


async def test_streams_belong_to_their_user_and_are_forgotten_after_a_while() -> None:
    registry = StreamRegistry(retention_seconds=0.0)
    stream = registry.open(MINA, "m1")
    assert registry.get(MINA, "m1") is stream
    with pytest.raises(NotFound):
        registry.get(JUN, "m1")
    stream.publish(Closed)
    await asyncio.sleep(0.01)
    with pytest.raises(NotFound, match="fetch its conversation"):
        registry.get(MINA, "m1")


def test_a_token_that_is_kept_is_nothing_to_look_through_for_the_garbage_collector() -> None:
    stream = TurnStream(MINA, "m1")
    for number in range(1000):
        stream.publish(AnswerDelta, text=f"word {number}")
    assert not any(gc.is_tracked(event) for event in stream._events)
