"""The picture grid: a row a conditioning, a column a prompt."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

GAP, LABEL, LEAST = 4, 110, 128


def grid(rows: dict[str, NDArray[np.uint8]]) -> Image.Image:
    """Rows of pictures [columns, h, w, 3] under their names as one picture; small ones are enlarged."""
    first = next(iter(rows.values()))
    side = max(LEAST, first.shape[1])
    sheet = Image.new("RGB", (LABEL + (side + GAP) * len(first), (side + GAP) * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows.items()):
        pen.text((6, row * (side + GAP) + side // 2), name, fill="black")
        for column, picture in enumerate(pictures):
            tile = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (LABEL + column * (side + GAP), row * (side + GAP)))
    return sheet
