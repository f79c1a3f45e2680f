"""Office files of hand-written XML, for what libraries do not write."""

from __future__ import annotations

import io
import zipfile

from server.retrieval.loaders.document import Document

_TYPES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_SPACES = " ".join(
    f'xmlns:{prefix}="{uri}"'
    for prefix, uri in {
        "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
        "r": _TYPES,
        "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
        "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
        "dgm": "http://schemas.openxmlformats.org/drawingml/2006/diagram",
        "p": "http://schemas.openxmlformats.org/presentationml/2006/main",
        "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
        "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
        "v": "urn:schemas-microsoft-com:vml",
        "a14": "http://schemas.microsoft.com/office/drawing/2010/main",
        "xdr": "http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing",
    }.items()
)


def element(name: str, inside: str, more: str = "") -> str:
    return f"<{name} {_SPACES} {more}>{inside}</{name}>"


def relations(*links: tuple[str, str, str]) -> str:
    """Of id, kind and target."""
    inside = "".join(f'<Relationship Id="{one}" Type="{_TYPES}/{kind}" Target="{to}"/>' for one, kind, to in links)
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{inside}</Relationships>'
    )


def package(main: str, parts: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_rels/.rels", relations(("r1", "officeDocument", main)))
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def word(body: str, links: tuple[tuple[str, str, str], ...] = (), **parts: str) -> bytes:
    """`parts` by the names of their files; styles, numbering, notes and comments are related to by themselves."""
    known = tuple((name, name, f"{name}.xml") for name in parts if name in _KNOWN)
    files = {f"word/{name}.xml": content for name, content in parts.items()}
    main = {"word/document.xml": element("w:document", f"<w:body>{body}</w:body>")}
    return package("word/document.xml", {**main, **files, "word/_rels/document.xml.rels": relations(*known, *links)})


_KNOWN = ("styles", "numbering", "footnotes", "endnotes", "comments")


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def para(text: str, properties: str = "") -> str:
    """A paragraph of plain text, or of the XML of runs."""
    inside = text if text.startswith("<") else run(text)
    return f"<w:p><w:pPr>{properties}</w:pPr>{inside}</w:p>"


def alternatives(choice: str, fallback: str = "") -> str:
    first, second = f"<mc:Choice>{choice}</mc:Choice>", f"<mc:Fallback>{fallback}</mc:Fallback>"
    return f"<mc:AlternateContent>{first}{second}</mc:AlternateContent>"


def cell(text: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{text if text.startswith('<') else para(text)}</w:tc>"


def table(*rows: str) -> str:
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"


def chart(title: str, *series: tuple[str, dict[str, str]], kind: str = "barChart") -> str:
    """Series of a name and values by category, each a plot of its own."""
    plots = ""
    for name, values in series:
        categories = "".join(f'<c:pt idx="{at}"><c:v>{key}</c:v></c:pt>' for at, key in enumerate(values))
        figures = "".join(f'<c:pt idx="{at}"><c:v>{one}</c:v></c:pt>' for at, one in enumerate(values.values()))
        plots += (
            f"<c:{kind}><c:ser><c:tx><c:strRef><c:strCache><c:pt idx='0'><c:v>{name}</c:v></c:pt></c:strCache>"
            f"</c:strRef></c:tx><c:cat><c:strRef><c:strCache>{categories}</c:strCache></c:strRef></c:cat><c:val><c:numRef>"
            f"<c:numCache>{figures}</c:numCache></c:numRef></c:val></c:ser></c:{kind}>"
        )
    heading = f"<c:title><c:tx><c:rich><a:p><a:r><a:t>{title}</a:t></a:r></a:p></c:rich></c:tx></c:title>"
    return element("c:chartSpace", f"<c:chart>{heading}<c:plotArea>{plots}</c:plotArea></c:chart>")


def diagram(*texts: str) -> str:
    """Each point below the one before."""
    points = "".join(
        f'<dgm:pt modelId="{at}"><dgm:t><a:p><a:r><a:t>{text}</a:t></a:r></a:p></dgm:t></dgm:pt>'
        for at, text in enumerate(texts)
    )
    links = "".join(f'<dgm:cxn modelId="c{at}" srcId="{at}" destId="{at + 1}"/>' for at in range(len(texts) - 1))
    return element("dgm:dataModel", f"<dgm:ptLst>{points}</dgm:ptLst><dgm:cxnLst>{links}</dgm:cxnLst>")


def slides(*trees: str, links: tuple[tuple[str, str, str], ...] = (), show: str = "1", **parts: str) -> bytes:
    """Slides of the XML of their shapes; `links` are of the first one, `parts` by the names of their files."""
    names = [f"s{at}" for at in range(len(trees))]
    listed = "".join(f'<p:sldId id="{256 + at}" r:id="{name}"/>' for at, name in enumerate(names))
    files = {
        f"ppt/{name}.xml": element("p:sld", f"<p:cSld><p:spTree>{tree}</p:spTree></p:cSld>", f'show="{show}"')
        for name, tree in zip(names, trees, strict=True)
    }
    main = {
        "ppt/presentation.xml": element("p:presentation", f"<p:sldIdLst>{listed}</p:sldIdLst>"),
        "ppt/_rels/presentation.xml.rels": relations(
            *((name, "slide", f"{name}.xml") for name in names),
            *((name, name, f"{name}.xml") for name in parts if name == "commentAuthors"),
        ),
        "ppt/_rels/s0.xml.rels": relations(*links),
    }
    return package("ppt/presentation.xml", {**main, **files, **{f"ppt/{name}.xml": one for name, one in parts.items()}})


def sheet(rows: str, merges: str = "", **parts: str) -> bytes:
    """A workbook of one sheet; `parts` by the names of their files, t being the shared texts."""
    links = relations(("r1", "worksheet", "s.xml"), ("r2", "sharedStrings", "t.xml"))
    inside = f"<sheetData>{rows}</sheetData><mergeCells>{merges}</mergeCells>"
    main = {
        "xl/w.xml": element("workbook", '<sheets><sheet name="S" r:id="r1"/></sheets>'),
        "xl/_rels/w.xml.rels": links,
        "xl/s.xml": f"<worksheet>{inside}</worksheet>",
    }
    return package("xl/w.xml", {**main, **{f"xl/{name}.xml": content for name, content in parts.items()}})


def shape(text: str, kind: str = "", inside: str = "") -> str:
    place = f'<p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr>' if kind else "<p:nvSpPr/>"
    body = inside or f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>"
    return f"<p:sp>{place}<p:txBody>{body}</p:txBody></p:sp>"


def frame(inside: str) -> str:
    return f"<p:graphicFrame><a:graphic><a:graphicData>{inside}</a:graphicData></a:graphic></p:graphicFrame>"


def texts(document: Document) -> list[str]:
    return [document.text[block.start : block.end] for block in document.blocks]


def headings(document: Document) -> list[tuple[str, ...]]:
    return [block.heading for block in document.blocks]
