"""The answer of a running turn as it grows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from server.chat.conversations.records import AnswerRecord
from server.chat.turn.pipeline import Piece
from server.retrieval import SearchResult
from server.types import Usage


@dataclass
class Draft:
    record: AnswerRecord = field(default_factory=AnswerRecord)
    found: SearchResult | None = None
    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None

    def add(self, piece: Piece) -> None:
        if self.first_token is None:
            self.first_token = time.monotonic()
        self.text += piece.answer
        self.tokens += piece.tokens
        if piece.reasoning:
            self.record = replace(self.record, reasoning=self.record.reasoning + piece.reasoning)

    def usage_so_far(self) -> Usage:
        """For an answer that was stopped, where the engine gives no account."""
        now = time.monotonic()
        ttft = (self.first_token or now) - self.started
        return Usage(self.prompt_tokens, self.tokens, 0, 0.0, ttft, now - self.started)
