"""A model's text becomes HTML that can do nothing but be read."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ATTACKS = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg onload='window.hit = 1'><circle/></svg>",
    "<svg><script>window.hit = 1</script></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.hit=1></style></mglyph></table></mtext></math>",
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "<body onload='window.hit = 1'>",
    "<details open ontoggle='window.hit = 1'>x</details>",
    "<a href='javascript:window.hit=1' id=target>x</a>",
    "<form action='javascript:window.hit=1'><button id=target>x</button></form>",
    "<button class='cite' data-n='1' onclick='window.hit = 1'>1</button>",
    "<style>* { display: none }</style>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "<base href=https://example.org/>",
    "<meta http-equiv=refresh content='0;url=https://example.org'>",
    "[x](javascript:window.hit=1)",
    "[x](JaVaScRiPt:window.hit=1)",
    "[x](java\tscript:window.hit=1)",
    "[x](&#106;avascript:window.hit=1)",
    "[x](vbscript:window.hit=1)",
    "[x](data:text/html;base64,PHNjcmlwdD53aW5kb3cuaGl0PTE8L3NjcmlwdD4=)",
    "![x](javascript:window.hit=1)",
    "![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImhpdD0xIi8+)",
    '![x"onerror="window.hit=1](https://example.org/x.png)',
    '[x](https://example.org/"onmouseover="window.hit=1)',
    "[ref]\n\n[ref]: javascript:window.hit=1",
    "<javascript:window.hit=1>",
    '```"><img src=x onerror=window.hit=1>\nx\n```',
    "`<img src=x onerror=window.hit=1>`",
    "| <img src=x onerror=window.hit=1> |\n|---|\n| <svg onload=window.hit=1> |",
    "- [ ] <img src=x onerror=window.hit=1>",
    "\u0000<scr\u0000ipt>window.hit=1</script>",
    "<noscript><p title='</noscript><img src=x onerror=window.hit=1>'>",
    "<div style='position:fixed;inset:0'>covered</div>",
]

LOOK = """
async ({ text, sources }) => {
  const { renderMarkdown } = await import('/static/js/markdown.js');
  const box = document.createElement('div');
  document.body.append(box);
  box.innerHTML = renderMarkdown(text, sources);
  for (const element of box.querySelectorAll('a, button')) element.click();
  await new Promise((done) => setTimeout(done, 30));
  const all = [...box.querySelectorAll('*')];
  const found = {
    html: box.innerHTML,
    hit: window.hit ?? null,
    tags: [...new Set(all.map((element) => element.tagName.toLowerCase()))],
    attributes: [...new Set(all.flatMap((element) => element.getAttributeNames()))],
    links: [...box.querySelectorAll('a[href]')].map((link) => [link.getAttribute('href'), link.target, link.rel]),
    text: box.textContent,
  };
  box.remove();
  return found;
}
"""


@pytest.fixture(scope="module")
def look(browser, request):  # type: ignore[no-untyped-def]
    """Renders text in one page for all the tests of this file."""
    from tests.web.conftest import serve_backend

    with serve_backend() as (_, address):
        page: Page = browser.new_page(base_url=address)
        page.route("https://example.org/**", lambda route: route.abort())
        page.add_init_script("addEventListener('click', (e) => e.target.closest('a') && e.preventDefault(), true)")
        page.goto("/")
        page.wait_for_selector(".composer")
        page.wait_for_load_state("networkidle")  # what the page asks for by itself is over
        requests: list[str] = []
        page.on("request", lambda made: requests.append(made.url))

        def render(text: str, sources: int = 0) -> dict:  # type: ignore[type-arg]
            requests.clear()
            return dict(page.evaluate(LOOK, {"text": text, "sources": sources}), requests=list(requests))

        yield render
        page.close()


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_payload_runs_or_leaves_anything_active(look, attack: str) -> None:  # type: ignore[no-untyped-def]
    found = look(attack, 1)
    assert found["hit"] is None
    assert found["requests"] == []
    forbidden = {"script", "img", "svg", "math", "iframe", "form", "style", "link", "base", "meta", "object", "details"}
    assert not forbidden & set(found["tags"])
    active = ("style", "src", "srcdoc", "id")
    assert not [name for name in found["attributes"] if name.startswith("on") or name in active]
    for address, _, _ in found["links"]:
        assert address.startswith(("http://", "https://", "mailto:")), address


def test_raw_html_is_shown_as_the_text_it_is(look) -> None:  # type: ignore[no-untyped-def]
    assert "<b>bold</b>" in look("Write <b>bold</b> in HTML.")["text"]
    assert "<script>x</script>" in look("<script>x</script>")["text"]


def test_links_open_elsewhere_and_tell_nothing_about_this_page(look) -> None:  # type: ignore[no-untyped-def]
    found = look("[site](https://example.org/a?b=1&c=2) and <mailto:a@example.org> and https://example.org/bare")
    assert [link[0] for link in found["links"]] == [
        "https://example.org/a?b=1&c=2", "mailto:a@example.org", "https://example.org/bare"
    ]  # fmt: skip
    for _, target, rel in found["links"]:
        assert target == "_blank"
        assert {"noopener", "noreferrer"} <= set(rel.split())


def test_a_relative_link_is_only_text(look) -> None:  # type: ignore[no-untyped-def]
    found = look("[the file](refunds.md) and [root](/api/logout)")
    assert found["links"] == []
    assert "the file" in found["text"]


def test_a_remote_image_is_not_loaded_but_can_be_followed(look) -> None:  # type: ignore[no-untyped-def]
    found = look("![a lamp](https://example.org/lamp.png)")
    assert found["links"][0][0] == "https://example.org/lamp.png"
    assert found["text"].strip() == "a lamp"
    assert found["requests"] == []


def test_citations_become_buttons_only_where_there_are_sources(look) -> None:  # type: ignore[no-untyped-def]
    cited = look("45 days [1], or [2, 3]. See [9].", 3)["html"]
    assert cited.count('class="cite"') == 3
    assert 'data-n="2"' in cited
    assert "cite-unknown" in cited
    assert "[9]" in look("See [9].", 3)["text"]
    plain = look("An array: a[1].", 0)
    assert "button" not in plain["tags"]
    assert "a[1]" in plain["text"]


def test_code_and_real_links_are_no_citations(look) -> None:  # type: ignore[no-untyped-def]
    found = look("`x[1]` and [1](https://example.org)", 3)
    assert "button" not in found["tags"]
    assert len(found["links"]) == 1


def test_markdown_itself_works(look) -> None:  # type: ignore[no-untyped-def]
    words = "# Title\n\n**b** *i* ~~s~~\n\n1. one\n2. two\n\n> q\n\n"
    found = look(words + "| a | b |\n|---|--:|\n| 1<br>2 | 3 |\n\n```py\nx < 1\n```")
    assert {"h3", "strong", "em", "del", "ol", "table", "br", "pre", "blockquote"} <= set(found["tags"])
    assert "x < 1" in found["text"]
    assert 'align="right"' in found["html"]


def test_half_written_markdown_is_harmless(look) -> None:  # type: ignore[no-untyped-def]
    whole = "# A\n\n| a | b |\n|---|---|\n| [1] | `x` |\n\n```py\nprint('<b>')\n```\n\n[l](https://example.org) ![i](x)"
    for end in range(len(whole)):
        found = look(whole[:end], 2)
        assert found["hit"] is None
        assert "img" not in found["tags"]
        assert "b" not in found["tags"]


@pytest.mark.parametrize("text", ["**45일**이내", "**가격(원)**은", "값은**(세금 포함)**입니다", "**'환불'**을 [1]"])
def test_bold_stands_beside_korean_particles(look, text: str) -> None:  # type: ignore[no-untyped-def]
    found = look(text, 1)
    assert "strong" in found["tags"]
    assert "*" not in found["text"]


@pytest.mark.parametrize("text", ["2 ** 3 ** 4", "** not bold **", "a ** b", "***"])
def test_stars_that_are_no_bold_stay(look, text: str) -> None:  # type: ignore[no-untyped-def]
    assert "strong" not in look(text)["tags"]
