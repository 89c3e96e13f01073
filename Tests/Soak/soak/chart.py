"""The picture: a small chart for each series, with time from left to right."""

from statistics import median
from xml.sax.saxutils import escape

MIB = 1 << 20
# The charts: a title, a unit to divide by, and the series in it with what they are called.
CHARTS = [
    ("daemon: memory, MiB", MIB, {"daemon_rss": "resident", "daemon_anonymous": "anonymous", "daemon_heap": "heap"}),
    ("QEMU: memory, MiB", MIB, {"qemu_rss": "resident", "qemu_anonymous": "anonymous", "qemu_own": "without translated code"}),
    ("descriptors", 1, {"daemon_descriptors": "daemon", "qemu_descriptors": "QEMU"}),
    ("threads", 1, {"daemon_threads": "daemon", "qemu_threads": "QEMU"}),
    ("sessions, and monitors in QEMU", 1, {"sessions": "sessions", "monitors": "monitors", "chardevs": "chardevs"}),
    ("QEMU: storage", 1, {"devices": "devices", "nodes": "block nodes", "fdsets": "fdsets"}),
    ("Describe, ms", 1, {"describe_p99": "99th percentile", "describe_p50": "median"}),
    ("turns of all callers a second", 1, {"turns": "turns"}),
]
COLOURS = ["#2a6f97", "#c2571a", "#3a7d44"]
COLUMNS, WIDTH, HEIGHT, GAP, LEFT, TOP = 2, 460, 170, 34, 60, 96
# Points of a line: more cannot be told apart.
MOST = 450


def thinned(points):
    """Medians of neighbours, so that a long run is not a black band."""
    if len(points) <= MOST:
        return points
    edges = [len(points) * number // MOST for number in range(MOST + 1)]
    return [
        (points[start][0], median(value for _, value in points[start:end])) for start, end in zip(edges, edges[1:])
    ]


def rounded(value):
    """The next of 1, 2, 5, 10, ... above."""
    step = 1e-3
    while True:
        for factor in (1, 2, 5):
            if value <= step * factor:
                return step * factor
        step *= 10


def ticks(low, high):
    step = rounded((high - low) / 4 or 1)
    at = low - low % step
    found = []
    while at <= high + step / 2:
        found.append(at)
        at += step
    return found


def panel(x, y, title, unit, series, samples, warm_up, rising):
    parts = [f'<text x="{x}" y="{y - 8}" font-weight="bold">{escape(title)}</text>']
    lines = {
        name: thinned([(sample["time"], sample[name] / unit) for sample in samples if sample.get(name) is not None]) for name in series
    }
    values = [value for points in lines.values() for _, value in points]
    if not values:
        return parts
    marks = ticks(0, max(values))
    top, end = marks[-1] or 1, max(samples[-1]["time"], 1)

    def at(time, value):
        return x + time / end * WIDTH, y + HEIGHT - value / top * HEIGHT

    parts.append(f'<rect x="{x}" y="{y}" width="{warm_up / end * WIDTH:.1f}" height="{HEIGHT}" fill="#f0f0f0"/>')
    for mark in marks:
        _, height = at(0, mark)
        parts.append(f'<line x1="{x}" y1="{height:.1f}" x2="{x + WIDTH}" y2="{height:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6}" y="{height + 4:.1f}" text-anchor="end" fill="#555">{mark:g}</text>')
    for mark in ticks(0, end / 60):
        if mark * 60 <= end:
            parts.append(f'<text x="{at(mark * 60, 0)[0]:.1f}" y="{y + HEIGHT + 14}" text-anchor="middle" fill="#555">{mark:g} min</text>')
    for number, (name, label) in enumerate(series.items()):
        path = " ".join(f"{along:.1f},{height:.1f}" for along, height in (at(*point) for point in lines[name]))
        colour = COLOURS[number]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
        text = label + (": RISES" if name in rising else "")
        parts.append(f'<text x="{x + WIDTH - 4}" y="{y + 14 + 14 * number}" text-anchor="end" fill="{colour}">{escape(text)}</text>')
    return parts


def svg(samples, caption, warm_up, verdicts):
    rising = {verdict.name for verdict in verdicts if verdict.rises}
    rows = (len(CHARTS) + COLUMNS - 1) // COLUMNS
    width, height = LEFT * 2 + COLUMNS * WIDTH + LEFT, TOP + rows * (HEIGHT + GAP + 22)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="16" y="26" font-size="17" font-weight="bold">qmp-varlinkd under a mixed load</text>',
        f'<text x="16" y="46" fill="#555">{escape(caption)}; what is grey is not judged</text>',
    ]
    for number, (title, unit, series) in enumerate(CHARTS):
        row, column = divmod(number, COLUMNS)
        parts += panel(LEFT + column * (WIDTH + LEFT), TOP + row * (HEIGHT + GAP + 22), title, unit, series, samples, warm_up, rising)
    return "\n".join([*parts, "</svg>"]) + "\n"
