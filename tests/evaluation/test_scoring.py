"""What counts as right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.datasets import Example, parse_example
from server.evaluation.scoring import abstains, cited, classes_of, contains, is_right, label_in, normalised

SOURCES = [{"file": "a.md", "text": "A."}, {"file": "b.md", "text": "B."}]
LABELS = ("mixed", "negative", "positive")


def example(answer: str = "x", check: dict[str, Any] | None = None) -> Example:
    row = {"question": "q", "answer": answer, "sources": SOURCES, **({"check": check} if check else {})}
    return parse_example("rows", 1, json.dumps(row))


@pytest.mark.parametrize(
    ("answer", "part", "found"),
    [
        ("Within 45 days [1].", "45", True),
        ("Within 145 days.", "45", False),
        ("Within 45.5 days.", "45", False),
        ("It costs $1,200.", "1200", True),
        ("It costs 1200 dollars.", "$1,200", True),
        ("You get **three** weeks", "3", True),
        ("You get 3 weeks", "three", True),
        ("Ends on 31 March.", "31 march", True),
        ("at 9:30 in the Aula", "9:30", True),
        ("at 19:30 in the Aula", "9:30", False),
        ("freedom", "free", False),
        ("See source [45].", "45", False),
        ("환불은 14일 안에", "14일", True),
    ],
)
def test_required_strings_are_whole_words(answer: str, part: str, found: bool):
    assert contains(answer, part) is found


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [("A [1]. B [2].", {1, 2}), ("A [1, 3].", {1, 3}), ("A [1][2]", {1, 2}), ("none", set()), ("[a] [x1]", set())],
)
def test_citations(answer: str, numbers: set[int]):
    assert cited(answer) == numbers


@pytest.mark.parametrize(
    "answer",
    [
        "The sources do not say anything about that.",
        "I found nothing about that in the sources.",
        "You have not told me that yet.",
        "The provided text doesn't mention the price.",
        "There is no information about pets in the sources.",
        "I'm sorry, but I cannot find the answer.",
        "I don't know.",
        "The price is not specified. Please ask the shop.",
    ],
)
def test_ways_to_abstain(answer: str):
    assert abstains(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "The price is $20 [1].",
        "It takes two days.",
        "No, dogs are not allowed.",
        "The sources do not say, but source [2] hints at 20 days.",
        "",
    ],
)
def test_answers_that_do_not_abstain(answer: str):
    assert not abstains(answer)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("It takes 45 days [2].", True),
        ("It takes 45 days [1].", False),
        ("It takes 45 days.", False),
        ("It takes 45 days [1][2].", False),
        ("It takes 30 days [2].", False),
        ("The sources do not say.", False),
    ],
)
def test_a_check_wants_the_strings_and_exactly_the_citations(answer: str, right: bool):
    row = example(check={"contains": ["45 days"], "cites": [2]})
    assert is_right(row, answer) is right


def test_without_cites_any_citation_will_do_and_with_empty_cites_none():
    assert is_right(example(check={"contains": ["45"]}), "45 [1]")
    assert not is_right(example(check={"contains": ["45"], "cites": []}), "45 [1]")


def test_a_row_that_must_abstain():
    row = example(check={"abstains": True, "cites": []})
    assert is_right(row, "The sources do not say.")
    assert not is_right(row, "It takes 45 days [1].")


def test_without_a_check_the_answer_itself_is_right():
    assert is_right(example("The Lantern Year"), " the lantern  year. ")
    assert not is_right(example("The Lantern Year"), "The Lantern Year, I think")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("positive", "positive"),
        ("Positive.", "positive"),
        ("The review is **negative**.", "negative"),
        ("It is positive, or maybe negative", ""),
        ("unpositively good", ""),
        ("", ""),
    ],
)
def test_labels_are_found_when_exactly_one_is_named(answer: str, label: str):
    assert label_in(answer, LABELS) == label
    assert is_right(example("positive"), answer, LABELS) is (label == "positive")


def test_classes_are_few_short_repeated_answers_without_checks():
    rows = [example(label) for label in ("Positive", "negative", "mixed") * 4]
    assert classes_of(rows) == LABELS
    assert classes_of([example(f"answer {n}") for n in range(9)]) == ()
    assert classes_of([*rows, example("x", {"contains": ["x"]})]) == ()
    assert classes_of([example("this is a long answer")] * 9 + [example("no")] * 9) == ()
    assert classes_of([example("yes")] * 9) == ()


def test_normalisation_leaves_korean_alone():
    assert normalised(" 긍정. ") == "긍정"
    assert normalised("“Twelve”") == "12"


def test_a_check_wants_every_string():
    row = example(check={"contains": ["Winter Garden", "17"]})
    assert is_right(row, "In the winter garden for 17 euros.")
    assert not is_right(row, "In the winter garden.")
    assert not is_right(row, "17 euros.")


@pytest.mark.parametrize("answer", ["The sources do not say [1].", "Nothing is said about it [2], sorry, no answer."])
def test_an_abstention_that_cites_is_none(answer: str):
    assert not abstains(answer)


def test_an_abstention_may_stand_in_any_sentence():
    assert abstains("Thank you for asking!\nUnfortunately the document does not mention pets. Have a nice day.")


def test_a_denial_and_a_word_of_knowing_must_share_a_sentence():
    assert not abstains("No. The list holds three pieces.")
    assert not abstains("You can find it here. Dogs are not welcome.")


@pytest.mark.parametrize(("first", "second"), [("1,200", "1200"), ("Three", "3"), ("“yes”", "yes"), ("a  b", "A b.")])
def test_normalisation_makes_equal(first: str, second: str):
    assert normalised(first) == normalised(second)


@pytest.mark.parametrize(("first", "second"), [("1.5", "15"), ("not covered", "covered"), ("31 March", "31 May")])
def test_normalisation_keeps_apart(first: str, second: str):
    assert normalised(first) != normalised(second)


def test_korean_labels():
    labels = ("긍정", "부정")
    assert label_in("긍정.", labels) == "긍정"
    assert label_in("리뷰: 부정", labels) == "부정"
