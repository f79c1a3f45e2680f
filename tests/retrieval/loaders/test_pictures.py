"""Pictures: read where a program for text recognition is installed, else told what to install."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator

import pytest
from PIL import Image, ImageDraw, ImageFont

from server.errors import KnowledgeError
from server.retrieval.loaders import is_supported, load, picture_file, recognition, why_unsupported


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    recognition.is_available.cache_clear()
    recognition.languages.cache_clear()
    yield
    recognition.is_available.cache_clear()
    recognition.languages.cache_clear()


def picture(text: str, kind: str, **options: object) -> bytes:
    image = Image.new("RGB", (1200, 200), "white")
    ImageDraw.Draw(image).text((40, 60), text, fill="black", font=ImageFont.load_default(48))
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_without_the_program_a_picture_is_not_supported_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not is_supported("scan.PNG")
    assert "apt-get install tesseract-ocr tesseract-ocr-kor" in why_unsupported("scan.PNG")
    with pytest.raises(KnowledgeError, match="install Tesseract"):
        load("scan.png", picture("x", "PNG"))


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="Tesseract is not installed")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_picture_is_read(kind: str) -> None:
    document = load(f"a.{kind.lower()}", picture("Lamps cost 39 euros", kind))
    assert "Lamps cost 39 euros" in document.text
    assert document.omitted[-1].startswith("read by text recognition (")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a picture"),
        (b"BM" + bytes(100), "not a picture"),
    ],
)
def test_what_is_no_picture_says_so(monkeypatch: pytest.MonkeyPatch, data: bytes, reason: str) -> None:
    monkeypatch.setattr(picture_file, "is_available", lambda: True)
    with pytest.raises(KnowledgeError, match=reason):
        load("a.png", data)


def test_a_picture_that_is_too_large_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_file, "is_available", lambda: True)
    out = io.BytesIO()
    Image.new("1", (10_000, 8_100)).save(out, "PNG")
    with pytest.raises(KnowledgeError, match="the limit is 80 million"):
        load("a.png", out.getvalue())


def test_each_picture_of_a_tiff_is_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_file, "is_available", lambda: True)
    monkeypatch.setattr(picture_file, "languages", lambda: ("eng",))
    monkeypatch.setattr(recognition.Recognition, "read", lambda self, width, height, gray: f"{width} wide")
    frames = [Image.new("L", (width, 10), "white") for width in (11, 12)]
    out = io.BytesIO()
    frames[0].save(out, "TIFF", save_all=True, append_images=frames[1:])
    document = load("a.tiff", out.getvalue())
    assert [(block.page, document.text[block.start : block.end]) for block in document.blocks] == [
        (1, "11 wide"),
        (2, "12 wide"),
    ]
