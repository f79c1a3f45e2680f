"""A template that explodes is refused with a reason, soon, and what prompts really do goes on to work."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

import pytest

from server.errors import NotFound, PromptError
from server.prompting import Domain, PromptLibrary, UserProfile
from server.prompting.domain import FewShot
from server.prompting.domain_file import MAX_BYTES
from server.prompting.sandbox import MAX_OUTPUT, PromptEnvironment
from server.prompting.template import TemplateFault, check_template, render_system

GENEROUS_S = 10.0  # each takes a small part of a second; without a bound, hours or all memory
TOO_MUCH = "it makes too much"

DOUBLING = "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = %s %}{% endfor %}{{ n.x }}"
EXPLOSIONS = {
    "repetition": "{{ 'a' * 99999999999 }}",
    "repetition of a list": "{{ ([1] * 99999999999)|length }}",
    "repetition by a product": "{{ (99999 * 99999) * '(' }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "power in steps": "{{ 10 ** 999999 ** 9 }}",
    "sums": DOUBLING.replace("%s", "n.x + n.x"),
    "joined": DOUBLING.replace("%s", "n.x ~ n.x"),
    "joined by a filter": DOUBLING.replace("%s", "[n.x, n.x]|join"),
    "replaced": DOUBLING.replace("%s", "n.x|replace('a', n.x)"),
    "lists in lists": DOUBLING.replace("%s", "[n.x, n.x]"),
    "tuples in tuples": DOUBLING.replace("%s", "(n.x, n.x)"),
    "dicts in dicts": DOUBLING.replace("%s", "{1: n.x, 2: n.x}"),
    "dicts made": DOUBLING.replace("%s", "dict(a=n.x, b=n.x)"),
    "formats": DOUBLING.replace("%s", "'%s%s'|format(n.x, n.x)").replace("set n.x", "set n.x"),
    "unrolled": "{% set a = 'ab' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "loops in loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x"
    "{% endfor %}{% endfor %}{% endfor %}",
    "silent loops in loops": "{% set r = range(9999) %}{% for a in r %}{% for b in r %}{% for c in r %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "a text in a loop": "{% for a in range(9999) %}" + "word " * 9999 + "{% endfor %}",
    "a buffered text in a loop": "{% set x %}{% for a in range(9999) %}" + "word " * 9999 + "{% endfor %}{% endset %}",
    "a filter in a loop": "{% for a in range(90000) %}{{ range(90000)|sum }}{% endfor %}",
    "filters on many": "{{ range(99999)|map('string')|map('center', 999)|join|length }}",
    "width of %": "{{ '%1000000000d' % 1 }}",
    "width of format": "{{ '%1000000000d'|format(1) }}",
    "width of % by an argument": "{{ '%*d'|format(1000000000, 1) }}",
    "width of str.format": "{{ '{:1000000000}'.format('a') }}",
    "width of str.format by an argument": "{{ '{:{}}'.format('a', 1000000000) }}",
    "precision": "{{ '%.999999999f' % 1 }}",
    "center": "{{ user.name|center(10**10) }}",
    "center of a constant": "{{ 'x'|center(10000000000) }}",
    "indent": "{{ 'a\nb'|indent(10**10) }}",
    "batch": "{{ [1]|batch(10**9, 'x')|list }}",
    "slice": "{{ [1]|slice(10**9, 'x')|list }}",
    "method": "{{ 'a'.center(10**10) }}",
    "zeros": "{{ 'a'.zfill(10**10) }}",
    "tabs": "{{ '\t'.expandtabs(10**10) }}",
    "bytes": "{{ (1).to_bytes(10**10, 'big')|length }}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "macro without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "block without end": "{% block a %}{{ self.a() }}{% endblock %}",
    "names in names": "{% set h = namespace(p=1) %}{% for i in range(60) %}{% set n = namespace() %}"
    "{% set n.a = h.p %}{% set n.b = h.p %}{% set h.p = n %}{% endfor %}{{ h.p }}" + "{{ 'a' * 10**9 }}",
}  # fmt: skip
TOO_DEEP = {
    "brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "lists": "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "open brackets": "{{ " + "(" * 99_999,
    "signs": "{{ " + "-" * 4000 + "1 }}",
    "nots": "{{ " + "not " * 4000 + "1 }}",
    "sum": "{{ " + "1+" * 2400 + "1 }}",
    "attributes": "{{ user" + ".a" * 2400 + " }}",
    "conditions": "{{ " + "1 if 1 else " * 900 + "1 }}",
    "ifs": "{% if 1 %}" * 900 + "{% endif %}" * 900,
    "fors": "{% for a in 'a' %}" * 30 + "{% endfor %}" * 30,
    "macros": "{% macro a() %}" * 400 + "{% endmacro %}" * 400,
    "words": "{{ 1 }}" * 9_000,
    "digits": "{{ " + "9" * 9_000 + " }}",
    "recursive": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
}


def render(body: str, name: str = "Mina") -> str:
    return render_system(Domain("d", "Desk", "", body), UserProfile(name), datetime.date(2026, 3, 31))


@pytest.fixture(autouse=True)
def in_time():
    """None of these may take long, whichever way they fail."""
    begun = time.thread_time()
    yield
    assert time.thread_time() - begun < GENEROUS_S


@pytest.mark.parametrize("name", EXPLOSIONS)
def test_what_explodes_is_a_fault_of_the_template(name: str) -> None:
    with pytest.raises(TemplateFault, match=f"{TOO_MUCH}|recursion|Range too big"):
        check_template(EXPLOSIONS[name], "Desk")


@pytest.mark.parametrize("name", TOO_DEEP)
def test_what_is_too_deep_or_too_long_is_one_too(name: str) -> None:
    with pytest.raises(TemplateFault):
        check_template(TOO_DEEP[name], "Desk")


def test_an_explosion_for_one_user_alone_is_an_error_of_that_domain() -> None:
    body = "One.\n{% if user.name == 'Zoe' %}{{ 'a' * 10**9 }}{% endif %}"
    check_template(body, "Desk")
    assert render(body) == "One."
    with pytest.raises(PromptError, match=rf"'d' fails at line 2 of its text: {TOO_MUCH}"):
        render(body, "Zoe")
    assert render(body) == "One."  # each render has a budget of its own


def test_the_line_of_an_explosion_is_told() -> None:
    with pytest.raises(TemplateFault, match=TOO_MUCH) as caught:
        check_template("One.\nTwo.\n{{ 'a' * 10**9 }}", "Desk")
    assert caught.value.line == 3


def test_a_long_text_is_no_explosion_and_a_longer_one_is() -> None:
    assert len(render("x" * (MAX_OUTPUT - 10))) == MAX_OUTPUT - 10
    with pytest.raises(PromptError, match=TOO_MUCH):
        render("x" * MAX_OUTPUT + "{{ today }}")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{{ '=' * 40 }}", "=" * 40),
        ("{{ 1000000 * 3 }} {{ 2 ** 40 }} {{ 7 % 4 }} {{ 1 + 2 }}", f"3000000 {2**40} 3 3"),
        ("{{ 1700000000|string }} {{ '%d'|format(1700000000) }}", "1700000000 1700000000"),
        ("{{ '%05.1f'|format(3.14159) }} {{ '{:>6}'.format('ab') }}", "003.1     ab"),
        ("{{ user.name|upper|center(8) }}.", "MINA  ."),
        ("{{ user.name ~ ', ' ~ 3 ~ none }}", "Mina, 3None"),
        ("{{ ['a', 'b']|join(', ') }} {{ {'a': 1}['a'] }} {{ (1, 2)|sum }} {{ [[1], 2] }}", "a, b 1 3 [[1], 2]"),
        ("{% for a, b in [(1, 2), (3, 4)] %}{{ loop.index }}/{{ loop.length }}:{{ a }}{{ b }} {% endfor %}",
         "1/2:12 2/2:34"),
        ("{% for a in [] %}x{% else %}none{% endfor %}", "none"),
        ("{% for a in range(5) if a % 2 %}{{ a }}{% endfor %}", "13"),
        ("{% macro hi(who) %}Hi {{ who }}.{% endmacro %}{{ hi(user.name) }}{{ hi('Jun') }}", "Hi Mina.Hi Jun."),
        ("{% set n = namespace(c=0) %}{% for i in range(300) %}{% set n.c = n.c + i %}{% endfor %}{{ n.c }}", "44850"),
        ("{{ 'a\nb'|indent(2) }} {{ 'one two'|replace('one', '1')|title }} {{ 'abc'[::-1] }}", "a\n  b 1 Two cba"),
        ("{{ user.name|default('nobody') }} {{ 'x'|tojson }} {{ '- a'.split('- ')[1] }}", 'Mina "x" a'),
        ("{{ 'yes' if 'i' in user.name and user.name is string else 'no' }}", "yes"),
        ("{% filter upper %}{% set x %}a{{ 1 }}{% endset %}{{ x }}{% endfilter %}", "A1"),
        ("{{ range(3)|map('string')|map('center', 3)|join('|') }}", "0 | 1 | 2"),
    ],
)  # fmt: skip
def test_what_prompts_do_works(body: str, text: str) -> None:
    check_template(body, "Desk")
    assert render(body) == text


def test_constants_are_not_reckoned_when_a_template_is_compiled() -> None:
    environment = PromptEnvironment()
    for source in EXPLOSIONS.values():
        assert environment.compiled(source) is not None


# ── the folder ───────────────────────────────────────────────────────────────────────────────────

FRONT = {
    "aliases": "---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\nHi.",
    "deep YAML": "---\noutput: " + "[" * 3000 + "]" * 3000 + "\n---\nHi.",
    "deep YAML in lines": "---\n" + "\n".join(" " * depth + "a:" for depth in range(300)) + "\n---\nHi.",
    "deep JSON": "---\noutput: " + '{"a": ' * 3000 + "1" + "}" * 3000 + "\n---\nHi.",
    "many entries": "---\nroutes:\n" + "- a\n" * 20_000 + "---\nHi.",
    "a large file": "x" * (MAX_BYTES + 1),
    "a huge number": "---\nsampling: {seed: " + "9" * 9_000 + "}\n---\nHi.",
}


@pytest.mark.parametrize("text", [*EXPLOSIONS.values(), *TOO_DEEP.values(), *FRONT.values()], ids=str.split)
def test_a_file_that_explodes_breaks_itself_alone(text: str, tmp_path: Path) -> None:
    """The last good version of it serves on, the other domains as ever, and the reason is listed."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.md").write_text(f"I am {name}.", encoding="utf-8")
    library = PromptLibrary(tmp_path, "general")
    assert [domain.name for domain in library.domains()] == ["general", "one", "two"]
    (tmp_path / "one.md").write_text(text, encoding="utf-8")
    (tmp_path / "new.md").write_text(text, encoding="utf-8")
    assert [(domain.name, domain.body) for domain in library.domains() if domain.name != "general"] == [
        ("one", "I am one."),
        ("two", "I am two."),
    ]
    new, one = library.problems()
    assert [Path(each.file).name for each in (new, one)] == ["new.md", "one.md"]
    assert all(each.line >= 1 and each.reason for each in (new, one))
    with pytest.raises(NotFound, match="'new' has never had a file that works"):
        library.get("new")


def test_of_a_huge_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.md").open("wb") as file:
        os.truncate(file.fileno(), 20 * 1024**3)  # sparse
    (problem,) = PromptLibrary(tmp_path, "general").problems()
    assert "over 262,144 bytes" in problem.reason


def test_examples_are_text_and_no_template() -> None:
    from server.prompting.compose import _example_messages

    domain = Domain("d", "{{ today }}", "", "{{ domain.title }}", examples=(FewShot("{{ 7 * 7 }}", "{% raw %}"),))
    assert [message.content for message in _example_messages(domain)] == ["{{ 7 * 7 }}", "{% raw %}"]
    assert render_system(domain, UserProfile()) == "{{ today }}"
