"""A peer's process from the inside: what it says, and that it never counts what it did not do."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from bench import worker
from bench.context import ROOT
from bench.worker import Done, Job


def job(new: int = 2, count: int = 2) -> Job:
    return Job([[1, 2, 3]] * count, [None] * count, new)


def test_the_time_is_that_of_the_answers() -> None:
    done = worker.timed(job(), lambda: [[1, 2], [3, 4]])
    assert (done.tokens, done.answers) == (4, [[1, 2], [3, 4]])
    assert 0 <= done.seconds < 1


@pytest.mark.parametrize("answers", [[[1, 2], [3]], [[1, 2]], [[1, 2, 3], [1, 2, 3]], []])
def test_answers_of_another_size_are_refused(answers: list[list[int]]) -> None:
    with pytest.raises(RuntimeError, match="not 2 of 2"):
        worker.timed(job(), lambda: answers)


def test_time_from_the_first_token_leaves_the_prompt_out() -> None:
    first = worker._FirstToken()
    first.put_at = [0.0, 5.0, 6.0, 7.0, 9.0]  # prompt, three tokens, end
    assert first.since(Done(9.0, 3, [[1, 2, 3]])) == Done(4.0, 2, [[1, 2, 3]])


def test_the_streamer_is_called_for_the_prompt_each_token_and_the_end() -> None:
    first = worker._FirstToken()
    first.put(None)
    first.put(None)
    first.end()
    assert first.put_at == sorted(first.put_at)
    assert len(first.put_at) == 3


def test_each_job_is_answered_with_a_line() -> None:
    class Echo:
        def run(self, job: Job) -> Done:
            return Done(0.5, job.new, job.prompts)

    jobs = "".join(json.dumps(asdict(job(new))) + "\n" for new in (1, 2))
    out = io.StringIO()
    worker.serve(Echo(), io.StringIO(jobs), out)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"seconds": 0.5, "tokens": new, "answers": [[1, 2, 3], [1, 2, 3]]} for new in (1, 2)
    ]


def start(kind: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.worker", kind, json.dumps(options)],
        cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip


def test_a_peer_that_cannot_start_says_why_on_its_own_line() -> None:
    done = start("abacus", model="", adapters={}, threads=1, device="cpu", chats=1, rank=1)
    assert done.returncode != 0
    assert json.loads(done.stdout) == {"error": "KeyError: 'abacus'"}
    assert "Traceback" in done.stderr


def test_a_worker_needs_nothing_of_the_rest() -> None:
    """It runs in environments where the product is not installed."""
    code = "import sys, bench.worker; print(sorted({name.split('.')[0] for name in sys.modules} & {'server', 'torch'}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
