"""Pictures (.png .jpg .webp .tiff): their text by text recognition. Of a TIFF each picture is a page."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from server.errors import KnowledgeError
from server.retrieval.loaders.document import Document, DocumentBuilder
from server.retrieval.loaders.recognition import INSTALL, MAX_PIXELS, Recognition, is_available, languages

MAX_SIZE: Final = 80_000_000  # pixels of a picture; a larger one is not unpacked
MAX_PICTURES: Final = 500
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "TIFF")


def load_picture(data: bytes) -> Document:
    """Raises KnowledgeError for what is no picture, is too large, or where no text recognition is installed."""
    if not is_available():
        raise KnowledgeError(f"a picture: to have its text read, {INSTALL}")
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise KnowledgeError("not a picture: it is damaged or something else than its ending says") from error
    builder, recognition = DocumentBuilder(), Recognition()
    with picture:
        count = getattr(picture, "n_frames", 1)
        is_book = picture.format == "TIFF" and count > 1
        for number in range(min(count, MAX_PICTURES) if is_book else 1):
            picture.seek(number)
            text = recognition.read(*_gray(picture))
            if text is None and not number:
                raise KnowledgeError(
                    "text recognition did not finish: make the picture smaller, or raise parse_seconds"
                )
            if text is None:
                builder.omit(
                    f"pages {number + 1} to {count} were not read: text recognition took too long; split the file"
                )
                break
            for paragraph in text.split("\n\n"):
                builder.add(paragraph, page=number + 1 if is_book else None)
        if is_book and count > MAX_PICTURES:
            builder.omit(f"pages {MAX_PICTURES + 1} to {count} were not read: split the file")
        if not is_book and count > 1 and picture.format != "MPO":
            builder.omit("only the first picture of an animation is read")
    builder.omit(f"read by text recognition ({', '.join(languages())})")
    return builder.build()


def _gray(picture: Image.Image) -> tuple[int, int, bytes]:
    """Upright, on white, no larger than text recognition takes."""
    width, height = picture.size
    if width * height > MAX_SIZE:
        raise KnowledgeError(
            f"a picture of {width:,} × {height:,} pixels, the limit is {MAX_SIZE // 1_000_000} million: make it smaller"
        )
    upright = ImageOps.exif_transpose(picture)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        white.alpha_composite(upright)
        upright = white
    gray = upright.convert("L")
    if width * height > MAX_PIXELS:
        scale = (MAX_PIXELS / (width * height)) ** 0.5
        gray = gray.resize((max(1, int(gray.width * scale)), max(1, int(gray.height * scale))))
    return gray.width, gray.height, gray.tobytes()
