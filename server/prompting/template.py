"""A domain's system text: a Jinja2 template with four variables, checked when it is loaded.

    user.name      the user's name, '' where it is unknown
    domain.title   the domain's title
    today          the date, such as 2026-03-31
    sources        whether the chat has sources, in this turn or before

The sandbox has no loader, what a template makes is bounded, and an undefined variable is an error. What stands in
for a variable is text, never a template. Knows nothing of files: a TemplateFault's `line` counts inside the template.
"""

from __future__ import annotations

import datetime
import difflib
import traceback
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta, nodes

from server.errors import PromptError
from server.prompting.domain import Domain, UserProfile
from server.prompting.sandbox import PromptEnvironment

VARIABLES = ("domain", "sources", "today", "user")
NAME_CHARS = 80

# What a sandboxed template can raise while it runs: its own errors, and those of the operators it uses.
_RENDER_ERRORS = (
    TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
)


class TemplateFault(Exception):
    """Why a template cannot be used. `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _TemplateDomain:
    title: str


_ENVIRONMENT = PromptEnvironment()


def check_template(source: str, title: str) -> None:
    """Raises TemplateFault: bad syntax, unknown variables (all of them), or a failure when it is rendered."""
    try:
        _compiled(source)
        tree = _ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        raise TemplateFault(error.lineno, f"the template is not valid Jinja2: {error.message}") from error
    unknown = meta.find_undeclared_variables(tree) - set(VARIABLES)
    if unknown:
        first = min(node.lineno for node in tree.find_all(nodes.Name) if node.name in unknown)
        raise TemplateFault(first, _unknown(sorted(unknown)))
    for name, sources in (("", False), ("Kim", True)):  # both sides of the usual `user.name or …`
        try:
            _rendered(source, title, UserProfile(name), datetime.date(2026, 1, 31), sources=sources)
        except _RENDER_ERRORS as error:
            raise TemplateFault(_template_line(error), f"the template fails when it is rendered: {error}") from error


def render_system(
    domain: Domain, user: UserProfile, today: datetime.date | None = None, *, sources: bool = True
) -> str:
    """The domain's system text for this user. Raises PromptError naming domain and line."""
    try:
        return _rendered(domain.body, domain.title, user, today or datetime.date.today(), sources=sources)
    except _RENDER_ERRORS as error:
        raise PromptError(
            f"the prompt of '{domain.name}' fails at line {_template_line(error)} of its text: {error}; "
            f"edit the template, which may use {', '.join(VARIABLES)}"
        ) from error


def _rendered(source: str, title: str, user: UserProfile, today: datetime.date, *, sources: bool) -> str:
    name = " ".join(user.name.split())[:NAME_CHARS]  # the user's own words: one line, no room for a speech
    domain = _TemplateDomain(title)
    compiled = _compiled(source)
    return _ENVIRONMENT.rendered(
        compiled, user=UserProfile(name), domain=domain, today=today.isoformat(), sources=sources
    ).strip()


@lru_cache(maxsize=256)
def _compiled(source: str) -> Template:
    return _ENVIRONMENT.compiled(source)


def _unknown(names: list[str]) -> str:
    parts = []
    for name in names:
        near = difflib.get_close_matches(name, VARIABLES, n=1)
        parts.append(f"'{name}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
    return f"undefined variables {', '.join(parts)}; a template may use user.name, domain.title, today and sources"


def _template_line(error: BaseException) -> int:
    """Jinja2 rewrites its frames so that they carry the template's own line numbers."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return (lines[-1] if lines else None) or 1
