"""The card says what was done, in figures a reader can check against tailor.json."""

from __future__ import annotations

from typing import Any

import pytest

from server.datasets import DatasetReport
from server.training.card import card

REPORT = DatasetReport(read=120, kept=110, duplicates=6, conflicts=2, broken=4, problems=("line 9: not valid JSON",))
FACTS: dict[str, Any] = {
    "base_fingerprint": "abcd1234",
    "description": "Sorts tickets.",
    "domain": "tickets",
    "recipe": {
        "rank": 8, "alpha": 16, "dropout": 0.1, "target_modules": ("q_proj", "v_proj"), "learning_rate": 3e-4,
        "epochs": 1.5, "batch": 4, "accumulation": 2, "seed": 9,
    },
    "rows": {"trained": 90, "held_out": 15, "tokens": 12_345, "left_out": 5},
    "metrics": {"held_out_loss_base": 2.5, "held_out_loss": 0.75},
    "created": "2026-01-02T03:04:05+00:00",
}  # fmt: skip


@pytest.mark.parametrize(
    "expected",
    [
        "# tickets-lora\n\nSorts tickets.",
        "| base | Base-1 (fingerprint `abcd1234`) |",
        "| prompts | those of the domain `tickets` |",
        "120 rows read, 110 kept, 6 dropped as exact duplicates",
        "4 dropped as broken (line 9: not valid JSON)",
        "90 rows, 12,345 tokens; 15 rows held out, 5 too long",
        "LoRA rank 8, alpha 16, dropout 0.1 on q_proj, v_proj",
        "AdamW 0.0003, 1.5 epochs, 4 × 2 rows a step, seed 9",
        "in 2 min 03 s",
        "0.750 nats per answer token, against 2.500 of the base",
        "The licence of the base model holds for the adapter too",
    ],
)
def test_the_card_holds(expected: str):
    assert expected in card("tickets-lora", "Base-1", FACTS, REPORT, 123.4)


def test_all_linear_layers_are_named_in_words():
    facts = {**FACTS, "recipe": {**FACTS["recipe"], "target_modules": ()}}
    assert "on all linear layers but the head;" in card("x", "b", facts, REPORT, 1)


@pytest.mark.parametrize("missing", ["held_out_loss", "held_out_loss_base"])
def test_a_loss_that_was_not_measured_is_not_made_up(missing: str):
    facts = {**FACTS, "metrics": {**FACTS["metrics"], missing: None}}
    text = card("x", "b", facts, REPORT, 1)
    assert "nothing was held out" in text
    assert "nan" not in text.casefold()


def test_a_clean_file_has_no_words_on_what_was_dropped():
    clean = DatasetReport(10, 10, 0, 0, 0, ())
    assert "| data | 10 rows read, 10 kept |" in card("x", "b", FACTS, clean, 1)
