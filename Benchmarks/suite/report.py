"""The readable table, and the same as JSON."""

import json

from .cases import BARE, METRICS, OURS, SYSTEMS, TARGETS, TITLES, VMSPAWN
from .statistics import median, spread


def number(value):
    """Four digits, or three behind the point for what is small."""
    if value is None:
        return ""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def noise(calibrations, loads, stolen, others):
    """How quiet the machine was: `stolen` by its host, and taken by `others`, of the processors' time."""
    loop, trip = ([calibration[index] for calibration in calibrations] for index in (0, 1))
    return {
        "loopMedianMs": median(loop) / 1e6,
        "loopSpread": spread(loop),
        "roundTripMedianUs": median(trip) / 1e3,
        "roundTripSpread": spread(trip),
        "loadAverage": [min(loads), max(loads)],
        "stolenShare": stolen,
        "othersShare": others,
    }


def noise_text(noise, rounds):
    low, high = noise["loadAverage"]
    quiet = noise["loopSpread"] < 0.1 and noise["stolenShare"] < 0.02 and noise["othersShare"] < 0.05
    return (
        f"{rounds} round{'s' if rounds > 1 else ''}. Between them: a fixed loop {noise['loopMedianMs']:.1f} ms, spread"
        f" {100 * noise['loopSpread']:.0f} %; a socket round trip {noise['roundTripMedianUs']:.1f} µs, spread"
        f" {100 * noise['roundTripSpread']:.0f} %;\nload average {low:.1f} to {high:.1f}. Of the processors' time"
        f" {100 * noise['othersShare']:.0f} % went to others here, {100 * noise['stolenShare']:.1f} % to the host."
        f" {'A quiet machine.' if quiet else 'A NOISY machine: trust ratios, not absolutes.'}")


def table(found):
    lines = []
    case = None
    for key, metric in METRICS.items():
        systems = [system for system in SYSTEMS if found.has(key, system)]
        if not systems:
            continue
        if metric.case != case:
            case = metric.case
            lines += ["", TITLES[case], f"  {'':42}{'ours (p99)':>20}{'vmspawn (p99)':>20}{'bare (p99)':>20}{'/vmspawn':>10}{'/bare':>8}"]
        cells = []
        for system in SYSTEMS:
            if system not in systems:
                cells.append("–")
                continue
            p99 = found.p99(key, system)
            cells.append(number(found.median(key, system)) + (f" ({number(p99)})" if p99 is not None else ""))
        ratios = [
            f"{found.ratio(key, OURS, other):.2f}" if OURS in systems and other in systems and found.median(key, other) else "–"
            for other in (VMSPAWN, BARE)
        ]
        label = f"{metric.label}{', ' + metric.unit if metric.unit else ''}"
        lines.append(f"  {label:42}" + "".join(f"{cell:>20}" for cell in cells) + f"{ratios[0]:>10}{ratios[1]:>8}")
    return lines


def look_at_targets(found):
    """Each target whose case was measured: its text, what is seen, whether that is enough."""
    seen = []
    for target in TARGETS:
        try:
            shown, reached = target.look(found)
        except KeyError:
            continue
        seen.append((target.text, shown, reached))
    return seen


def targets_text(seen):
    lines = ["", "Targets (medians of the ratios of each round)"] if seen else []
    for text, shown, reached in seen:
        lines.append(f"  {'reached' if reached else 'MISSED '}  {text:56} {shown}")
    return lines


def as_json(found, seen, noise, about):
    metrics = {}
    for key, metric in METRICS.items():
        systems = {
            system: {
                "median": found.median(key, system),
                "p99": found.p99(key, system),
                "rounds": found.of_rounds(key, system),
            }
            for system in SYSTEMS
            if found.has(key, system)
        }
        if not systems:
            continue
        ratios = {
            other: found.ratio(key, OURS, other)
            for other in (VMSPAWN, BARE)
            if OURS in systems and other in systems and found.median(key, other)
        }
        metrics[key] = {"label": metric.label, "unit": metric.unit, "systems": systems, "ratiosToOurs": ratios}
    targets = [{"target": text, "seen": shown, "reached": reached} for text, shown, reached in seen]
    return json.dumps({"about": about, "noise": noise, "metrics": metrics, "targets": targets}, indent=1, ensure_ascii=False) + "\n"
