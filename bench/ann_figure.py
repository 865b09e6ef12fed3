"""Recall against queries a second as an SVG: no library, a few kilobytes, readable on light and dark pages.

The recall axis is stretched towards 1 (by -log10(1 - recall)), as differences there are what costs; the rate's is logarithmic.
"""
import html
import math

COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f", "#3f5fbf", "#5f8f3f")
TICKS = (0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
WIDE, HIGH, LEFT, TOP, BOTTOM, GAP, LEGEND = 400, 360, 64, 48, 40, 76, 130


def across(recall):
    low, high = -math.log10(1 - TICKS[0]), -math.log10(1 - TICKS[-1])
    return (min(max(-math.log10(max(1 - recall, 1e-4)), low), high) - low) / (high - low)


def text(x, y, words, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{html.escape(words)}</text>'


def panel(x0, title, curves, colour, low, high):
    out = [text(x0 + WIDE / 2, TOP - 12, title, 'text-anchor="middle" class="t"'),
           f'<rect x="{x0}" y="{TOP}" width="{WIDE}" height="{HIGH}" class="f"/>']
    up = lambda rate: TOP + HIGH * (1 - (math.log10(rate) - low) / (high - low))  # noqa: E731
    for r in TICKS:
        x = x0 + WIDE * across(r)
        out.append(f'<path d="M{x:.1f} {TOP}v{HIGH}" class="g"/>' + text(x, TOP + HIGH + 16, f"{r:g}", 'text-anchor="middle"'))
    for power in range(math.floor(low), math.ceil(high) + 1):
        for m in (1, 2, 5):
            if low <= math.log10(m) + power <= high:
                y = up(m * 10.0 ** power)
                out.append(f'<path d="M{x0} {y:.1f}h{WIDE}" class="g"/>' + text(x0 - 6, y + 4, f"{m * 10 ** power:,.0f}", 'text-anchor="end"'))
    out.append(text(x0 + WIDE / 2, TOP + HIGH + 34, "recall@10", 'text-anchor="middle"'))
    for name, curve in curves.items():
        beyond = [r for r, _ in curve if r >= TICKS[-1]]  # of those past the edge only the first is drawn
        points = [(x0 + WIDE * across(r), up(v)) for r, v in curve if TICKS[0] <= r and r <= min(beyond, default=1)]
        if not points:
            continue
        thick = 3 if name == "own" else 1.6
        out.append(f'<path d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}" fill="none" stroke="{colour[name]}" stroke-width="{thick}"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour[name]}"/>' for x, y in points]
    return out


def draw(title, panels):
    """panels: (title, {library: [(recall, rate)]}); the same colours and the same rate axis in all."""
    names = list(dict.fromkeys(n for _, curves in panels for n, c in curves.items() if c))
    colour = {n: COLOURS[i % len(COLOURS)] for i, n in enumerate(names)}
    rates = [math.log10(v) for _, curves in panels for c in curves.values() for r, v in c if r >= TICKS[0] and v > 0] or [0, 1]
    low, high = min(rates) - 0.05, max(rates) + 0.05
    width = LEFT + len(panels) * (WIDE + GAP) - GAP + 16 + LEGEND
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + HIGH + BOTTOM}" font-family="sans-serif" font-size="11">',
           '<style>text{fill:#333}.t{font-size:13px}.f{fill:none;stroke:#888}.g{stroke:#8883;fill:none}'
           '@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>', text(LEFT, 18, title, 'class="t"')]
    for i, (name, curves) in enumerate(panels):
        out += panel(LEFT + i * (WIDE + GAP), name, curves, colour, low, high)
    x = width - LEGEND
    for i, n in enumerate(names):
        y = TOP + 10 + 18 * i
        out.append(f'<path d="M{x} {y}h18" stroke="{colour[n]}" stroke-width="3"/>' + text(x + 24, y + 4, "veckeep" if n == "own" else n))
    return "\n".join(out) + "\n</svg>\n"
