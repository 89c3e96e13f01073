"""Whether a series of samples rises: the rule by which a soak fails."""

import math
from statistics import median

# The first part of a run does not count: allocators, caches and the guest are still filling up.
WARM_UP = 0.2
# What fills up takes longer than that in a short run, and so does the load until it is what it stays: in seconds.
SHORTEST_WARM_UP = 60
# So few samples are no series.
FEWEST = 9
# A long series is looked at as so many medians. Pairs of them are some 1800, whatever the length, and what comes and goes within a
# minute of an hour (a burst of sessions, somebody else's work on the same host) is one value at the most.
BINS = 60


class Tolerance:
    """By how much a series may rise from the warm-up to the end. It does not depend on the duration: what is kept for good stops
    growing, and what leaks does not, so a longer run finds smaller leaks."""

    def __init__(self, absolute, relative=0.0, shortest_warm_up=0, of_the_best=False):
        self.absolute, self.relative, self.shortest_warm_up, self.of_the_best = absolute, relative, shortest_warm_up, of_the_best

    def of(self, level):
        return self.absolute + self.relative * abs(level)


# With some 30 sessions a second, a MiB in five minutes is 100 bytes a session, and in an hour 10.
TOLERANCES = {
    # The heap of a daemon under a load of changing parts: glibc gives back what is free at its end alone, and where that end is depends
    # on which of the long-lived things were made in the busiest moment. That is a few hundred KiB, once; a MiB is beyond it.
    "daemon_rss": Tolerance(1 << 20, shortest_warm_up=SHORTEST_WARM_UP),
    "daemon_anonymous": Tolerance(1 << 20, shortest_warm_up=SHORTEST_WARM_UP),
    "daemon_heap": Tolerance(1 << 20, shortest_warm_up=SHORTEST_WARM_UP),
    # Without the code that it translates for its guest, of which there is more with each hotplug. It has an arena a thread.
    "qemu_own": Tolerance(8 << 20, shortest_warm_up=SHORTEST_WARM_UP),
    # Of things that come and go with the sessions, whose number is random: their median stays. One in a thousand sessions that leaves
    # something shows as some ten in five minutes. That nothing is left at the end is checked exactly, and apart from this.
    "daemon_descriptors": Tolerance(3, 0.1),
    "qemu_descriptors": Tolerance(3, 0.1),
    "chardevs": Tolerance(3, 0.1),
    "monitors": Tolerance(3, 0.1),
    "objects": Tolerance(3, 0.1),
    "sessions": Tolerance(3, 0.1),
    "fdsets": Tolerance(3),
    "nodes": Tolerance(3),
    "devices": Tolerance(3),
    # The daemon has one thread. QEMU's workers for I/O come and go by themselves.
    "daemon_threads": Tolerance(0.5),
    "qemu_threads": Tolerance(8),
    # In milliseconds. What else the host does moves it by much, for minutes; what gets slower with each session is slow in the best
    # moments too, and becomes many times as slow. The 99th percentile is drawn and not judged: of a second's calls it is the one that met
    # the host's worst moment.
    "describe_p50": Tolerance(1, 1.0, SHORTEST_WARM_UP, of_the_best=True),
}


class Verdict:
    """What became of one series, in its own unit."""

    def __init__(self, name, level, rise, allowed):
        self.name, self.level, self.rise, self.allowed = name, level, rise, allowed

    @property
    def rises(self):
        return self.rise > self.allowed

    def as_json(self):
        return {"series": self.name, "level": self.level, "rise": self.rise, "allowed": self.allowed, "rises": self.rises}


def lowest_tenth(values):
    """What a tenth of them are not above."""
    values = sorted(values)
    return values[len(values) // 10]


def in_bins(points, summary):
    if len(points) <= BINS:
        return points
    edges = [len(points) * number // BINS for number in range(BINS + 1)]
    return [
        (median(time for time, _ in points[start:end]), summary([value for _, value in points[start:end]]))
        for start, end in zip(edges, edges[1:])
    ]


def theil_sen(points):
    """The median of the slopes between all pairs: up to 29 % of the points may be anything."""
    return median(
        (later - sooner) / (end - start)
        for number, (start, sooner) in enumerate(points)
        for end, later in points[number + 1 :]
        if end > start
    )


def judge(name, points, tolerance):
    """Looks at (time, value) pairs. The rise is the smaller one of two estimates, and fails when it is above what is tolerated and
    what noise could make of a level line: a line through all points, which a step in the last moments does not tilt; and the
    difference of the medians of the last and the first third, which a curve that has become level does not raise for ever."""
    start, end = points[0][0], points[-1][0]
    warm_up = max(WARM_UP * (end - start), tolerance.shortest_warm_up)
    points = [(time, value) for time, value in points if time >= start + warm_up]
    if len(points) < FEWEST:
        return None
    points = in_bins(points, lowest_tenth if tolerance.of_the_best else median)
    duration = points[-1][0] - points[0][0]
    slope = theil_sen(points)
    third = len(points) // 3
    first, last = (median(value for _, value in part) for part in (points[:third], points[-third:]))
    # The middles of the two are two thirds of the duration apart.
    rise = min(slope * duration, (last - first) * 1.5)
    middle = median(value - slope * time for time, value in points)
    # 1.48 times the median deviation is the standard deviation, if the noise is normal; a fitted slope's own, times the duration, is
    # that times the root of 12 / n. Three of it: one series in a thousand.
    scatter = 1.4826 * median(abs(value - slope * time - middle) for time, value in points)
    return Verdict(name, first, rise, tolerance.of(first) + 3 * scatter * math.sqrt(12 / len(points)))


def judge_all(samples):
    """The verdicts on all series of a run that are judged; those that are too short are left out."""
    verdicts = []
    for name, tolerance in TOLERANCES.items():
        points = [(sample["time"], sample[name]) for sample in samples if sample.get(name) is not None]
        verdict = judge(name, points, tolerance) if points else None
        if verdict:
            verdicts.append(verdict)
    return verdicts
