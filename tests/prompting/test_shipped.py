"""The sample workspace's own prompts, as they are shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.config import PromptSettings
from server.prompting import Domain, PromptLibrary, UserProfile, compose
from server.types import SamplingParams, TurnContext
from tests.fakes import ByteTokenizer
from tests.prompting.test_constraint import accepts

FOLDER = Path(__file__).parents[2] / "prompts"
LIBRARY = PromptLibrary(FOLDER, "general")
DOMAINS = {domain.name: domain for domain in LIBRARY.domains()}
SPECIAL = ["contract-review", "log-parsing", "review-sentiment", "support-faq"]


def is_korean(text: str) -> bool:
    return any("가" <= char <= "힣" for char in text)


def test_all_files_are_sound():
    assert LIBRARY.problems() == ()
    assert sorted(DOMAINS) == sorted(path.stem for path in FOLDER.glob("*.md"))
    assert set(DOMAINS) >= {"general", *SPECIAL}


@pytest.mark.parametrize("name", SPECIAL)
def test_a_special_domain_has_routes_in_english_and_korean(name: str):
    routes = DOMAINS[name].routes
    assert len(routes) >= 8
    assert len(set(routes)) == len(routes)
    assert sum(is_korean(route) for route in routes) >= 2
    assert sum(not is_korean(route) for route in routes) >= 4


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=[*DOMAINS])
def test_texts_are_short_enough_for_a_small_model(domain: Domain):
    assert domain.description
    assert domain.title != domain.name
    assert len(domain.body.split()) <= 60


def test_what_the_shipped_adapters_were_trained_on():
    assert DOMAINS["general"].adapter == DOMAINS["support-faq"].adapter == "grounded"
    sentiment = DOMAINS["review-sentiment"]
    assert (sentiment.adapter, sentiment.output, sentiment.memory) == ("sentiment", None, False)
    assert sentiment.sampling == SamplingParams(temperature=0, max_tokens=8)


@pytest.mark.parametrize("name", ["contract-review", "log-parsing"])
def test_examples_are_answers_that_the_decoder_could_have_written(name: str):
    domain = DOMAINS[name]
    assert len(domain.examples) >= 2
    bundle = compose(
        domain,
        question="x",
        history=(),
        context=TurnContext(),
        user=UserProfile(),
        tokenizer=ByteTokenizer(),
        context_length=8192,
        settings=PromptSettings(),
    )
    for example in domain.examples:
        json.loads(example.assistant)
        assert accepts(bundle.constraint, example.assistant), example.assistant
    assert not accepts(bundle.constraint, "high")


def test_contract_review_rates_a_clause_and_log_parsing_names_a_template():
    contract = json.loads(DOMAINS["contract-review"].output or "")
    assert set(contract["required"]) == {"clause", "reason", "risk"}
    assert contract["properties"]["risk"]["enum"] == ["low", "medium", "high"]
    log = json.loads(DOMAINS["log-parsing"].output or "")
    assert set(log["required"]) == {"severity", "component", "template"}
