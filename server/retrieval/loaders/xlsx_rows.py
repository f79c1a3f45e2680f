"""Excel: each row is a record of 'header: value' lines under its sheet's name, with its row number as its line.

Values are shown as Excel shows them, formulas by the values that were saved with them. Hidden rows, columns and sheets
are read and called hidden. Comments stand with their rows; shapes and charts behind them.
"""

from __future__ import annotations

from server.retrieval.loaders.document import BlockKind, Document, DocumentBuilder
from server.retrieval.loaders.office.package import Package
from server.retrieval.loaders.sheets.extras import comments, drawn, named_tables, pictures
from server.retrieval.loaders.sheets.rows import Unsaved, frame, rows
from server.retrieval.loaders.sheets.tables import SheetTables
from server.retrieval.loaders.sheets.workbook import SheetPlace, Workbook


def load_xlsx(data: bytes) -> Document:
    builder, unsaved = DocumentBuilder(), Unsaved()
    package = Package(data, ".xlsx")
    book = Workbook(package)
    sheets = book.sheets()
    for sheet in sheets:
        _add_sheet(builder, book, sheet, unsaved)
    if unsaved.count:
        what = "formula has" if unsaved.count == 1 else "formulas have"
        builder.omit(
            f"{unsaved.count} {what} no saved value ({', '.join(unsaved.first)}"
            f"{', …' if unsaved.count > len(unsaved.first) else ''}): open the file in Excel and save it"
        )
    seen = sum(pictures(package, sheet.part) for sheet in sheets)
    if seen:
        builder.omit(f"{seen} {'picture' if seen == 1 else 'pictures'}")
    return builder.build()


def _add_sheet(builder: DocumentBuilder, book: Workbook, sheet: SheetPlace, unsaved: Unsaved) -> None:
    path = (f"{sheet.name} (hidden sheet)" if sheet.hidden else sheet.name,)
    package, around = book.package, frame(book, sheet.part)
    notes = comments(package, sheet.part, package.main_part())
    tables = SheetTables(builder, path, around, named_tables(package, sheet.part), notes)
    tables.add(rows(book, sheet.part, sheet.name, unsaved))
    for number, lines in sorted(notes.items()):
        builder.add("\n".join(lines), path, lines=(number, number) if number else None)
    for text, is_table in drawn(package, sheet.part):
        header = text.split("\n", 1)[0] if is_table else ""
        builder.add(text, path, kind=BlockKind.TABLE if is_table else BlockKind.TEXT, header=header)
    for text in dict.fromkeys(around.print_lines):
        builder.add(text, path)
