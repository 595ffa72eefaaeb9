"""Bar charts as SVG, by hand: a page of text needs no plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, ROW, LABEL, RIGHT, TOP = 760, 26, 270, 90, 44
FONT = 'font-family="system-ui, sans-serif"'
OURS, THEIRS, INK, FAINT = "#1f6feb", "#9aa4b2", "#24292f", "#d0d7de"


@dataclass(frozen=True, slots=True)
class Bar:
    """`low` and `high`: the range over all rounds, drawn as a whisker."""

    label: str
    value: float
    low: float
    high: float
    ours: bool


def short(value: float) -> str:
    """1.23 M, 45.6 k, 789, 0.12."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:  # which three digits round up to it
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def bar_chart(title: str, unit: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from zero, in the given order."""
    height = TOP + ROW * len(bars) + 12
    top = max((max(bar.value, bar.high) for bar in bars), default=1.0) or 1.0
    scale = (WIDTH - LABEL - RIGHT) / top
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" {FONT} font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="600" fill="{INK}">{escape(title)}</text>',
        f'<text x="{WIDTH - 12}" y="24" text-anchor="end" fill="{INK}">{escape(unit)}</text>',
        f'<line x1="{LABEL}" y1="{TOP - 6}" x2="{LABEL}" y2="{height - 8}" stroke="{FAINT}"/>',
    ]
    for number, bar in enumerate(bars):
        parts += one_bar(bar, TOP + ROW * number, scale)
    return "\n".join([*parts, "</svg>", ""])


def one_bar(bar: Bar, y: int, scale: float) -> list[str]:
    length = bar.value * scale
    fill = OURS if bar.ours else THEIRS
    middle = y + ROW / 2 - 2
    found = [
        f'<text x="{LABEL - 8}" y="{middle + 4:.1f}" text-anchor="end" fill="{INK}">{escape(bar.label)}</text>',
        f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{ROW - 8}" rx="2" fill="{fill}"/>',
    ]
    if bar.high > bar.low:
        x1, x2 = LABEL + bar.low * scale, LABEL + bar.high * scale
        found.append(
            f'<path d="M{x1:.1f} {middle:.1f}H{x2:.1f}M{x1:.1f} {middle - 4:.1f}v8M{x2:.1f} {middle - 4:.1f}v8" '
            f'stroke="{INK}" fill="none"/>'
        )
    x = LABEL + max(length, bar.high * scale) + 6
    found.append(f'<text x="{x:.1f}" y="{middle + 4:.1f}" fill="{INK}">{short(bar.value)}</text>')
    return found
