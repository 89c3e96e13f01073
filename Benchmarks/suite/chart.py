"""The chart: what the others take, with ours as 1."""

from math import log2
from xml.sax.saxutils import escape

from .cases import BARE, METRICS, OURS, TITLES, VMSPAWN

COLOURS = {VMSPAWN: "#c2571a", BARE: "#2a6f97"}
NAMES = {VMSPAWN: "systemd-vmspawn", BARE: "bare QMP socket"}
LEFT, RIGHT, ROW, BAR = 330, 90, 26, 9
WIDTH = 960


def svg(found, caption):
    """One row a metric that was measured of us and of somebody else. A bar to the right: they take longer, or do less."""
    rows = []
    case = None
    for key, metric in METRICS.items():
        others = [other for other in (VMSPAWN, BARE) if found.has(key, OURS) and found.has(key, other) and found.median(key, other)]
        if not others or metric.case == "counts":
            continue
        if metric.case != case:
            case = metric.case
            rows.append((TITLES[case], None))
        # How many times better ours is.
        better = {}
        for other in others:
            ratio = found.ratio(key, OURS, other)
            if ratio > 0:
                better[other] = ratio if metric.more_is_better else 1 / ratio
        rows.append((f"{metric.label} ({'more' if metric.more_is_better else 'less'} is better)", better))
    values = [value for _, better in rows if better for value in better.values()]
    if not values:
        return None
    low = min(-1, min(log2(value) for value in values))
    high = max(1, max(log2(value) for value in values))

    def x(value):
        return LEFT + (max(low, min(high, log2(value))) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    top = 78
    height = top + ROW * len(rows) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="16" y="26" font-size="17" font-weight="bold">qmp-varlinkd against systemd-vmspawn and a bare QMP socket</text>',
        f'<text x="16" y="46" fill="#555">{escape(caption)}</text>',
    ]
    for index, (other, colour) in enumerate(COLOURS.items()):
        parts.append(f'<rect x="{LEFT + 170 * index}" y="56" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 18 + 170 * index}" y="66">{NAMES[other]}</text>')
    bottom = top + ROW * len(rows)
    for power in range(int(low), int(high) + 1):
        at, label = x(2**power), f"{2**power}×" if power >= 0 else f"1/{2**-power}×"
        colour = "#333" if power == 0 else "#ddd"
        parts.append(f'<line x1="{at:.1f}" y1="{top}" x2="{at:.1f}" y2="{bottom}" stroke="{colour}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555">{label}</text>')
    parts.append(f'<text x="{x(1):.1f}" y="{bottom + 32}" text-anchor="middle" fill="#555">← they are better | we are better →</text>')
    for index, (label, better) in enumerate(rows):
        y = top + ROW * index
        if better is None:
            parts.append(f'<text x="16" y="{y + 17}" font-weight="bold">{escape(label)}</text>')
            continue
        parts.append(f'<text x="{LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(label)}</text>')
        for bar, (other, value) in enumerate(better.items()):
            start, end = sorted((x(1), x(value)))
            at = y + 3 + bar * (BAR + 1)
            parts.append(f'<rect x="{start:.1f}" y="{at}" width="{max(1, end - start):.1f}" height="{BAR}" fill="{COLOURS[other]}"/>')
            text = f"{value:.2f}×"
            parts.append(f'<text x="{end + 4:.1f}" y="{at + 8}" font-size="9" fill="#333">{text}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
