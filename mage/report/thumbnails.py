"""Many small pictures in a page: sheets of them as JPEG, of which an element shows one by its place on the sheet."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

COLUMNS = 16
"""Pictures in a row, and rows, of a sheet."""
QUALITY = 74
GROUND = (128, 128, 128)
"""Around pictures that are not square; of medium brightness, because it shows in light and dark pages."""


def sheet_styles(pictures: Sequence[Image.Image], side: int) -> str:
    """CSS that holds the sheets, as the classes s0, s1, ... side: length of a cell in pixels; no picture is larger."""
    styles = [f":root {{ --columns-of-sheet: {COLUMNS}; }}"]
    each = COLUMNS**2
    for number, start in enumerate(range(0, len(pictures), each)):
        part = pictures[start : start + each]
        rows = -(-len(part) // COLUMNS)
        sheet = Image.new("RGB", (COLUMNS * side, rows * side), GROUND)
        for place, picture in enumerate(part):
            left, top = place % COLUMNS * side, place // COLUMNS * side
            sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
        buffer = io.BytesIO()
        sheet.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
        uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        styles.append(f".s{number} {{ background-image: url({uri}); --rows-of-sheet: {rows}; }}")
    return "\n".join(styles) + "\n"


def place_of(index: int) -> str:
    """CSS of the place of picture `index` on its sheet."""
    place = index % COLUMNS**2
    return f"--x:{place % COLUMNS};--y:{place // COLUMNS}"


def shown(index: int, name: str) -> str:
    """HTML of picture `index`, described by `name`."""
    sheet = index // COLUMNS**2
    text = escape(name, quote=True)
    return f'<i class="t s{sheet}" style="{place_of(index)}" role="img" aria-label="{text}" title="{text}"></i>'
