"""A dot plot as an SVG file: a line for each row, a panel for each measure, every value and the mean's interval."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from statistics import mean, median

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
    low, high = _span([value for each in found.values() for value in each])
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


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest value within 8 median deviations: one row must not flatten the rest."""
    middle = median(values)
    deviation = median(abs(value - middle) for value in values)
    near = [value for value in values if not deviation or abs(value - middle) <= 8 * deviation]
    low, high = min(near), max(near)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _down(place: int) -> int:
    return HEAD + LINE * place
