"""What a domain is: one prompts/<name>.md after its check. Knows nothing of files or templates."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from server.types import SamplingParams


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
    whenever the file's bytes do. `access`: names and `@groups` of those who may see it; None: everybody.
    """

    name: str
    title: str
    description: str
    body: str
    adapter: str | None = None
    knowledge: tuple[str, ...] = ()
    memory: bool = True
    routes: tuple[str, ...] = ()
    examples: tuple[FewShot, ...] = ()
    reasoning: bool = False
    output: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    fingerprint: str = ""
    access: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class UserProfile:
    """What a template may know of the user: `user.name`, '' where it is unknown."""

    name: str = ""


def new_nonce() -> str:
    """8 random hex characters for the fence around one turn's sources."""
    return secrets.token_hex(4)
