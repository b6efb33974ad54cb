"""Line charts as SVG text, for a page that loads nothing."""

import math
from collections.abc import Mapping, Sequence
from html import escape

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
    (x0, x1), (y0, y1) = _span(min(xs), max(xs)), _span(min(ys), max(ys))

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


def _span(low: float, high: float) -> tuple[float, float]:
    """A range that is not a point."""
    margin = max(1.0, abs(low)) / 2
    return (low, high) if high > low else (low - margin, high + margin)


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
