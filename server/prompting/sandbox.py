"""Jinja2 for prompts, with a bound on all that a template can make: each render has a budget, and spends it.

Loop passes, calls, filters and operators cost a step and the size of what they make; where a number decides that size
('a' * 10**9, center(10**9)) it is reckoned before anything is made. So a template ends in about a second, whatever it
says. Knows nothing of domains, files or variables.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from itertools import chain
from typing import Any, Final

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_OUTPUT: Final = 256 * 1024  # characters of a system text
MAX_TOKENS: Final = 5_000  # of a template, its plain text apart
MAX_NESTING: Final = 50  # brackets in each other
BUDGET: Final = 2_000_000  # characters and items that one render may make
STEP: Final = 100  # of it: a loop pass, a call, a filter, an operator

# They are of HTML, and search texts in the square of their length.
_LEFT_OUT = ("striptags", "urlize", "xmlattr")
_FORMATS = ("format", "format_map")
_NUMBER = re.compile(r"\d+")
_WIDTH_FROM_ARGUMENT = re.compile(r"%[^a-zA-Z%]*\*|\{[^{}]*\{")
_Sized = (str, bytes, list, tuple, set, frozenset, dict, range)


class TooMuch(TemplateError):
    """The template would make more than a prompt may hold."""

    def __init__(self) -> None:
        super().__init__("it makes too much: a number, a loop or a repetition in it is far too large for a prompt")


class _Budget:
    """What one render may still spend."""

    def __init__(self) -> None:
        self._left = BUDGET

    def spend(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise TooMuch

    def spend_for(self, made: object) -> None:
        """For a value and all inside it: a list that holds another twice counts it twice, as writing it out does."""
        waiting = [made]
        while waiting:
            one = waiting.pop()
            self.spend(1 + (len(one) if isinstance(one, _Sized) else 0))
            if isinstance(one, dict):
                waiting += chain.from_iterable(one.items())
            elif isinstance(one, list | tuple | set | frozenset):
                waiting += one

    def spend_for_call(self, value: object, arguments: Iterable[object], *, formats: bool) -> None:
        """Before a function is called: numbers repeat or widen `value`, and texts stand between or in its parts."""
        factor = 1
        for argument in arguments:
            if isinstance(argument, _Sized):
                factor += len(argument)
            elif isinstance(argument, int) and not formats:
                factor += abs(argument)
        if formats and isinstance(value, str):
            if _WIDTH_FROM_ARGUMENT.search(value):
                raise TooMuch
            factor += sum(int(number[:9]) for number in _NUMBER.findall(value))
        self.spend(STEP + factor * (max(1, len(value)) if isinstance(value, _Sized) else 1))


# Without one nothing is made: not while a template is compiled either, where Jinja2 would reckon constants ahead.
_BUDGET: ContextVar[_Budget] = ContextVar("budget of a render")


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """Compiles prompts, and renders them within a budget. Safe from any thread."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False)
        self.globals = {"range": range, "dict": dict, "namespace": _PlainNamespace, "joiner": self.globals["joiner"],
                        "cycler": self.globals["cycler"]}  # fmt: skip
        kept = {name: function for name, function in self.filters.items() if name not in _LEFT_OUT}
        self.filters = {name: _charged(name, function) for name, function in kept.items()}
        self.filters |= {"_passes": _passes, "_made": _made}

    def compiled(self, source: str) -> Template:
        """Raises TemplateSyntaxError, for what is too large or too deep as well."""
        try:
            self._check_size(source)
            return self.from_string(_Bounding().visit(self.parse(source)))
        except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as error:
            raise TemplateSyntaxError("it nests too deeply, or has too large a number", 1) from error

    def rendered(self, template: Template, **variables: object) -> str:
        """Raises TooMuch, and what a template raises."""
        token = _BUDGET.set(_Budget())
        try:
            pieces, length = [], 0
            for piece in template.generate(variables):
                length += len(piece)
                if length > MAX_OUTPUT:
                    raise TooMuch
                pieces.append(piece)
            return "".join(pieces)
        finally:
            _BUDGET.reset(token)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as its base's
        method = getattr(__obj, "__wrapped__", __obj)
        value, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        budget = _BUDGET.get()
        budget.spend_for_call(value, (*args, *kwargs.values()), formats=name in _FORMATS)
        made = super().call(__context, __obj, *args, **kwargs)
        budget.spend_for(made)
        return made

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _BUDGET.get()
        budget.spend_for_call(None, (), formats=False)
        if operator == "%":
            budget.spend_for_call(left, (right,), formats=True)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            budget.spend(abs(left).bit_length() * abs(right))
        elif operator == "*":
            budget.spend(_repeated(left, right) or _repeated(right, left))
        made = super().call_binop(context, operator, left, right)
        budget.spend_for(made)
        return made

    def _check_size(self, source: str) -> None:
        depth = count = 0
        for line, kind, text in self.lexer.tokeniter(source, None):
            count += kind != "data"
            depth += (kind == "operator") * ((text in "([{") - (text in ")]}"))
            if depth > MAX_NESTING:
                raise TemplateSyntaxError(f"brackets nest more than {MAX_NESTING} deep", line)
            if count > MAX_TOKENS:
                raise TemplateSyntaxError(f"it has more than {MAX_TOKENS:,} words and signs between its brackets", line)


def _repeated(value: object, times: object) -> int:
    """The size of `value * times`, of a text or list and a number or of two numbers, in digits; else 0."""
    if isinstance(value, _Sized) and isinstance(times, int):
        return len(value) * max(times, 0)
    both_numbers = isinstance(value, int) and isinstance(times, int)
    return value.bit_length() + times.bit_length() if both_numbers else 0  # type: ignore[attr-defined]


class _PlainNamespace(Namespace):
    """Writes nothing of what it holds, which may hold others."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Bounding(NodeTransformer):
    """Puts what counts around loops, lists and joined texts, which Jinja2 leads through no function."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - the name that Jinja2 calls
        if node.recursive:
            raise TemplateSyntaxError("a loop cannot be recursive in a prompt", node.lineno)
        text = sum(len(data.data) for each in node.body for data in each.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.iter = _filter(node.iter, "_passes", nodes.Const(text))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_List(self, node: nodes.List | nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, "_made")

    visit_Dict = visit_List  # noqa: N815

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, "_made") if node.ctx == "load" else node


def _filter(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [*arguments], [], None, None, lineno=node.lineno)


def _passes(items: Iterable[object], text: int) -> Iterator[object]:
    for item in items:
        _BUDGET.get().spend(STEP + text)
        yield item


def _made(value: object) -> object:
    _BUDGET.get().spend_for(value)
    return value


def _charged(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that costs what it makes."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0  # what Jinja2 itself hands over stands before the value

    @functools.wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        budget = _BUDGET.get()
        value, others = args[first], (*args[first + 1 :], *kwargs.values())
        budget.spend_for(value)
        budget.spend_for_call(value, others, formats=name in _FORMATS)
        made = function(*args, **kwargs)
        budget.spend_for(made)
        return made

    return charged
