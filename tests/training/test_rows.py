"""What a row's tokens and labels are: the served prompt, the answer, its end, and nothing else learnt."""

from __future__ import annotations

import json

import pytest
import torch

from server.config import PromptSettings
from server.datasets import Example, parse_example
from server.errors import ContextFull
from server.prompting import Domain, UserProfile, compose
from server.training.rows import IGNORED, Row, collate, domain_for, prompt_ids, tokenised
from tests.fakes import ByteTokenizer

DOMAIN = Domain(name="general", title="General", description="", body="You help.")
CONTEXT = 10_000


def example(**row: object) -> Example:
    return parse_example("rows", 3, json.dumps({"question": "How long?", "answer": "45 days [1].", **row}))


def test_the_prompt_is_the_one_that_serving_composes(byte_tokenizer: ByteTokenizer):
    row = example(sources=[{"file": "a.md", "text": "Within 45 days."}], memories=["Likes tea."],
                  history=[{"question": "Hi", "answer": "Hello."}])  # fmt: skip
    served = compose(
        DOMAIN, question=row.question, history=row.history, context=row.context, user=UserProfile(),
        tokenizer=byte_tokenizer, context_length=CONTEXT, settings=PromptSettings(),
    )  # fmt: skip
    ids = prompt_ids(DOMAIN, row, byte_tokenizer, CONTEXT)
    assert ids == served.token_ids
    text = byte_tokenizer.decode(ids)
    assert "[1] a.md\nWithin 45 days." in text
    assert "- Likes tea." in text
    assert text.endswith("Question: How long?assistant\n")


def test_the_answer_ends_with_the_end_of_turn(byte_tokenizer: ByteTokenizer):
    found = tokenised([example()], domain=DOMAIN, tokenizer=byte_tokenizer, max_tokens=999, context_length=CONTEXT)
    (row,) = found.rows
    assert row.ids[-1] == ByteTokenizer.END
    assert byte_tokenizer.decode(row.ids[-row.answer :]) == "45 days [1]."
    assert row.answer == len("45 days [1].") + 1


def test_labels_cover_the_answer_alone_and_padding_is_on_the_left():
    batch = collate([Row((1, 2, 3, 4, 5), 2), Row((7, 8, 9), 1)])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [0, 0, 7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORED] * 3 + [4, 5], [IGNORED] * 4 + [9]]
    assert batch["labels"].dtype == torch.long


def test_a_rows_own_system_text_is_taken_literally(byte_tokenizer: ByteTokenizer):
    row = example(system="Answer {{ user.name }} {% endraw %} in JSON {braces}.")
    text = byte_tokenizer.decode(prompt_ids(DOMAIN, row, byte_tokenizer, CONTEXT))
    assert "Answer {{ user.name }}  in JSON {braces}." in text
    assert "You help." not in text
    assert domain_for(DOMAIN, example()) is DOMAIN


def test_long_rows_are_left_out_and_named(byte_tokenizer: ByteTokenizer):
    rows = [example(), example(answer="x" * 500)]
    found = tokenised(rows, domain=DOMAIN, tokenizer=byte_tokenizer, max_tokens=200, context_length=CONTEXT)
    assert (len(found.rows), found.left_out, found.left_out_lines) == (1, 1, (3,))


def test_a_row_whose_sources_do_not_fit_is_left_out_and_not_trained_without_them(byte_tokenizer: ByteTokenizer):
    row = example(sources=[{"file": "a.md", "text": "word " * 300}])
    with pytest.raises(ContextFull):
        prompt_ids(DOMAIN, row, byte_tokenizer, 600)
    found = tokenised([row], domain=DOMAIN, tokenizer=byte_tokenizer, max_tokens=600, context_length=600)
    assert (found.rows, found.left_out) == ((), 1)
