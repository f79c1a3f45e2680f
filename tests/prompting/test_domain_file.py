from __future__ import annotations

import json

import pytest

from server.errors import PromptFileError
from server.prompting.domain import FewShot
from server.prompting.domain_file import MAX_BYTES, parse_domain
from server.types import SamplingParams

FULL = """\
---
title: Contract review
description: Finds risky clauses.
adapter: contract-risk@2
knowledge: [contracts, law.kr]
memory: false
routes: ["Is this clause risky?", "이 조항이 위험한가요?"]
examples:
  - {user: "Fees may change.", assistant: "high"}
reasoning: true
output:
  type: object
  properties: {risk: {enum: [low, high]}}
  required: [risk]
sampling: {temperature: 0, top_p: 0.9, top_k: 40, max_tokens: 300, stop: ["END"], seed: 7}
---
You review contracts for {{ user.name or "a colleague" }}.
"""


def parse(text: str | bytes, file: str = "contract-review.md"):
    return parse_domain(file, text if isinstance(text, bytes) else text.encode())


def fault(text: str | bytes, file: str = "contract-review.md") -> PromptFileError:
    with pytest.raises(PromptFileError) as caught:
        parse(text, file)
    return caught.value


def front(matter: str, body: str = "Be kind.\n") -> str:
    return f"---\n{matter}\n---\n{body}"


def test_every_key_reaches_the_domain():
    domain = parse(FULL)
    assert (domain.name, domain.title, domain.description) == (
        "contract-review",
        "Contract review",
        "Finds risky clauses.",
    )
    assert domain.adapter == "contract-risk@2"
    assert domain.knowledge == ("contracts", "law.kr")
    assert domain.memory is False
    assert domain.routes == ("Is this clause risky?", "이 조항이 위험한가요?")
    assert domain.examples == (FewShot("Fees may change.", "high"),)
    assert domain.reasoning is True
    assert json.loads(domain.output or "")["required"] == ["risk"]
    assert domain.sampling == SamplingParams(temperature=0, top_p=0.9, top_k=40, max_tokens=300, stop=("END",), seed=7)
    assert domain.body.startswith("You review contracts")


def test_the_least_file_is_a_body_and_takes_the_defaults():
    domain = parse("Be kind.")
    assert (domain.title, domain.adapter, domain.knowledge, domain.memory) == ("contract-review", None, (), True)
    assert domain.output is None
    assert domain.sampling == SamplingParams()


@pytest.mark.parametrize("text", ["---\n---\nBe kind.", "---\n# only a comment\n---\nBe kind."])
def test_front_matter_may_be_empty(text: str):
    assert parse(text).body == "Be kind."


def test_a_byte_order_mark_and_windows_line_ends_are_read():
    domain = parse(b"\xef\xbb\xbf---\r\ntitle: T\r\n---\r\nBe kind.\r\n")
    assert (domain.title, domain.body) == ("T", "Be kind.\n")


def test_a_rule_of_dashes_in_the_body_is_text():
    assert parse(front("title: T", "One\n---\nTwo")).body == "One\n---\nTwo"


def test_the_fingerprint_follows_the_bytes():
    assert parse("Be kind.").fingerprint == parse("Be kind.").fingerprint != parse("Be kind!").fingerprint


