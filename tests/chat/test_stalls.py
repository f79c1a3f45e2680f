"""While a turn with a long or hostile message runs, the event loop goes on: everybody else is served meanwhile.

The engine is scripted; the tokenizer, the embedder and all that reads the message and the answer are real.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from server.chat.events import Done
from tests.adversarial_text import adversarial_texts
from tests.chat.test_service import MINA, ask
from tests.fakes import ScriptedEngine
from tests.live import make_app, make_workspace

LONG = 256 * 1024 - 1_000  # bytes: nearly the longest message that is taken
HOSTILE = 100_000
MOST_S = 0.25  # before another request is served, …
TRIES = 4  # … on a machine that does something else, too: the best of so many counts
CONTEXT = 400_000  # tokens: nothing is refused for its length

ENGLISH = "How do I return the lamp that I bought in Busan last week? My name is Mina, and it costs 45 euros, not 30. "
KOREAN = "저는 부산에서 서울로 이사했어요. 램프를 어떻게 반품하나요? 45일 안에 되나요? "
ANSWER = "You can return any lamp within 45 days of delivery [1]. The sender pays 30 euros for it [1]. "
CHOSEN = ("marks in disorder", "newlines", "one letter", "my name is", "code and marks", "Hangul syllables", "mixed")
MESSAGES = {
    "English": ENGLISH * (LONG // len(ENGLISH)),
    "Korean": KOREAN * (LONG // len(KOREAN.encode())),
    **{name: f"lamp {text}" for name, text in adversarial_texts(HOSTILE).items() if name in CHOSEN},
}


async def longest_stall(work: asyncio.Task[object]) -> float:
    """Seconds by which the loop came back too late while the work went on."""
    longest = 0.0
    while not work.done():
        begun = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - begun - 0.005)
    return longest


@pytest.mark.model
@pytest.mark.slow
async def test_the_loop_goes_on_while_long_texts_are_read(
    tmp_path: Path, chat_model_dir: Path, embedder_dir: Path
) -> None:
    from server.embedding import SentenceEmbedder
    from server.engine.model.tokenizer import ModelTokenizer

    engine = ScriptedEngine(lambda request, prompt: ANSWER * 400, adapters=["helper"], context_length=CONTEXT)
    engine.tokenizer = ModelTokenizer(str(chat_model_dir))  # type: ignore[assignment]
    app = make_app(make_workspace(tmp_path), engine, SentenceEmbedder(str(embedder_dir)))
    stalls = {}
    async with app.router.lifespan_context(app):
        services = app.state.services
        await asyncio.to_thread(services.knowledge.base.sync)
        for name, text in MESSAGES.items():
            for _ in range(TRIES):
                work = asyncio.create_task(ask(services.chat, MINA, text, domain="support"))
                stalls[name] = await longest_stall(work)
                assert any(isinstance(event, Done) for event in await work), name
                if stalls[name] < MOST_S:
                    break
    assert {name: stall for name, stall in stalls.items() if stall >= MOST_S} == {}
