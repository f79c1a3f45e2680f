"""Files that are made to fail, or to do harm, each built for real; and a look at the processes that read them."""

from __future__ import annotations

import io
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import docx
import openpyxl
import pptx
from msoffcrypto.format.ooxml import OOXMLFile
from pypdf import PdfReader, PdfWriter
from reportlab.pdfgen.canvas import Canvas

OFFICE = (".docx", ".xlsx", ".pptx")
MAIN_PART = {".docx": "word/document.xml", ".xlsx": "xl/worksheets/sheet1.xml", ".pptx": "ppt/slides/slide1.xml"}
GENEROUS_S = 60.0
STALL = b"<a " * 200_000  # minutes of work for an HTML parser, as .html


def pdf(*pages: str) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out)
    for page in pages:
        canvas.drawString(72, 760, page)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def office(ending: str, text: str) -> bytes:
    """A small good file."""
    out = io.BytesIO()
    if ending == ".docx":
        document = docx.Document()
        document.add_paragraph(text)
        document.save(out)
    elif ending == ".xlsx":
        book = openpyxl.Workbook()
        book.active.append(["name", "note"])
        book.active.append(["lamp", text])
        book.save(out)
    else:
        slides = pptx.Presentation()
        slides.slides.add_slide(slides.slide_layouts[0]).shapes.title.text = text
        slides.save(out)
    return out.getvalue()


def with_password(data: bytes) -> bytes:
    """As Office saves a file with a password."""
    out = io.BytesIO()
    OOXMLFile(io.BytesIO(data)).encrypt("password", out)
    return out.getvalue()


def encrypted_pdf(algorithm: str, password: str = "password") -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("secret"))))
    writer.encrypt(password, owner_password="owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def with_part(data: bytes, part: str, content: Iterable[bytes]) -> bytes:
    """The Office file with other content in one of its parts."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
    ):
        for entry in source.infolist():
            if entry.filename != part:
                target.writestr(entry, source.read(entry))
        with target.open(part, "w", force_zip64=True) as file:
            for piece in content:
                file.write(piece)
    return out.getvalue()


def zip_bomb(ending: str, megabytes: int) -> bytes:
    zeros = bytes(1024 * 1024)
    return with_part(office(ending, "x"), MAIN_PART[ending], (zeros for _ in range(megabytes)))


def zip_of(*parts: tuple[str, int | bytes]) -> bytes:
    """A ZIP of parts: their content, or how many megabytes of elements they hold."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts:
            with archive.open(name, "w", force_zip64=True) as file:
                if isinstance(content, bytes):
                    file.write(content)
                    continue
                file.write(b"<a>")
                for _ in range(content):
                    file.write(b"<b/>" * (1024 * 1024 // 4))
                file.write(b"</a>")
    return out.getvalue()


def many_paragraphs(megabytes: int) -> bytes:
    """A .docx that stays below every bound until it is a tree in memory."""
    begin = b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    paragraph = b"<w:p><w:r><w:t>abc</w:t></w:r></w:p>"
    some = paragraph * (1024 * 1024 // len(paragraph))
    return with_part(office(".docx", "x"), MAIN_PART[".docx"], [begin, *[some] * megabytes, b"</w:body></w:document>"])


def billion_laughs(ending: str) -> bytes:
    """Its text is an entity of ten of ten of ten … of 'lol'."""
    entities = '<!ENTITY a0 "lol">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    data = office(ending, "HERE") if ending in OFFICE else b"<list>HERE</list>"
    if ending not in OFFICE:
        return f"<!DOCTYPE l [{entities}]>".encode() + data.replace(b"HERE", b"&a9;")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        part = next(name for name in archive.namelist() if b"HERE" in archive.read(name))
        xml = archive.read(part).decode()
    declaration, xml = xml.split("?>", 1) if xml.startswith("<?xml") else ("<?xml version='1.0'", xml)
    laughing = f"{declaration}?><!DOCTYPE l [{entities}]>{xml.replace('HERE', '&a9;')}"
    assert "&a9;" in laughing.split("]>", 1)[1]
    return with_part(data, part, [laughing.encode()])


def pdf_bomb(megabytes: int) -> bytes:
    """A page that unpacks to that much."""
    squeeze = zlib.compressobj(1)
    some = b"(a) Tj " * (1024 * 1024 // 7)
    pieces = [squeeze.compress(b"BT /F1 12 Tf "), *(squeeze.compress(some) for _ in range(megabytes))]
    stream = b"".join([*pieces, squeeze.compress(b"ET"), squeeze.flush()])
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources"
        b"<</Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>\nstream\n%b\nendstream" % (len(stream), stream),
    ]
    out, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, start=1):
        places.append(b"%010d 00000 n \n" % len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, one)
    head = b"xref\n0 5\n0000000000 65535 f \n" + b"".join(places)
    return out + head + b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(out)


def sparse(path: Path, megabytes: int) -> None:
    """A file of that size that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(megabytes * 1024 * 1024)


def children(parent: int) -> set[int]:
    """Processes that `parent` has started and that still run."""
    found = set()
    for place in Path("/proc").iterdir():
        try:
            fields = (place / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if place.name.isdigit() and int(fields[1]) == parent and fields[0] != "Z":
            found.add(int(place.name))
    return found


def is_busy(pid: int) -> bool:
    """It has had two seconds of a processor since its start: the imports take less."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 2


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + GENEROUS_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
