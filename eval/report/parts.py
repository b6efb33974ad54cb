"""What the sections of the report share: a table that scrolls by itself, and a picture inside the page."""

import base64
import io
from collections.abc import Iterable
from html import escape

from PIL import Image


def table(head: Iterable[str], rows: Iterable[str]) -> str:
    """A table of ready rows (`<tr>...</tr>`); on a phone it scrolls in its own frame."""
    heading = "".join(f"<th>{escape(each)}</th>" for each in head)
    return f'<div class="wide"><table><thead><tr>{heading}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def inside(picture: Image.Image, alt: str, kind: str = "") -> str:
    """The picture as an `<img>` that holds its own bytes, no side above 192 pixels, of the CSS class `kind`."""
    small = picture.copy()
    small.thumbnail((192, 192))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    code = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="{kind}" alt="{escape(alt)}" src="data:image/jpeg;base64,{code}">'
