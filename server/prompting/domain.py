"""What a domain is: one prompts/<name>.md after its check. Knows nothing of files or templates."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from server.types import SamplingParams, TurnContext


class AdapterWhen(StrEnum):
    """When a domain's adapter answers."""

    ALWAYS = "always"
    SOURCES = "sources"  # where the question stands beside sources; the base answers without


class Grounding(StrEnum):
    """What a domain does with a question for its knowledge on which nothing was found."""

    OPEN = "open"  # the model answers, as in any chat
    STRICT = "strict"  # the user is told that there is nothing


@dataclass(frozen=True, slots=True)
class FewShot:
    """An example turn that stands before every chat of the domain."""

    user: str
    assistant: str


@dataclass(frozen=True, slots=True)
class Domain:
    """One way to answer, and the levers it pulls.

    `body` is a Jinja2 template of the system text. `output` is a JSON Schema as JSON text; with
    `reasoning`, the model thinks inside `<think>…</think>` before it answers. `fingerprint` changes
    whenever the file's bytes do. `access`: names and `@groups` of those who may see it; None: everybody. `refusal`:
    what is said under strict grounding where nothing was found; '' for the server's own sentence, which is in the
    user's language.
    """

    name: str
    title: str
    description: str
    body: str
    adapter: str | None = None
    adapter_when: AdapterWhen = AdapterWhen.ALWAYS
    knowledge: tuple[str, ...] = ()
    grounding: Grounding = Grounding.OPEN
    refusal: str = ""
    memory: bool = True
    routes: tuple[str, ...] = ()
    examples: tuple[FewShot, ...] = ()
    reasoning: bool = False
    output: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    fingerprint: str = ""
    access: frozenset[str] | None = None

    def adapter_for(self, context: TurnContext) -> str | None:
        """The adapter that answers a question with this context."""
        return self.adapter if self.adapter_when is AdapterWhen.ALWAYS or context.searched else None


@dataclass(frozen=True, slots=True)
class UserProfile:
    """What a template may know of the user: `user.name`, '' where it is unknown."""

    name: str = ""


def new_nonce() -> str:
    """8 random hex characters for the fence around one turn's sources."""
    return secrets.token_hex(4)
