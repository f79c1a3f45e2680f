"""Bounded, in order, and nothing that matters is lost."""

from __future__ import annotations

import asyncio

from server.api.protocol import Changed, FrameError
from server.api.transport.outbox import Outbox


def frame(number: int) -> FrameError:
    return FrameError("busy", str(number))


async def test_a_full_outbox_makes_its_writers_wait_and_keeps_the_order() -> None:
    outbox = Outbox(3)
    written: list[int] = []

    async def write() -> None:
        for number in range(10):
            await outbox.put(frame(number))
            written.append(number)

    writer = asyncio.create_task(write())
    await asyncio.sleep(0.01)
    assert written == [0, 1, 2]
    read = [await asyncio.wait_for(outbox.get(), 10) for _ in range(10)]
    assert read == [frame(number) for number in range(10)]
    await writer


async def test_changes_never_wait_and_say_a_thing_once() -> None:
    outbox = Outbox(1)
    await outbox.put(frame(1))
    for _ in range(1000):
        outbox.note(Changed("memories"))
        outbox.note(Changed("knowledge"))
    assert [await outbox.get() for _ in range(3)] == [Changed("memories"), Changed("knowledge"), frame(1)]
    reader = asyncio.create_task(outbox.get())
    await asyncio.sleep(0)
    assert not reader.done()
    outbox.note(Changed("memories"))
    assert await asyncio.wait_for(reader, 10) == Changed("memories")