@pytest.mark.parametrize(
    ("matter", "line", "words"),
    [
        ("title: T\nadaptor: x", 3, ["unknown key 'adaptor'", "did you mean 'adapter'?"]),
        ("zzz: 1", 2, ["unknown key 'zzz'", "known are title"]),
        ("title: T\nsampling:\n  temprature: 1", 4, ["'sampling.temprature'", "did you mean 'temperature'?"]),
        ("examples:\n  - user: a\n    assistant: b\n  - user: c\n    asistant: d", 5, ["'assistant'"]),
        ("title: T\nmemory: 3", 3, ["'memory'", "true or false", "it is 3"]),
        ("title: 2024-01-01", 2, ["'title' must be text"]),
        ("title: ''", 2, ["'title'", "empty"]),
        ("knowledge: contracts", 2, ["'knowledge'", "must be a list"]),
        ("knowledge:\n  - ok\n  - ../../etc", 4, ["'knowledge.1'", "must name a folder", "../../etc"]),
        ("adapter: /tmp/x", 2, ["'adapter.name'", "plain name", "/tmp/x"]),
        ("routes:\n- one\n- 2", 4, ["'routes.1' must be text"]),
        ("sampling:\n  temperature: -1", 3, ["'sampling.temperature'", "must be greater than or equal to 0"]),
        ("sampling:\n  temperature: true", 3, ["'sampling.temperature'", "must be a number"]),
        ("sampling:\n  top_p: '0.5'", 3, ["'sampling.top_p'", "must be a number"]),
        ("sampling:\n  temperature: .nan", 3, ["'sampling.temperature'"]),
        ("sampling: {max_tokens: 0}", 2, ["'sampling.max_tokens'"]),
        ("sampling: {logit_bias: {1: 2}}", 2, ["'1' is not text"]),
        ("title: a\ntitle: b", 3, ["'title' stands twice"]),
        ("title: a\nyes: b", 3, ["'yes' is not text", "quotes"]),
        ("title: a\n? [a, b]\n: c", 3, ["this key is not text"]),
        ("title: &a x\ndescription: *a", 3, ["'*a'", "aliases"]),
        ("title: [", 2, ["not valid YAML"]),
        ("title: T\n bad: indent\n", 3, ["not valid YAML"]),
        ("title: T\n\tx: 1", 3, ["not valid YAML"]),
        ("title: !!python/object:os.system x", 2, ["not valid YAML", "tag"]),
        ("title: 2024-99-99", 2, ["not valid YAML"]),
        ("- a\n- b", 2, ["'key: value'"]),
        ("title: T\ndescription: a\x00b", 3, ["control character", "U+0000"]),
        ("title: T\noutput:\n  type: objct", 3, ["'output'", "JSON Schema", "objct"]),
        ("output: text", 2, ["'output'", "must be a mapping"]),
        ("title: T\noutput: {const: 2024-01-01}", 3, ["'output'", "JSON values", "quotes"]),
        ("title: T\noutput: {x-guidance: 3}", 3, ["'output'", "expected struct"]),
    ],
)
def test_a_fault_of_the_front_matter_names_its_line(matter: str, line: int, words: list[str]):
    error = fault(front(matter))
    assert error.line == line, error
    assert error.file == "contract-review.md"
    for word in words:
        assert word in error.reason


def test_several_faults_are_reported_at_once_with_their_lines():
    error = fault(front("memory: 3\ntitle: T\nadaptor: x"))
    assert error.line == 2
    assert "'memory'" in error.reason
    assert "line 4: unknown key 'adaptor'" in error.reason


def test_deep_nesting_is_an_error_and_not_a_crash():
    error = fault(front("title: T\noutput: " + "[" * 5000))
    assert error.line == 3
    assert "levels deep" in error.reason


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("---\ntitle: T\nBe kind.", 1, "not closed"),
        ("---\ntitle: T\n---\n\n  \n", 4, "body is empty"),
        ("", 1, "body is empty"),
        (b"---\ntitle: T\n---\nBe \xff kind.", 4, "not UTF-8"),
        ("Be kind. " * MAX_BYTES, 1, "bytes"),
    ],
)
def test_a_fault_of_the_file_names_its_line(text: str | bytes, line: int, words: str):
    error = fault(text)
    assert error.line == line
    assert words in error.reason


@pytest.mark.parametrize(
    ("body", "line", "words"),
    [
        ("One\nTwo {{ usr.name }}", 5, ["'usr'", "did you mean 'user'?"]),
        ("{{ a }}\n{{ b }}", 4, ["'a'", "'b'"]),
        ("One\n{% if user.name %}", 5, ["not valid Jinja2"]),
        ("One\n\n{{ user.nam }}", 6, ["nam"]),
        ("One\n{% include 'x' %}", 5, ["rendered"]),
        ("One\n{{ 1 / 0 }}", 5, ["division"]),
        ("One\n{{ user.name | nofilter }}", 5, ["nofilter"]),
    ],
)
def test_a_fault_of_the_template_has_the_files_own_line_number(body: str, line: int, words: list[str]):
    error = fault(front("title: T", body))
    assert error.line == line, error
    for word in words:
        assert word in error.reason


@pytest.mark.parametrize("name", ["Contract.md", "a b.md", "계약.md", "x" * 65 + ".md"])
def test_a_bad_file_name_is_refused(name: str):
    assert "a-z" in fault("Be kind.", name).reason


def test_the_message_reads_as_a_sentence():
    assert str(fault(front("title: T\nmemory: maybe"))).startswith("contract-review.md, line 3: 'memory'")
