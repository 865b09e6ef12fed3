"""Draws what bench_graph_stream prints: recall@10 and queries a second over the share of points that was replaced.

    build/bench_graph_stream SET_DIR DIMS cosine >stream.tsv && bench/graph_stream.py stream.tsv >stream.svg
"""
import sys

from ann_figure import text

WIDE, HIGH, LEFT, TOP, GAP = 420, 260, 60, 44, 90


def read(path):
    points, built, title = [], None, ""
    for line in open(path):
        cells = line.rstrip("\n").split("\t")
        if line.startswith("#"):
            title = title or line[1:].strip()
        elif cells[0] == "built":
            built = [float(c) for c in cells[1:3]]
        else:
            points.append([float(c) for c in cells[:3]])
    return title, points, built


def panel(x0, name, points, built, low, high, shown):
    across = lambda share: x0 + WIDE * share / max(points[-1][0], 1e-9)  # noqa: E731
    up = lambda v: TOP + HIGH * (1 - (v - low) / (high - low))  # noqa: E731
    out = [text(x0, TOP - 10, name, 'class="t"'), f'<rect x="{x0}" y="{TOP}" width="{WIDE}" height="{HIGH}" class="f"/>']
    for i in range(6):
        v = low + (high - low) * i / 5
        out.append(f'<path d="M{x0} {up(v):.1f}h{WIDE}" class="g"/>' + text(x0 - 6, up(v) + 4, shown % v, 'text-anchor="end"'))
    for p in points[::2]:
        out.append(text(across(p[0]), TOP + HIGH + 16, f"{p[0]:.0%}", 'text-anchor="middle"'))
    line = " L".join(f"{across(p[0]):.1f} {up(p[1]):.1f}" for p in points)
    out.append(f'<path d="M{line}" fill="none" stroke="#d62728" stroke-width="2"/>')
    if built is not None:
        out.append(f'<path d="M{x0} {up(built):.1f}h{WIDE}" stroke="#1f77b4" stroke-dasharray="5 4"/>'
                   + text(x0 + WIDE - 4, up(built) - 5, "built anew at the end", 'text-anchor="end"'))
    return out


def main(path):
    title, points, built = read(path)
    rates = [p[2] for p in points] + ([built[1]] if built else [])
    recalls = [p[1] for p in points] + ([built[0]] if built else [])
    width = LEFT + 2 * WIDE + GAP + 20
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + HIGH + 40}" font-family="sans-serif" font-size="11">',
           '<style>text{fill:#333}.t{font-size:13px}.f{fill:none;stroke:#888}.g{stroke:#8883;fill:none}'
           '@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>', text(LEFT, 16, title + "; share of points replaced", 'class="t"')]
    out += panel(LEFT, "recall@10", [(p[0], p[1]) for p in points], built and built[0], min(0.9, min(recalls) - 0.01), 1, "%.2f")
    out += panel(LEFT + WIDE + GAP, "queries a second, one thread", [(p[0], p[2]) for p in points], built and built[1], 0,
                 1.2 * max(rates), "%.0f")
    print("\n".join(out + ["</svg>"]))


main(sys.argv[1])
