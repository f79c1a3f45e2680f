from __future__ import annotations

import pytest

from server.model_router import (
    DEFAULT_COLUMNS,
    DOMAIN_COLUMNS,
    DomainEvidence,
    Message,
    default_columns,
    domain_columns,
    posterior,
)
from server.model_router.choice_model import DEFAULT_WEIGHTS, DOMAIN_WEIGHTS, MOST_FILES_ODDS, MOST_ODDS

PLAIN = Message(follow_up=False, explicit=False, courtesy=False, words=6)
GOES_ON = Message(follow_up=True, explicit=True, courtesy=False, words=1)


def likelihoods(
    message: Message, evidence: dict[str, DomainEvidence], *, default: float | None = 0.5, last: str = ""
) -> dict[str, float]:
    columns = [domain_columns(message, found, last=name == last) for name, found in evidence.items()]
    scores, none = posterior(columns, default_columns(message, default, last=last == "default"))
    return {**dict(zip(evidence, scores, strict=True)), "default": none}


def test_each_column_has_a_weight() -> None:
    assert len(DOMAIN_COLUMNS) == len(DOMAIN_WEIGHTS) == len(domain_columns(PLAIN, DomainEvidence(), last=True))
    assert len(DEFAULT_COLUMNS) == len(DEFAULT_WEIGHTS) == len(default_columns(PLAIN, None, last=True))


def test_likelihoods_sum_to_one_and_follow_the_evidence() -> None:
    found = likelihoods(PLAIN, {"likely": DomainEvidence(0.99, 0.9), "unlikely": DomainEvidence(0.1, 0.1)})
    assert sum(found.values()) == pytest.approx(1)
    assert found["likely"] > 0.8 > found["default"] > found["unlikely"]


@pytest.mark.parametrize("better", [DomainEvidence(0.95, 0.5), DomainEvidence(0.9, 0.8)])
def test_more_of_either_evidence_is_more_likely(better: DomainEvidence) -> None:
    worse = likelihoods(PLAIN, {"d": DomainEvidence(0.9, 0.5)})["d"]
    assert likelihoods(PLAIN, {"d": better})["d"] > worse


def test_what_is_not_known_speaks_neither_for_nor_against() -> None:
    assert domain_columns(PLAIN, DomainEvidence(), last=False) == [0.0] * len(DOMAIN_COLUMNS)
    assert domain_columns(PLAIN, DomainEvidence(0.5, 0.5), last=False)[:3] == [0.0, 0.0, 1.0]


def test_a_certainty_counts_for_so_much_and_no_more() -> None:
    columns = domain_columns(PLAIN, DomainEvidence(1.0, 0.0), last=False)
    assert columns[:2] == [MOST_ODDS, -MOST_FILES_ODDS]


def test_a_message_that_goes_on_stays_with_the_last_domain_unless_another_is_clear() -> None:
    evidence = {"last": DomainEvidence(0.4, 0.2), "other": DomainEvidence(0.4, 0.2)}
    found = likelihoods(GOES_ON, evidence, last="last")
    assert found["last"] > found["default"] > found["other"]
    assert likelihoods(GOES_ON, evidence)["default"] > 0.5
    clear = {**evidence, "other": DomainEvidence(0.999, 0.98)}
    found = likelihoods(PLAIN, clear, last="last")
    assert found["other"] > 0.8


def test_the_routes_of_the_default_keep_a_message_there() -> None:
    evidence = {"d": DomainEvidence(0.8, 0.5)}
    assert likelihoods(PLAIN, evidence, default=0.99)["d"] < likelihoods(PLAIN, evidence, default=0.1)["d"]


@pytest.mark.parametrize(
    ("text", "follow_up", "courtesy"),
    [
        ("and for two?", True, False),
        ("Thanks!", True, True),
        ("Reset the password of the warehouse printer on the second floor", False, False),
    ],
)
def test_a_message_is_read_for_whether_it_goes_on(text: str, follow_up: bool, courtesy: bool) -> None:
    found = Message.of(text)
    assert (found.follow_up, found.courtesy) == (follow_up, courtesy)


def test_nothing_speaks_for_no_domain_where_there_is_none() -> None:
    assert posterior([], default_columns(PLAIN, 0.5, last=False)) == ([], 1.0)
