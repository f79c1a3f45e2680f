"""What a user writes, or a file or a model says, is read in linear time: no text of 100 kB costs much.

`WALK` has every public function of every module with regular expressions that such text reaches. A new module or
function that is in neither of the two tables fails a test. Time is the thread's own, so a busy machine does not count.
A text costs too much where its time is over `MOST_S`, scaled to the machine, and grows faster than its length; or is
over `LINEAR_TOO` times that, however it grows.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from lxml import etree

from server.accounts.accounts import checked_name
from server.api import text as request_text
from server.chat.conversations import past_chat_questions, redaction
from server.config import MemorySettings, RouterSettings
from server.errors import KnowledgeError, PromptFileError, TailorError
from server.grounding import citations, claims, clauses, negation, quantities, support
from server.grounding import sentences as answers
from server.memory.episodes import episodes
from server.memory.facts import (
    english,
    english_life,
    english_self,
    findings,
    korean,
    korean_life,
    korean_self,
    person,
    rules,
)
from server.memory.model_pass import trivia
from server.memory.reading import commands, dates, own_words, sensitive
from server.memory.recall import profile, question, relevance
from server.memory.store import statement
from server.model_router import ModelRouter
from server.prompting import Domain, blocks, domain_file
from server.retrieval import loaders
from server.retrieval.index import chunker, suspicion
from server.retrieval.loaders import (
    calendar_entries,
    decoding,
    document,
    email_parts,
    hangul_story,
    pdf_layout,
    sniffing,
)
from server.retrieval.loaders.office import number_format
from server.retrieval.loaders.word import fields as word_fields
from server.retrieval.updating import uploads
from server.types import Memory, MemoryKind, Passage, TurnContext
from server.words import markdown, normalization, scripts, words
from server.words import sentences as split_text
from tests.adversarial_text import UNITS, adversarial_texts
from tests.conftest import ROOT
from tests.fakes import WordEmbedder
from tests.retrieval.loaders import test_hangul, test_mail_and_pages
from tests.retrieval.loaders.ole import compound
from tests.retrieval.loaders.test_other_formats import book, saved
from tests.tiers import cases

SIZE = 100_000  # bytes
PART = 4  # a text of 1/4 of the size tells how time grows
MOST_S = 0.3
LINEAR_TOO = 4
STEEPEST = 2 * PART  # times as long at 4 times the length: linear is 4, the square 16
REFERENCE_S = 0.055  # what `calibration` takes where `MOST_S` was chosen

NOW = 1_774_900_000.0
NONCE = "0a1b2c3d"
PROSE = "Refunds take 14 days. Mina answers in Busan, not on Sundays."


def passage(text: str) -> Passage:
    return Passage(id="p", folder="shop", file="returns.md", text=text, heading=("Returns",), line_start=1, line_end=2)


def evidence(text: str) -> claims.Evidence:
    return claims.parse_evidence(1, passage(text))


def memory(text: str) -> Memory:
    return Memory(1, MemoryKind.FACT, text, "", None, None, NOW, NOW)


def spans(text: str) -> Iterator[own_words.Span]:
    """What the rules for facts are given of a message."""
    return own_words.sentences(own_words.clean(text), NOW)


def match_of(text: str) -> re.Match[str]:
    found = re.match(r"(?P<x>.*)(?P<p>)(?P<a>)", text)
    assert found is not None
    return found


def whole(text: str) -> own_words.Span:
    return own_words.Span(text, text, 0)


def loaded(ending: str) -> Callable[[str], object]:
    def load(text: str) -> object:
        try:
            return loaders.load(f"file{ending}", text.encode())
        except KnowledgeError as error:
            return error

    return load


NOTEBOOK_CELLS: tuple[Callable[[str], object], ...] = (
    lambda text: {"cell_type": "markdown", "source": text},
    lambda text: {"cell_type": "code", "source": text, "outputs": [{"text": text}]},
)


def printable(text: str) -> str:
    """What XML and a paragraph of Hangul can hold."""
    return "".join(char if " " <= char < "\ud800" else " " for char in text)


def form(text: str) -> bytes:
    source = f"Caption:wstring:{len(text)}:{text}".encode("utf-16-le", "replace")
    return test_hangul.control("form", 0, test_hangul.record(91, 1, source))


def old_sheet(text: str) -> bytes:
    made = book(["a", "b"], *([text[at : at + 30_000], 1] for at in range(0, len(text), 30_000)))
    made.get_sheet(0).header_str = text[:200].encode("ascii", "replace")
    return saved(made)


def placed(text: str) -> object:
    """Three columns on a page, of lines that are not level."""
    words = [
        pdf_layout.Word(
            word, 200.0 * (at % 3) + at % 170, 200.0 * (at % 3) + at % 170 + 20, at // 27 * 9.0 + at % 3, 10.0
        )
        for at, word in enumerate(text[start : start + 10] for start in range(0, len(text), 10))
    ]
    return pdf_layout.paragraphs(words)


def chunked(text: str) -> object:
    document = loaders.load("file.txt", text.encode().replace(b"\0", b" "))
    return chunker.chunk(document, lambda part: len(part) // 4 + 1, 250)


def checked(answer: str) -> object:
    context = TurnContext(nonce=NONCE, searched=True, passages=(passage(PROSE), passage("Lamps cost 30 euros.")))
    checks = asyncio.run(citations.check_answer(answer, context, WordEmbedder(), complete=False))
    return citations.find_citations(answer, context.passages, checks), citations.shown_text(answer, checks)


def parsed(front: str, body: str) -> object:
    try:
        return domain_file.parse_domain("d.md", f"---\n{front}\n---\n{body}".encode())
    except PromptFileError as error:
        return error


def with_field(text: str) -> object:
    """As the code of fields in a Word document."""
    text = re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]", "?", text)
    root = etree.Element("p")
    for start in ("EQ ", "MACROBUTTON a ", "SYMBOL ", ""):
        etree.SubElement(root, "fldChar", fldCharType="begin")
        etree.SubElement(root, "instrText").text = start + text
        etree.SubElement(root, "fldChar", fldCharType="end")
    word_fields.mark_fields(root)
    return root


def refused(call: Callable[[], object]) -> object:
    try:
        return call()
    except TailorError as error:
        return error


def json_bodies(text: str) -> list[bytes]:
    """As it stands, and as a string, a key and an item of a document."""
    data = text.encode(errors="surrogatepass")
    return [data, json.dumps(text).encode(), json.dumps({text: [text]}).encode(), b"[" + data]


def heads(text: str) -> list[tuple[str, bytes, bytes, list[tuple[bytes, bytes]]]]:
    """In the path, in the query, and in each header that is read."""
    data = text.encode(errors="surrogatepass")
    names = (b"host", b"origin", b"content-type", b"content-length", b"cookie")
    values = [(b"application/json; charset=" + data) if name == b"content-type" else data for name in names]
    return [
        ("/", b"/" + data, b"", []),
        ("/", b"/", b"q=" + data, []),
        *(("/", b"/", b"", [pair]) for pair in zip(names, values, strict=True)),
    ]


CLAIM = claims.parse_claim("It takes 14 days and 30 euros for Mina in Busan [1].")
ROUTER = ModelRouter(WordEmbedder(), RouterSettings(), "general")
DOMAINS = (Domain("shop", "Shop", "", "Answer.", routes=("When is my refund?", "환불은 언제 되나요?")),)

WALK: dict[str, Callable[[str], object]] = {
    # ── words ──
    "words.normalization:normalize": lambda text: [normalization.normalize(text, form) for form in ("NFC", "NFKD")],
    "words.normalization:printable": normalization.printable,
    "words.words:terms": words.terms,
    "words.words:term_counts": words.term_counts,
    "words.words:content_words": words.content_words,
    "words.words:is_courtesy": words.is_courtesy,
    "words.words:is_follow_up": words.is_follow_up,
    "words.words:is_explicit_follow_up": words.is_explicit_follow_up,
    "words.words:needs_subject": words.needs_subject,
    "words.words:without_retracted": lambda text: words.without_retracted(text, "returns and exchanges"),
    "words.words:fold": words.fold,
    "words.words:pairs": words.pairs,
    "words.words:stem": words.stem,
    "words.scripts:has_hangul": scripts.has_hangul,
    "words.scripts:detect_script": scripts.detect_script,
    "words.scripts:script_shares": scripts.script_shares,
    "words.scripts:script_number": scripts.script_number,
    "words.markdown:lines": lambda text: [*markdown.lines(text)],
    "words.markdown:fenced_code": lambda text: [*markdown.fenced_code(text)],
    "words.markdown:heading": markdown.heading,
    "words.markdown:is_break": markdown.is_break,
    "words.markdown:is_table_rule": markdown.is_table_rule,
    "words.sentences:sentences": lambda text: [*split_text(text)],
    # ── memory ──
    "memory.reading.sensitive:is_sensitive": sensitive.is_sensitive,
    "memory.reading.sensitive:is_prompt_injection": sensitive.is_prompt_injection,
    "memory.reading.commands:parse_command": commands.parse_command,
    "memory.reading.dates:named_period": lambda text: dates.named_period(text, NOW),
    "memory.reading.dates:find_date": lambda text: dates.find_date(text, NOW),
    "memory.reading.dates:find_future_date": lambda text: dates.find_future_date(text, NOW),
    "memory.reading.dates:strip_date": lambda text: dates.strip_date(text, NOW),
    "memory.reading.own_words:clean": own_words.clean,
    "memory.reading.own_words:mask": own_words.mask,
    "memory.reading.own_words:sentences": lambda text: [*own_words.sentences(text)],
    "memory.facts.rules:extract": rules.extract,
    "memory.facts.rules:extract_held_back": rules.extract_held_back,
    "memory.facts.english:find": lambda text: [english.find(span, span) for span in spans(text)],
    "memory.facts.english_life:find_life": lambda text: [english_life.find_life(span) for span in spans(text)],
    "memory.facts.english_self:find_self": lambda text: [english_self.find_self(span, True) for span in spans(text)],
    "memory.facts.english_self:single_finding": lambda text: english_self.single_finding(
        MemoryKind.FACT, text, whole(text)
    ),
    "memory.facts.korean:find": lambda text: [korean.find(span, span) for span in spans(text)],
    "memory.facts.korean_life:find_life": lambda text: [korean_life.find_life(span, True) for span in spans(text)],
    "memory.facts.korean_self:find_self": lambda text: [korean_self.find_self(span, True) for span in spans(text)],
    "memory.facts.korean_self:has_subject": korean_self.has_subject,
    "memory.facts.korean_self:single_finding": lambda text: korean_self.single_finding(
        MemoryKind.FACT, text, whole(text)
    ),
    "memory.facts.korean_self:polite_form": lambda text: korean_self.polite_form(whole(text), match_of(text), "해요"),
    "memory.facts.korean_self:is_about_speaker": lambda text: korean_self.is_about_speaker(text, match_of(text), True),
    "memory.facts.findings:slot_of": findings.slot_of,
    "memory.facts.findings:normalised": findings.normalised,
    "memory.facts.person:to_third_person": person.to_third_person,
    "memory.facts.person:as_sentence": person.as_sentence,
    "memory.facts.person:with_they": person.with_they,
    "memory.facts.person:third_person_verb": person.third_person_verb,
    "memory.recall.question:parse_intent": question.parse_intent,
    "memory.recall.relevance:excerpt": relevance.excerpt,
    "memory.recall.relevance:parse_query": relevance.parse_query,
    "memory.recall.relevance:memory_terms": relevance.memory_terms,
    "memory.recall.relevance:memory_words": relevance.memory_words,
    "memory.recall.relevance:without_boilerplate": relevance.without_boilerplate,
    "memory.recall.profile:profile_rank": lambda text: profile.profile_rank(
        {"subject": "", "slot": None, "kind": MemoryKind.PREFERENCE, "text": text}
    ),
    "memory.recall.profile:in_profile_order": lambda text: profile.in_profile_order(
        [{"subject": "", "slot": None, "kind": MemoryKind.PREFERENCE, "text": text}]
    ),
    "memory.model_pass.trivia:candidates": lambda text: [*trivia.candidates(own_words.clean(text))],
    "memory.model_pass.trivia:is_trivia": lambda text: [trivia.is_trivia(span) for span in spans(text)],
    "memory.store.statement:one_line": statement.one_line,
    "memory.store.statement:validated": lambda text: refused(lambda: statement.validated(text, MemorySettings())),
    "memory.store.statement:slot_of_statement": statement.slot_of_statement,
    "memory.store.statement:kind_of_statement": statement.kind_of_statement,
    "memory.episodes.episodes:search": lambda text: (
        episodes._roles(text),
        episodes._snippet(episodes._truncated(text), {"tea": 1}),
    ),
    # ── knowledge ──
    "retrieval.index.suspicion:suspicion": suspicion.suspicion,
    "retrieval.index.suspicion:matched_rules": suspicion.matched_rules,
    "retrieval.index.chunker:chunk": chunked,
    "retrieval.loaders.markdown_text:load_markdown": loaded(".md"),
    "retrieval.loaders.plain_text:load_plain": loaded(".txt"),
    "retrieval.loaders.rst_text:load_rst": loaded(".rst"),
    "retrieval.loaders.csv_rows:load_csv": loaded(".csv"),
    "retrieval.loaders.csv_rows:load_tsv": loaded(".tsv"),
    "retrieval.loaders.json_entries:load_json": loaded(".json"),
    "retrieval.loaders.json_entries:load_json_lines": loaded(".jsonl"),
    "retrieval.loaders.html_page:load_html": loaded(".html"),
    "retrieval.loaders.email_parts:load_email": lambda text: loaded(".eml")(f"Subject: a\n\n{text}"),
    "retrieval.loaders.email_parts:load_page_archive": lambda text: loaded(".mht")(
        f"MIME-Version: 1.0\nContent-Type: text/html\n\n{text}"
    ),
    "retrieval.loaders.email_parts:add_text": lambda text: refused(
        lambda: email_parts.add_text(document.DocumentBuilder(), text.encode("utf-8", "replace"), text, (), html=False)
    ),
    "retrieval.loaders.email_parts:better_as_page": email_parts.better_as_page,
    "retrieval.loaders.calendar_entries:calendar_text": lambda text: [
        calendar_entries.calendar_text(f"BEGIN:VEVENT\n{before}{text}\nEND:VEVENT")
        for before in ("", "SUMMARY:", "ATTENDEE;CN=", "DTSTART;TZID=a:", "BEGIN:")
    ],
    "retrieval.loaders.hangul_story:outline_level": hangul_story.outline_level,
    "retrieval.loaders.hangul_story:alternative": hangul_story.alternative,
    "retrieval.loaders.hwp_records:load_hwp": lambda text: refused(
        lambda: loaders.load("file.hwp", test_hangul.hwp(test_hangul.paragraph(printable(text)) + form(text)))
    ),
    "retrieval.loaders.hwpx_sections:load_hwpx": lambda text: refused(
        lambda: loaders.load("file.hwpx", test_hangul.hwpx(test_hangul.p(test_hangul.t(escape(printable(text))))))
    ),
    "retrieval.loaders.outlook_message:load_msg": lambda text: refused(
        lambda: loaders.load("file.msg", compound(test_mail_and_pages.outlook(_1000=text, _0037=text, _007D=text)))
    ),
    "retrieval.loaders.rtf_text:load_rtf": lambda text: [
        loaded(".rtf")(f"{{\\rtf1{before}{text}") for before in ("", "\\fromhtml1 ", "{\\footnote ")
    ],
    "retrieval.loaders.notebook_cells:load_notebook": lambda text: [
        loaded(".ipynb")(json.dumps({"cells": [cell(text)]})) for cell in NOTEBOOK_CELLS
    ],
    "retrieval.loaders.xls_rows:load_xls": lambda text: refused(lambda: loaders.load("file.xls", old_sheet(text))),
    "retrieval.loaders.sniffing:real_ending": lambda text: refused(
        lambda: sniffing.real_ending(".xls", text.encode("utf-8", "replace"))
    ),
    "retrieval.loaders.source_code:load_code": lambda text: [loaded(ending)(text) for ending in (".py", ".xml")],
    "retrieval.loaders.pdf_pages:load_pdf": lambda text: loaded(".pdf")(f"%PDF-1.4\n{text}"),
    "retrieval.loaders.word.fields:mark_fields": with_field,
    "retrieval.loaders.office.number_format:shown_number": lambda text: [
        number_format.shown_number(value, text) for value in ("1234.5", "-0.5", "46143.25")
    ],
    "retrieval.loaders.decoding:decode": lambda text: refused(lambda: decoding.decode(text.encode("utf-16"))),
    "retrieval.loaders.document:bounded": lambda text: document.bounded(
        document.Document(text, (document.Block(0, len(text), (text,) * 20, header=text),))
    ),
    "retrieval.updating.uploads:safe_name": lambda text: refused(lambda: uploads.safe_name(f"{text}.md")),
    # ── answers ──
    "grounding.sentences:split_sentences": lambda text: answers.split_sentences(text, complete=False),
    "grounding.sentences:find_citation_marks": lambda text: [*answers.find_citation_marks(text)],
    "grounding.quantities:parse_text": quantities.parse_text,
    "grounding.quantities:number": lambda text: quantities.number(
        "1" + re.sub(r"[^\d.,]", "", text)[: SIZE // 2] + "0"
    ),
    "grounding.clauses:split_clauses": lambda text: [*clauses.split_clauses(text)],
    "grounding.claims:parse_claim": claims.parse_claim,
    "grounding.claims:parse_evidence": evidence,
    "grounding.claims:term_match": lambda text: claims.term_match(CLAIM.units[0], evidence(text).words, ()),
    "grounding.claims:clause_match": lambda text: claims.clause_match(CLAIM.units[0], evidence(text).words),
    "grounding.claims:importance": lambda text: [
        claims.importance(unit, CLAIM) for unit in claims.parse_claim(text).units
    ],
    "grounding.negation:negation_differs": lambda text: negation.negation_differs(text[:4_000], PROSE),
    "grounding.support:term_weights": lambda text: support.term_weights(CLAIM, [evidence(text)]),
    "grounding.support:coverage": lambda text: support.coverage(CLAIM, [evidence(text)], [1.0] * len(CLAIM.units), 1),
    "grounding.support:contradicts": lambda text: (
        support.contradicts(CLAIM, [evidence(text)], ()),
        support.contradicts(claims.parse_claim(text), [evidence(PROSE)], ()),
    ),
    "grounding.support:supporting_span": lambda text: support.supporting_span(CLAIM, evidence(text)),
    "grounding.citations:find_citations": lambda text: citations.find_citations(text, (passage(PROSE),)),
    "grounding.citations:shown_text": lambda text: citations.shown_text(text, ()),
    # ── prompts and chats ──
    "prompting.blocks:user_block": lambda text: blocks.user_block(text, TurnContext(nonce=NONCE)),
    "prompting.blocks:memory_section": lambda text: blocks.memory_section([memory(text)] * 3),
    "prompting.blocks:memory_line": lambda text: blocks.memory_line(memory(text)),
    "prompting.blocks:evidence_section": lambda text: blocks.evidence_section([passage(text)], NONCE),
    "prompting.blocks:passage_label": lambda text: blocks.passage_label(1, passage(text)),
    "prompting.domain_file:parse_domain": lambda text: (parsed(text, "Answer."), parsed("title: T", text)),
    "chat.conversations.past_chat_questions:asks_for_chats": past_chat_questions.asks_for_chats,
    "chat.conversations.redaction:remove_memory_lines": lambda text: redaction.remove_memory_lines(text, {text[:500]}),
    "model_router.router:decide": lambda text: ROUTER.decide(text, DOMAINS),
    # ── requests ──
    "accounts.accounts:checked_name": lambda text: refused(lambda: checked_name(text)),
    "api.text:parse_json": lambda text: [refused(partial(request_text.parse_json, each)) for each in json_bodies(text)],
    "api.text:check_text": lambda text: refused(lambda: request_text.check_text("text", text)),
    "api.text:shown": request_text.shown,
    "api.text:check_head": lambda text: [refused(partial(request_text.check_head, *each)) for each in heads(text)],
    "api.text:host_name": request_text.host_name,
}
# Checked as a whole, with as much time as its many steps have together.
WALK_LONGER: dict[str, Callable[[str], object]] = {
    "grounding.citations:check_answer": checked,
}

# Public functions of such modules that no text of a user's, a file's or a model's own length reaches.
NOT_REACHED = {
    "retrieval.loaders.hangul_story:add_story": "what load_hwp and load_hwpx call",
    "retrieval.loaders.email_parts:is_text_file": "looks at the end of a name",
    "retrieval.loaders.sniffing:is_container": "looks at the first bytes",
    "retrieval.loaders.sniffing:refuse_old": "an ending alone",
    "grounding.citations:check_sentences": "what check_answer calls",
    "prompting.blocks:chats_section": "of turns that are cut where they are kept, by the same rules as passages",
    "prompting.blocks:chat_label": "a title has a bound of its own",
    "accounts.accounts:checked_roles": "a set of fixed words",
    "memory.episodes.episodes:erase": "ids alone",
    "memory.recall.relevance:common_weight": "numbers alone",
    "memory.recall.relevance:relevance_gate": "numbers alone",
    "retrieval.updating.uploads:folder_path": "the same steps as safe_name",
    "retrieval.updating.uploads:write": "what safe_name gives",
    "retrieval.updating.uploads:remove": "what the index knows",
    "chat.conversations.redaction:redact_answer": "exact strings; remove_memory_lines does the reading",
    "chat.conversations.redaction:redact_prompt": "exact strings; remove_memory_lines does the reading",
}
# Modules with regular expressions that such text does not reach.
NOT_READERS = {
    "retrieval.loaders.ole_streams": "names of streams, of which a bounded pattern is matched",
    "accounts.identities": "a claim of an identity provider, whose tokens have a bound",
    "api.transport.request_log": "a header, of which a bounded pattern is matched",
    "api.transport.security": "the page's own import map",
    "config": "settings",
    "database": "the program's own SQL",
    "engine.adapters.folders": "names of folders",
    "engine.adapters.patterns": "names of layers; an adapter's own patterns are matched by RE2",
    "engine.adapters.reading": "names in an adapter's settings",
    "engine.model.tokenizer": "control tokens, each a fixed string",
    "evaluation.scoring": "rows of the operator's own, on the command line",
    "embedding.prompts": "the name of a model",
    "model_store.store": "names of files of a download",
    "prompting.sandbox": "templates of the operator's own, which parse_domain compiles and renders",
    "training.run": "names of adapters",
}


def calibration() -> float:
    """Seconds of this thread for work like that of the functions."""
    text = "the quick brown fox jumps over 13 lazy dogs. " * 1_000
    begun = time.thread_time()
    for _ in range(30):
        re.findall(r"[^\W\d_]+|\d+(?:[.,]\d+)*", text.casefold())
        sum(len(part) for part in text.split(" "))
    return time.thread_time() - begun


@pytest.fixture(scope="module")
def most_seconds() -> Iterator[float]:
    """What one text may take on this machine."""
    gc.collect()
    gc.freeze()  # what other tests left is not looked through for each new object
    yield MOST_S * max(1.0, min(calibration() for _ in range(5)) / REFERENCE_S)
    gc.unfreeze()


STEP = cases(3, 1)  # in the short run each function walks a third of the texts, another third than its neighbours
TEXTS = adversarial_texts(SIZE)
PARTS = adversarial_texts(SIZE // PART)


def seconds(function: Callable[[str], object], text: str) -> float:
    """Of this thread; the better of two runs, since caches of the processor are shared."""
    taken = []
    for _ in range(2):
        begun = time.thread_time()
        function(text)
        taken.append(time.thread_time() - begun)
    return min(taken)


def costs_much(function: Callable[[str], object], bound: float, name: str) -> float | None:
    """The seconds that the text of that name takes, where they are too many."""
    begun = time.thread_time()
    function(TEXTS[name])
    if time.thread_time() - begun <= bound:
        return None
    spent = seconds(function, TEXTS[name])
    if spent <= bound or (spent <= LINEAR_TOO * bound and spent <= STEEPEST * seconds(function, PARTS[name])):
        return None
    return round(spent, 2)


def slow_texts(function: Callable[[str], object], bound: float, names: Iterable[str] = TEXTS) -> dict[str, float]:
    """Those that cost too much, with their seconds."""
    found = {name: costs_much(function, bound, name) for name in names}
    return {name: spent for name, spent in found.items() if spent is not None}


LOADERS = [name for name in WALK if name.startswith("retrieval.loaders.")]  # in a file of their own, for a second core


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("at", "name"), list(enumerate(name for name in WALK if name not in LOADERS)))
def test_no_text_costs_much(at: int, name: str, most_seconds: float) -> None:
    assert slow_texts(WALK[name], most_seconds, list(TEXTS)[at % STEP :: STEP]) == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WALK_LONGER)
def test_nor_does_the_check_of_a_whole_answer(name: str, most_seconds: float) -> None:
    assert slow_texts(WALK_LONGER[name], 10 * most_seconds) == {}


# ── nothing is left out ──────────────────────────────────────────────────────────────────────────


def modules_with_patterns() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "server").rglob("*.py")):
        calls = (
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)
        )
        if any(isinstance(node.value, ast.Name) and node.value.id == "re" for node in calls):
            found[".".join(path.relative_to(ROOT / "server").with_suffix("").parts)] = path
    return found


def public_functions(path: Path) -> list[str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node.name for node in functions if not node.name.startswith("_")]


MODULES = modules_with_patterns()


def test_every_module_with_a_pattern_is_walked_or_said_to_be_out_of_reach() -> None:
    walked = {name.partition(":")[0] for name in (*WALK, *WALK_LONGER)}
    assert sorted(set(MODULES) - walked - set(NOT_READERS)) == []
    assert sorted(set(NOT_READERS) - set(MODULES)) == [], "they have no patterns any more"


@pytest.mark.parametrize("module", [module for module in MODULES if module not in NOT_READERS])
def test_so_is_every_public_function_of_it(module: str) -> None:
    named = {*WALK, *WALK_LONGER, *NOT_REACHED}
    assert [name for name in public_functions(MODULES[module]) if f"{module}:{name}" not in named] == []


def test_each_entry_names_a_function_that_is_there() -> None:
    for name in (*WALK, *WALK_LONGER, *NOT_REACHED):
        module, _, function = name.partition(":")
        source = import_module(f"server.{module}")
        assert re.search(rf"def {function}\(", Path(str(source.__file__)).read_text(encoding="utf-8")), name


def test_the_walk_finds_what_takes_the_square_of_the_length(most_seconds: float) -> None:
    """Or it would show nothing."""
    quadratic = re.compile(r"\w+!")
    slow = slow_texts(lambda text: quadratic.search(text[: len(text) * 2 // 5]), most_seconds, ("one letter", "dots"))
    assert list(slow) == ["one letter"]
    assert len(UNITS) > 100
