"""Files under a wrong ending are read as what they are, or refused with what they are."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest

from server.errors import KnowledgeError
from server.retrieval.loaders import is_container, is_supported, load
from server.retrieval.loaders.document import BlockKind, Document
from server.retrieval.updating import reader as readers
from server.retrieval.updating.reader import Reader
from tests.retrieval.loaders import hostile
from tests.retrieval.loaders.ole import compound
from tests.retrieval.loaders.test_hangul import hwp, hwpx, p, paragraph, t


def texts(document: Document) -> list[str]:
    return [document.text[block.start : block.end] for block in document.blocks]


EXPORT = "<html><head><meta charset='euc-kr'></head><table><tr><td>품목<td>값<tr><td>배<td>500원</table>".encode(
    "cp949"
)


@pytest.mark.parametrize(
    ("name", "build", "expected"),
    [
        ("a.xls", lambda: EXPORT, "품목 | 값\n배 | 500원"),
        ("a.doc", lambda: b"\xef\xbb\xbf<!DOCTYPE html>\n<p>The fee is 7 euros.", "The fee is 7 euros."),
        ("a.xls", lambda: b"<?xml version='1.0'?>\n<html xmlns='x'><body>strict</body></html>", "strict"),
        ("a.doc", lambda: b"MIME-Version: 1.0\nContent-Type: text/html\n\n<p>archived", "archived"),
        ("a.xls", lambda: hostile.office(".xlsx", "mild"), "name: lamp\nnote: mild"),
        ("a.doc", lambda: hostile.office(".docx", "Anna lives here"), "Anna lives here"),
        ("a.docx", lambda: hostile.office(".pptx", "Slide one"), "Slide one"),
        ("a.txt", lambda: hostile.pdf("printed words"), "printed words"),
        ("a.md", lambda: hostile.office(".docx", "Not markdown"), "Not markdown"),
        ("a.hwp", lambda: hwpx(p(t("새 형식"))), "새 형식"),
        ("a.hwpx", lambda: hwp(paragraph("옛 형식")), "옛 형식"),
        ("a.doc", lambda: hwp(paragraph("한글 문서")), "한글 문서"),
        ("a.doc", lambda: b"{\\rtf1 rich words}", "rich words"),
        ("a.doc", lambda: "그냥 글".encode("cp949"), "그냥 글"),
        ("a.xls", lambda: "이름,값\n배,3\n".encode(), "이름: 배\n값: 3"),
        ("a.xls", lambda: "name\tfee, net\nMina\t3\n".encode("utf-16"), "name: Mina\nfee, net: 3"),
    ],
)  # fmt: skip
def test_a_file_is_read_as_what_it_is(name: str, build: Callable[[], bytes], expected: str) -> None:
    assert expected in texts(load(name, build()))


OLD_WORD = r"an old Office format \(\.doc\): save it as \.docx"


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("photo.jpg", "x")
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "build", "reason"),
    [
        ("a.doc", lambda: compound({"WordDocument": bytes(5000)}), OLD_WORD),
        ("a.docx", lambda: compound({"WordDocument": bytes(5000)}), OLD_WORD),
        ("a.ppt", lambda: compound({"PowerPoint Document": b"x"}), r"\(\.ppt\): save it as \.pptx"),
        ("a.txt", lambda: compound({"EncryptedPackage": b"x"}), "encrypted with a password"),
        ("a.txt", archive, "a ZIP archive: unpack it"),
        ("a.xls", lambda: b"<?xml ?><Workbook xmlns='urn:schemas-microsoft-com:office:spreadsheet'>", "Excel XML"),
        ("a.doc", lambda: b"\xdb\xa5\x2d\x00" + bytes(600), r"an old Office format \(\.doc\)"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_read_says_what_it_is(name: str, build: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(KnowledgeError, match=reason):
        load(name, build())


@pytest.mark.parametrize(
    "text",
    ["<html> is how a page begins.", "<table> of contents", "PK is short for public key", "%PDF-1.4 is a version",
     "{\\rtf1 is how it begins", "MIME-Version: 1.0 comes first", "From: <Saved by Blink>", "HWP documents"],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".txt", ".md", ".rst"])
def test_text_that_begins_like_something_else_stays_text(text: str, ending: str) -> None:
    document = load(f"a{ending}", text.encode())
    assert (texts(document), document.blocks[0].kind, document.numbered) == ([text], BlockKind.TEXT, True)


def test_what_is_named_like_text_and_is_none_is_not_read_in_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(30, 512)
    monkeypatch.setattr(readers, "load", None)
    try:
        assert texts(reader.read("a.txt", hostile.pdf("printed words"))) == ["printed words"]
    finally:
        reader.close()
    assert not is_container(b"plain")
    assert is_supported("a.doc")


@pytest.mark.parametrize("cut", [4, 30, 200, 600, 3000])
def test_a_cut_container_is_refused(cut: int) -> None:
    for name, data in (("a.hwp", hwp(paragraph("가" * 4000))), ("a.epub", archive()), ("a.txt", archive())):
        with pytest.raises(KnowledgeError):
            load(name, data[: min(cut, len(data) - 8)])
