"""The soak's bookkeeping: what it calls lost, mixed and grown."""

from __future__ import annotations

import argparse

import pytest

from bench.crowd import Answer, Findings, question_of
from bench.soak import growth, report, share


def events(*kinds: str) -> list[dict[str, object]]:
    named = [{"type": kind, "message_id": "m1", "seq": seq, "text": "word "} for seq, kind in enumerate(kinds, 1)]
    named[0]["conversation_id"] = "c1"
    return named


def read(found: list[dict[str, object]]) -> Answer:
    answer = Answer()
    for event in found:
        answer.take(event, 0.0)
    return answer


def test_a_whole_answer_has_no_gaps_and_ends() -> None:
    answer = read(events("started", "token", "token", "done", "closed"))
    assert (answer.text, answer.gaps, answer.done, answer.closed) == ("word word ", 0, True, True)


def test_a_missing_event_is_a_gap() -> None:
    found = events("started", "token", "token", "done", "closed")
    assert read([*found[:2], *found[3:]]).gaps == 1


def test_what_comes_twice_counts_once() -> None:
    found = events("started", "token", "done")
    assert read([*found, *found]).text == "word "


def test_events_of_another_answer_are_passed_over() -> None:
    stranger = {"type": "token", "message_id": "m2", "seq": 2, "text": "not mine"}
    assert "not mine" not in read([*events("started", "token"), stranger]).text


def test_the_text_of_another_question_is_mixed() -> None:
    findings = Findings()
    findings.compare(question_of(0), "about rivers")
    findings.compare(question_of(1), "about bread")
    findings.compare(question_of(0), "about rivers")
    findings.compare(question_of(0), "about bread")
    findings.compare(question_of(0), "about rivers, otherwise")
    assert (findings.counts["same"], findings.counts["mixed"], findings.counts["differs"]) == (1, 1, 1)


def test_memory_grows_from_after_the_warm_up() -> None:
    sizes = [100] * 10 + [200] * 10 + [220] * 30
    assert growth([(float(at), size) for at, size in enumerate(sizes)]) == pytest.approx(10)


@pytest.mark.parametrize(("part", "value"), [(0.5, 2.0), (0.95, 4.0), (0.25, 1.0)])
def test_the_share_of_values(part: float, value: float) -> None:
    assert share([4.0, 1.0, 2.0, 3.0], part) == value


def whole_run() -> Findings:
    findings = Findings(health=[0.01] * 100, memory=[(float(at), 1000) for at in range(50)])
    findings.counts.update({"answers": 3, "idle sockets alive": 2})
    return findings


def test_a_good_run_is_good_and_a_lost_answer_is_not() -> None:
    options = argparse.Namespace(idle=2)
    lines, good = report(whole_run(), options)
    assert good
    assert any("stored as streamed | 3" in line for line in lines)
    bad = whole_run()
    bad.fault("lost", "an answer")
    assert not report(bad, options)[1]
    late = whole_run()
    late.health[:2] = [0.4, 0.4]
    assert not report(late, options)[1]
