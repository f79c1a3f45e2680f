"""Bad and hostile files in knowledge: each has a clear line in the status, and the rest is indexed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from server.config import RetrievalSettings
from server.errors import KnowledgeError
from server.retrieval import FileState, KnowledgeBase
from server.retrieval.loaders import load
from tests.fakes import WordEmbedder
from tests.retrieval.loaders import hostile, office_files
from tests.retrieval.loaders.hostile import children, is_busy, wait_for
from tests.retrieval.loaders.ole import compound
from tests.retrieval.loaders.test_hangul import hwp

NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "knowledge"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "good.md").write_text("the melon is fresh")
    return folder


def statuses(root: Path, settings: RetrievalSettings | None = None) -> dict[str, tuple[FileState, str]]:
    """Of the folder 'shop' after one sync, in which its good file is found."""
    base = KnowledgeBase(root, root.parent / "index", WordEmbedder(), settings or RetrievalSettings())
    base.sync()
    try:
        (passage,) = base.search("melon", ["shop"]).passages
        assert passage.file == "good.md"
        base.check_integrity()
        (folder,) = (one for one in base.status().folders if one.name == "shop")
        return {one.file: (one.state, one.reason) for one in folder.files}
    finally:
        base._updater.close()


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut.pdf": (lambda: hostile.pdf("text")[:400], "damaged"),
    "cut.docx": (lambda: hostile.office(".docx", "text")[:9000], "not a .docx file: it is damaged or something else"),
    "cut.xlsx": (lambda: hostile.office(".xlsx", "text")[:2000], "not a .xlsx file: it is damaged or something else"),
    "cut.pptx": (lambda: hostile.office(".pptx", "text")[:9000], "not a .pptx file: it is damaged or something else"),
    "picture.txt": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "not text"),
    "rc4.pdf": (lambda: hostile.encrypted_pdf("RC4-128"), "encrypted: save it without a password"),
    "aes.pdf": (lambda: hostile.encrypted_pdf("AES-256"), "encrypted: save it without a password"),
    **{
        f"password{ending}": (
            lambda ending=ending: hostile.with_password(hostile.office(ending, "text")),
            "encrypted with a password: save it without one",
        )
        for ending in hostile.OFFICE
    },
    **{
        f"laughs{ending}": (lambda ending=ending: hostile.billion_laughs(ending), "damaged")
        for ending in hostile.OFFICE
    },
    **{
        f"bomb{ending}": (lambda ending=ending: hostile.zip_bomb(ending, 600), "unpacks to 600 MB, the limit is 512 MB")
        for ending in hostile.OFFICE
    },
    "bomb.hwpx": (lambda: hostile.zip_of(("Contents/section0.xml", 600)), "unpacks to 600 MB, the limit is 512 MB"),
    "bomb.odt": (lambda: hostile.zip_of(("content.xml", 600)), "unpacks to 600 MB, the limit is 512 MB"),
    "bomb.epub": (lambda: hostile.zip_of(("a.xhtml", 600)), "unpacks to 600 MB, the limit is 512 MB"),
    "memory.odt": (lambda: hostile.zip_of(("content.xml", 200)), "needs more than 256 MB of memory to be read"),
    "laughs.odt": (lambda: hostile.zip_of(("content.xml", hostile.billion_laughs(".xml"))), "its XML defines entities"),
    "many.hwp": (lambda: hwp(bytes(60_000_000)), "holds over 1,000,000 records: split it"),
    "old.doc": (lambda: compound({"WordDocument": bytes(5000)}), "an old Office format (.doc): save it as .docx"),
    "bomb.pdf": (lambda: hostile.pdf_bomb(300), "reading it crashed 2 times"),
    "memory.docx": (lambda: hostile.many_paragraphs(200), "needs more than 256 MB of memory to be read"),
    "stall.html": (lambda: hostile.STALL, "took longer than 6 s to read"),
    "deep.json": (lambda: b"[" * 1_000_000, "nested too deeply"),
}  # fmt: skip


@pytest.mark.slow
def test_every_bad_file_has_its_reason_and_the_others_are_indexed(root: Path) -> None:
    for name, (build, _) in BAD.items():
        (root / "shop" / name).write_bytes(build())
    for ending in hostile.OFFICE:
        (root / "shop" / f"fine{ending}").write_bytes(hostile.office(ending, "a lamp"))
    (root / "shop" / "laughs.xml").write_bytes(hostile.billion_laughs(".xml"))
    found = statuses(root, RetrievalSettings(parse_seconds=6, parse_mb=256))
    for name, (_, reason) in BAD.items():
        assert (found[name][0], reason in found[name][1]) == (FileState.FAILED, True), (name, found[name])
    fine = {name: found[name][0] for name in ("good.md", "fine.docx", "fine.xlsx", "fine.pptx", "laughs.xml")}
    assert set(fine.values()) == {FileState.INDEXED}, fine


def test_problems_that_the_scan_finds(root: Path) -> None:
    shop, outside = root / "shop", root.parent / "secret.md"
    outside.write_text("the melon is secret")
    (shop / "link.md").symlink_to(outside)
    (shop / "zero.md").touch()
    hostile.sparse(shop / "large.txt", 500)
    (shop / "zgood.md").write_text("the fig is stale")
    (shop / "zGood.md").write_text("the fig is stale")
    with open(os.fsencode(shop) + b"/caf\xe9.md", "wb") as file:
        file.write(b"text")
    composed, decomposed = (unicodedata.normalize(form, "가격.md") for form in ("NFC", "NFD"))
    for name in (composed, decomposed):
        (shop / name).write_text("the plum is blue")
    found = statuses(root)
    reasons = {
        "link.md": (FileState.UNSUPPORTED, "a link that leads out of the knowledge folder"),
        "zero.md": (FileState.EMPTY, "the file is empty (0 bytes)"),
        "large.txt": (FileState.FAILED, "too large: 500 MB, the limit is 64 MB; split the file"),
        "zgood.md": (
            FileState.FAILED, "its name differs from 'zGood.md' only in upper and lower case: rename one of them"
        ),
        "caf?.md": (FileState.FAILED, "its name is not valid UTF-8: rename it"),
        composed: (FileState.FAILED, f"its name differs from '{decomposed}' only in Unicode form: rename one of them"),
        "good.md": (FileState.INDEXED, ""),
        "zGood.md": (FileState.INDEXED, ""),
        decomposed: (FileState.INDEXED, ""),
    }  # fmt: skip
    assert found == reasons


def test_a_file_that_may_not_be_read_says_so() -> None:
    """As a user without the right: root may read everything."""
    place = Path(tempfile.mkdtemp(prefix="tailor-"))
    root = place / "knowledge"
    (root / "shop").mkdir(parents=True)
    (root / "shop" / "good.md").write_text("the melon is fresh")
    (root / "shop" / "closed.md").write_text("secret")
    (root / "shop" / "closed.md").chmod(0)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            for path in (place, *place.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        found = statuses(root)
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(place)
    assert found == {
        "good.md": (FileState.INDEXED, ""), "closed.md": (FileState.FAILED, "cannot be read: Permission denied"),
    }  # fmt: skip


def test_where_no_worker_starts_the_others_are_indexed_and_the_file_waits(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "shop" / "a.pdf").write_bytes(hostile.pdf("the fig is stale"))
    base = KnowledgeBase(root, root.parent / "index", WordEmbedder(), RetrievalSettings(debounce_ms=0))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nowhere/python")
        base.sync()
    assert [passage.file for passage in base.search("melon", ["shop"]).passages] == ["good.md"]
    states = {file.file: file.state for folder in base.status().folders for file in folder.files}
    assert states == {"good.md": FileState.INDEXED, "a.pdf": FileState.INDEXING}
    base.sync()
    assert [passage.file for passage in base.search("fig", ["shop"]).passages] == ["a.pdf"]
    base._updater.close()


async def test_a_server_that_closes_does_not_wait_for_a_file(root: Path) -> None:
    before = children(os.getpid())
    (root / "shop" / "stall.html").write_bytes(hostile.STALL)
    base = KnowledgeBase(root, root.parent / "index", WordEmbedder(), RetrievalSettings(parse_seconds=3600))
    await base.start()
    await asyncio.to_thread(wait_for, lambda: any(is_busy(pid) for pid in children(os.getpid()) - before))
    await base.close()
    assert children(os.getpid()) <= before
    (root / "shop" / "stall.html").unlink()
    base.sync()
    assert [passage.file for passage in base.search("melon", ["shop"]).passages] == ["good.md"]
    base._updater.close()


def test_an_office_file_in_an_old_format_says_so() -> None:
    with pytest.raises(KnowledgeError, match=r"old Office format: save it as \.xlsx"):
        load("a.xlsx", b"\xd0\xcf\x11\xe0" + bytes(4096))


# ── Office files that are small and cost much ────────────────────────────────────────────────────

LINKED = '<w:r><w:drawing><c:chart r:id="c1"/></w:drawing></w:r>'


def seconds(name: str, data: bytes) -> float:
    begun = time.thread_time()
    with suppress(KnowledgeError):
        load(name, data)
    return time.thread_time() - begun


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("one chart a hundred thousand times.docx",
         lambda: office_files.word(f"<w:p>{LINKED * 100_000}</w:p>", (("c1", "chart", "c1.xml"),),
                                   c1=office_files.chart("t", ("s", {str(at): "1" for at in range(1_000)})))),
        ("fields that never end.docx",
         lambda: office_files.word("<w:p>" + '<w:r><w:fldChar w:fldCharType="begin"/></w:r>' * 100_000 + "</w:p>")),
        ("styles in a chain.docx",
         lambda: office_files.word(
             "".join(office_files.para("x", f'<w:pStyle w:val="s{at}"/>') for at in range(20_000)),
             styles=office_files.element("w:styles", "".join(
                 f'<w:style w:styleId="s{at}"><w:basedOn w:val="s{at + 1}"/></w:style>' for at in range(20_000))))),
        ("nested tables.docx",
         lambda: office_files.word(
             "<w:tbl><w:tr><w:tc><w:tcPr/>" * 60 + "<w:p/>" + "</w:tc><w:tc/></w:tr></w:tbl>" * 60)),
        ("columns.xlsx", lambda: office_files.sheet(
            "".join(f"<row r='{at}'><c r='XFD{at}'><v>1</v></c></row>" for at in range(1, 50_000)))),
        ("merges.xlsx", lambda: office_files.sheet(
            "".join(f"<row r='{at}'><c r='A{at}'><v>1</v></c></row>" for at in range(1, 20_000)),
            "".join(f"<mergeCell ref='A{at}:XFD1048576'/>" for at in range(1, 20_000)))),
        ("quotes.csv", lambda: b'a,b\n' + b'1,"x\n' * 200_001),
        ("columns.csv", lambda: b"," * 2_000_000 + b"\n" + b"1,2\n" * 100_000),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_small_office_files_do_not_cost_much(name: str, build: Callable[[], bytes]) -> None:
    assert seconds(name, build()) < 20
