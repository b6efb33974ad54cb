"""A dot plot as an SVG file: a line for each row, a panel for each measure, every value and the mean's interval.

What the sections of the report share: a table that scrolls by itself, and a picture inside the page.

Line charts as SVG text, for a page that loads nothing.
"""

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from statistics import mean, median

from PIL import Image

NAMES, PANEL, LINE, HEAD, PAD = 180, 180, 20, 40, 14  # widths and heights in pixels
STYLE = (
    "text{font:12px sans-serif;fill:#1e293b}.t{font-weight:bold}.e{text-anchor:end}.m{text-anchor:middle;fill:#64748b}"
    "line{stroke:#94a3b8}.i{stroke:#2563eb;stroke-width:2}.v{fill:#2563eb;fill-opacity:.35}.c{fill:#2563eb}"
)


def dots(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    rows: Sequence[str],
    half_width: Callable[[Sequence[float]], float],
) -> str:
    """The picture of panels[measure][row] = values by seed, rows in their order, and of mean +- half_width(values).

    The first row's mean is drawn through. A row without values stays empty; an interval is cut at the panel's edge, and
    a mean beyond it is written there.
    """
    width, height = NAMES + PANEL * len(panels), HEAD + LINE * len(rows) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="white"/>',
        *(f'<text class="e" x="{NAMES - 8}" y="{_down(place) + 4}">{escape(row)}</text>'
          for place, row in enumerate(rows)),
        *(_panel(NAMES + PANEL * place, measure, found, rows, half_width)
          for place, (measure, found) in enumerate(panels.items())),
        "</svg>\n",
    ]  # fmt: skip
    return "\n".join(parts)


def _panel(
    left: float,
    measure: str,
    found: Mapping[str, Sequence[float]],
    rows: Sequence[str],
    half_width: Callable[[Sequence[float]], float],
) -> str:
    low, high = _value_span([value for each in found.values() for value in each])
    bottom = _down(len(rows))

    def across(value: float) -> float:
        share = min(max((value - low) / (high - low), 0), 1)
        return left + PAD + share * (PANEL - 2 * PAD)

    parts = [f'<text class="t" x="{left + PAD}" y="18">{escape(measure)}</text>']
    parts += [f'<text class="m" x="{across(value):.1f}" y="{bottom + 12}">{value:.4g}</text>' for value in (low, high)]
    for place, row in enumerate(rows):
        if not (seeds := found.get(row)):
            continue
        middle, half = mean(seeds), half_width(seeds)
        down = _down(place)
        if place == 0:
            parts.append(f'<line stroke-dasharray="3" x1="{across(middle):.1f}" x2="{across(middle):.1f}" '
                         f'y1="{HEAD - 10}" y2="{bottom - 4}"/>')  # fmt: skip
        ends = across(middle - half), across(middle + half)
        parts.append(f'<line class="i" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{down}" y2="{down}"/>')
        parts += [f'<circle class="v" cx="{across(value):.1f}" cy="{down}" r="3"/>' for value in seeds]
        parts.append(f'<circle class="c" cx="{across(middle):.1f}" cy="{down}" r="4"/>')
        if not low <= middle <= high:
            inwards = ("", 8) if middle < low else ("e", -8)
            parts.append(f'<text class="{inwards[0]}" x="{across(middle) + inwards[1]:.1f}" y="{down + 4}">'
                         f"{middle:.4g}</text>")  # fmt: skip
    return "\n".join(parts)


def _value_span(values: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest value within 8 median deviations: one row must not flatten the rest."""
    middle = median(values)
    deviation = median(abs(value - middle) for value in values)
    near = [value for value in values if not deviation or abs(value - middle) <= 8 * deviation]
    low, high = min(near), max(near)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _down(place: int) -> int:
    return HEAD + LINE * place


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


COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#475569", "#a16207")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 260, 52, 28, 10


def chart(title: str, across: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """One chart of named (x, y) series with axes, a legend, and the last value of each; no point that is not finite."""
    finite = {name: [point for point in points if all(map(math.isfinite, point))] for name, points in series.items()}
    kept = {name: points for name, points in finite.items() if points}
    if not kept:
        return ""
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    (x0, x1), (y0, y1) = _axis_span(min(xs), max(xs)), _axis_span(min(ys), max(ys))

    def place(x: float, y: float) -> str:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - 8)
        down = TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return f"{across:.1f},{down:.1f}"

    parts = [f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = y0 + share * (y1 - y0)
        left, down = place(x0, y).split(",")
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - 8}" y1="{down}" y2="{down}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(down) + 4:.1f}" text-anchor="end">{y:.3g}</text>')
        x = x0 + share * (x1 - x0)
        right = place(x, y0).split(",")[0]
        parts.append(f'<text x="{right}" y="{HEIGHT - 8}" text-anchor="middle">{x:.4g}</text>')
    for (_, points), colour in zip(kept.items(), _colours(len(kept)), strict=True):
        line = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{line}"/>')
        last = place(*points[-1]).split(",")
        parts.append(f'<circle fill="{colour}" cx="{last[0]}" cy="{last[1]}" r="3"/>')
    legend = "".join(
        f'<li><span style="background:{colour}"></span>{escape(name)} {points[-1][1]:.4g}</li>'
        for (name, points), colour in zip(kept.items(), _colours(len(kept)), strict=True)
    )
    return "".join([*parts, f'</svg><ul class="legend">{legend}</ul><p class="axis">{escape(across)}</p></figure>'])


def _axis_span(low: float, high: float) -> tuple[float, float]:
    """A range that is not a point."""
    margin = max(1.0, abs(low)) / 2
    return (low, high) if high > low else (low - margin, high + margin)


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
