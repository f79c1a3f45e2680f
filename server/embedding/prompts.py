"""What a model wants to be told before each text, by what the text is for.

From the model's own `config_sentence_transformers.json`; where that says nothing, as its family's authors say in its
model card, known by the model's name: many models of the hub leave it to their readers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sentence_transformers import SentenceTransformer

from server.relations import TextRole

_QUERY_NAMES: Final = ("query",)
_PASSAGE_NAMES: Final = ("passage", "document", "corpus")
_TASK: Final = "Given a question, retrieve passages that answer it"
_FAMILIES: Final = (
    (r"\be5\b.*\binstruct\b", f"Instruct: {_TASK}\nQuery: ", ""),
    (r"\be5\b", "query: ", "passage: "),
    (r"\bbge-(?:small|base|large)-en\b", "Represent this sentence for searching relevant passages: ", ""),
    (r"\bqwen3-embedding\b", f"Instruct: {_TASK}\nQuery:", ""),
    (r"\bnomic-embed-text\b", "search_query: ", "search_document: "),
)


@dataclass(frozen=True, slots=True)
class Prompts:
    query: str = ""
    passage: str = ""

    def of(self, role: TextRole) -> str:
        """Texts that are compared with each other are taken as questions by a model that marks both sides, and as they
        are by one that marks questions alone."""
        if role is TextRole.PASSAGE:
            return self.passage
        return self.query if role is TextRole.QUERY or self.passage else ""


def prompts_of(model: SentenceTransformer, path_or_id: str) -> Prompts:
    own = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt}
    query = next((own[name] for name in _QUERY_NAMES if name in own), "")
    passage = next((own[name] for name in _PASSAGE_NAMES if name in own), "")
    if query or passage:
        return Prompts(query, passage)
    name = path_or_id.rstrip("/").rpartition("/")[2].lower()
    return next((Prompts(query, passage) for known, query, passage in _FAMILIES if re.search(known, name)), Prompts())
