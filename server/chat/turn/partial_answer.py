"""The answer of a running turn as it grows. In memory only; knows no store and no stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from server.chat.conversations.records import AnswerRecord
from server.chat.turn.pipeline import TextDelta
from server.retrieval import SearchResult
from server.types import Usage


@dataclass
class PartialAnswer:
    record: AnswerRecord = field(default_factory=AnswerRecord)
    search_result: SearchResult | None = None
    text: str = ""
    completion_tokens: int = 0
    prompt_tokens: int = 0
    started_at: float = field(default_factory=time.monotonic)
    first_token_at: float | None = None

    def add(self, delta: TextDelta) -> None:
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()
        self.text += delta.answer
        self.completion_tokens += delta.tokens
        if delta.reasoning:
            self.record = replace(self.record, reasoning=self.record.reasoning + delta.reasoning)

    def usage_so_far(self) -> Usage:
        """For an answer that was stopped, where the engine gives no account."""
        now = time.monotonic()
        ttft = (self.first_token_at or now) - self.started_at
        return Usage(self.prompt_tokens, self.completion_tokens, 0, 0.0, ttft, now - self.started_at)
