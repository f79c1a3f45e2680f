"""Peers as processes: they answer what we answer, and say so when they cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import chats, models, ours, peers
from bench.chats import Chats
from bench.context import Bench
from bench.figure import Unavailable


def asked(folder: Path, *adapters: str) -> Chats:
    return chats.draw(
        "peers", 0, count=4, length=10, new=12, vocabulary=models.vocabulary(folder), adapters=list(adapters)
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["peft-one", "peft-batch"])
async def test_peft_gives_the_same_answers_over_the_same_adapters(bench: Bench, kind: str) -> None:
    folder = models.chat_model(bench)
    adapters = models.adapters(bench, folder)
    mixed = asked(folder, "a0", "a1")
    async with ours.started(bench, folder, adapters) as engine, peers.started(bench, kind, folder, adapters) as peer:
        mine = await ours.run(engine, mixed)
        theirs = await peer.run(mixed, engine.tokenizer.decode)
    assert theirs.tokens == mine.tokens == 48
    assert theirs.seconds > 0
    assert chats.alike(mine, theirs) == "same text in 4 of 4"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generate", "continuous"])
async def test_transformers_gives_the_same_answers_without_adapters(bench: Bench, kind: str) -> None:
    folder = models.chat_model(bench)
    plain = asked(folder)
    async with ours.started(bench, folder) as engine, peers.started(bench, kind, folder) as peer:
        mine = await ours.run(engine, plain)
        theirs = await peer.run(plain, engine.tokenizer.decode)
        again = await peer.run(plain, engine.tokenizer.decode)
    assert theirs.texts == again.texts
    assert chats.alike(mine, theirs) == "same text in 4 of 4"


@pytest.mark.slow
async def test_a_peer_times_one_chat_from_its_first_token_and_tells_its_errors(bench: Bench) -> None:
    folder = models.chat_model(bench)
    one = chats.draw("one", 0, count=1, length=10, new=12, vocabulary=models.vocabulary(folder))
    async with peers.started(bench, "generate", folder) as peer:
        timed = await peer.run(one, str, alone=True)
        assert timed.tokens == 11
        with pytest.raises(peers.PeerFailed, match="serves the base alone"):
            await peer.run(replace(one, adapters=("a0",)), str)
        with pytest.raises((peers.PeerFailed, ConnectionError)):
            await peer.run(one, str)


async def test_a_model_that_is_not_there_is_an_error_with_its_reason(bench: Bench) -> None:
    with pytest.raises(peers.PeerFailed, match="nowhere"):
        async with peers.started(bench, "generate", bench.folder / "nowhere"):
            pass


async def test_a_peer_that_ends_without_a_word_shows_its_log(bench: Bench) -> None:
    log = bench.folder / "mute.log"
    process = await peers.spawn(bench, ["sh", "-c", "echo its last words >&2; exit 3"], log, talks=True)
    with pytest.raises(peers.PeerFailed, match="its last words"):
        await peers.Peer(process, log).read(20)
    await peers.stop(process)


async def test_a_peer_that_does_not_listen_is_ended(bench: Bench) -> None:
    process = await peers.spawn(bench, ["sleep", "600"], bench.folder / "deaf.log")
    await peers.stop(process)
    assert process.returncode is not None


def test_a_peer_of_an_environment_of_its_own_is_unavailable_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PEERS", tmp_path)
    with pytest.raises(Unavailable, match="make bench-peers"):
        peers.interpreter("vllm")
    python = tmp_path / "vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert peers.interpreter("vllm") == str(python)


def test_all_processes_get_the_same_threads_and_none_of_our_settings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILOR_ENGINE_MAX_BATCH", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("KEPT", "yes")
    environment = peers.environment(replace(bench, threads=3))
    assert (environment["OMP_NUM_THREADS"], environment["MKL_NUM_THREADS"]) == ("3", "3")
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["KEPT"] == "yes"
    assert not any(name.startswith("TAILOR_") for name in environment)


def test_only_the_last_words_are_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff\n" + b"".join(b"line %d\n" % number for number in range(50)))
    assert peers.last_words(log, 2) == "line 48\nline 49"
    assert peers.last_words(log).startswith("line 38")
