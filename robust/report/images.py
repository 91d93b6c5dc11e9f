"""The report's images as files: every grid of a diagnostic, and all examples of a network and evaluation as one sheet.

The page holds as many as fit; these hold all of them, at the pixels they have.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from robust.report.document import ExampleRow, Report
from robust.report.limits import picture_file, strip_file

GAP = 2  # pixels between two images of a sheet


def image_files(report: Report) -> dict[str, bytes]:
    """Name and content of every PNG file."""
    files = {picture_file(picture): _bytes(picture.image) for picture in report.pictures}
    sheets: dict[str, list[ExampleRow]] = {}
    for example in report.examples:
        sheets.setdefault(strip_file(example.model, example.evaluation), []).append(example)
    return files | {name: sheet(examples) for name, examples in sheets.items()}


def sheet(examples: Sequence[ExampleRow]) -> bytes:
    """One row an example, as in examples.csv: the image, the perturbation enlarged around grey, the attacked image."""
    rows = [[_image(uri) for uri in (e.clean, e.perturbation, e.adversarial)] for e in examples]
    images = [image for row in rows for image in row]
    width, height = max(image.width for image in images), max(image.height for image in images)
    mode = "RGB" if any(image.mode != "L" for image in images) else "L"
    white = (255, 255, 255) if mode == "RGB" else 255
    whole = Image.new(mode, (3 * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), white)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            whole.paste(image, (j * (width + GAP), i * (height + GAP)))
    buffer = io.BytesIO()
    whole.save(buffer, "PNG")
    return buffer.getvalue()


def _bytes(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


def _image(uri: str) -> Image.Image:
    image = Image.open(io.BytesIO(_bytes(uri)))
    image.load()
    return image
