"""Examples as token rows: the very prompt that serving composes, then the answer with its end of turn.

Labels are -100 on the prompt, so that only the answer is learnt. Batches are padded on the left: all
answers end in the last column, and the head needs to look at the last few columns alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from server.config import PromptSettings
from server.datasets import Example
from server.errors import ContextFull
from server.prompting import Domain, UserProfile, compose
from server.types import ChatTokenizer

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids of prompt and answer; the last `answer` ids are the answer's, its end of turn included."""

    ids: tuple[int, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Rows:
    """`left_out_lines` names the rows that were left out because they are longer than the bound."""

    rows: tuple[Row, ...]
    left_out: int
    left_out_lines: tuple[int, ...]


def domain_for(domain: Domain, example: Example) -> Domain:
    """The domain as the example wants it: its own system text, where it brings one, taken literally."""
    if not example.system:
        return domain
    return replace(domain, body="{% raw %}" + example.system.replace("{% endraw %}", "") + "{% endraw %}")


def prompt_ids(domain: Domain, example: Example, tokenizer: ChatTokenizer, context_length: int) -> tuple[int, ...]:
    """The prompt that serving would compose. Raises ContextFull when sources or turns would not fit."""
    bundle = compose(
        domain_for(domain, example),
        question=example.question,
        history=example.history,
        context=example.context,
        user=UserProfile(),
        tokenizer=tokenizer,
        context_length=context_length,
        settings=PromptSettings(evidence_tokens=context_length),
    )
    if bundle.dropped_passages or bundle.trimmed_turns or bundle.trimmed_evidence:
        raise ContextFull("a part of the row would not be shown to the model")
    return bundle.token_ids


def tokenised(
    examples: Sequence[Example], *, domain: Domain, tokenizer: ChatTokenizer, max_tokens: int, context_length: int
) -> Rows:
    """A row for each example that fits into `max_tokens`, in order."""
    rows: list[Row] = []
    lines: list[int] = []
    for example in examples:
        answer = tokenizer.answer(example.answer)
        try:
            prompt = prompt_ids(domain, example, tokenizer, context_length)
        except ContextFull:
            lines.append(example.line)
            continue
        if len(prompt) + len(answer) > max_tokens:
            lines.append(example.line)
        else:
            rows.append(Row((*prompt, *answer), len(answer)))
    return Rows(tuple(rows), len(lines), tuple(lines))


def collate(rows: Sequence[Row], pad: int = 0) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and labels, [rows, longest]; padding is on the left and never attended."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    for index, row in enumerate(rows):
        size = len(row.ids)
        ids[index, -size:] = torch.tensor(row.ids)
        mask[index, -size:] = 1
        labels[index, -row.answer :] = ids[index, -row.answer :]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
