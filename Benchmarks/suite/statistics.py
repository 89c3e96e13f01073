"""Medians and the like, of plain lists."""

from statistics import median


def percentile(samples, percent):
    """The nearest-rank percentile."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def spread(values):
    """How far values of the same thing lie apart: (largest - smallest) / median."""
    return (max(values) - min(values)) / median(values)


class Measurements:
    """What was measured: for each metric and system, the samples of each round."""

    def __init__(self):
        self.rounds = {}

    def add(self, round_number, metric, system, samples):
        samples = list(samples) if isinstance(samples, (list, tuple)) else [samples]
        self.rounds.setdefault((metric, system), {})[round_number] = samples

    def has(self, metric, system):
        return (metric, system) in self.rounds

    def of_rounds(self, metric, system):
        """The median of each round."""
        return {number: median(samples) for number, samples in self.rounds[metric, system].items()}

    def median(self, metric, system):
        return median(self.of_rounds(metric, system).values())

    def p99(self, metric, system):
        """Of all samples; nothing when there are too few to say."""
        samples = [sample for samples in self.rounds[metric, system].values() for sample in samples]
        return percentile(samples, 99) if len(samples) >= 100 else None

    def compare(self, metric, one, other, how):
        """The median over the rounds that have both of `how(one's median, other's median)`."""
        ones, others = self.of_rounds(metric, one), self.of_rounds(metric, other)
        common = ones.keys() & others.keys()
        return median(how(ones[number], others[number]) for number in common)

    def ratio(self, metric, one, other):
        return self.compare(metric, one, other, lambda left, right: left / right)

    def difference(self, metric, one, other):
        return self.compare(metric, one, other, lambda left, right: left - right)
