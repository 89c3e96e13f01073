"""The rule finds leaks, and nothing in noise. Run with: python3 -m unittest soak.test_trend"""

import random
import unittest

from . import trend

MIB = 1 << 20


def series(seconds, value, seed=1):
    numbers = random.Random(seed)
    return [(second, value(second, numbers)) for second in range(seconds)]


def rises(name, points):
    return trend.judge(name, points, trend.TOLERANCES[name]).rises


class TrendTests(unittest.TestCase):
    def test_a_leak_is_found(self):
        for seconds, rate in (80, MIB), (300, 12_000), (3600, 1_000):
            points = series(seconds, lambda second, numbers: 20 * MIB + rate * second + numbers.gauss(0, MIB / 8))
            self.assertTrue(rises("daemon_rss", points), f"{rate} bytes a second, for {seconds} s")

    def test_descriptors_are_found_in_seconds(self):
        points = series(20, lambda second, numbers: 40 + 2 * second + numbers.randrange(-3, 4))
        self.assertTrue(rises("daemon_descriptors", points))

    def test_a_leak_in_steps_is_found(self):
        points = series(300, lambda second, numbers: 20 * MIB + second // 60 * MIB)
        self.assertTrue(rises("daemon_heap", points))

    def test_a_leak_below_outliers_is_found(self):
        points = series(300, lambda second, numbers: 20 * MIB + 12_000 * second + (numbers.random() < 0.2) * 40 * MIB)
        self.assertTrue(rises("daemon_rss", points))

    def test_a_descriptor_a_minute_is_found_in_an_hour(self):
        points = series(3600, lambda second, numbers: 40 + second // 60 + numbers.randrange(-8, 9))
        self.assertTrue(rises("daemon_descriptors", points))

    def test_noise_is_no_leak(self):
        found = 0
        for seed in range(300):
            points = series(300, lambda second, numbers: 20 * MIB + numbers.gauss(0, 8 * MIB), seed)
            found += rises("daemon_rss", points)
        self.assertLessEqual(found, 1)

    def test_noise_that_lasts_is_no_leak(self):
        found = 0
        for seed in range(100):
            level = [0.0]

            def value(second, numbers):
                # What the sessions of the last seconds are.
                level[0] = 0.9 * level[0] + numbers.gauss(0, 3)
                return round(60 + level[0])

            found += rises("monitors", series(300, value, seed))
        self.assertLessEqual(found, 1)

    def test_a_warm_up_is_no_leak(self):
        points = series(300, lambda second, numbers: 20 * MIB + min(second, 50) * MIB + numbers.gauss(0, MIB / 8))
        self.assertFalse(rises("daemon_rss", points))

    def test_what_becomes_level_is_no_leak(self):
        points = series(3600, lambda second, numbers: 60 * MIB - 40 * MIB / (1 + second / 30))
        self.assertFalse(rises("daemon_rss", points))

    def test_a_busy_moment_is_no_leak(self):
        points = series(300, lambda second, numbers: 2 + 80 * (200 < second < 260) + numbers.random())
        self.assertFalse(rises("describe_p50", points))

    def test_a_busy_host_is_no_leak_and_what_gets_slower_is(self):
        busy = series(3600, lambda second, numbers: 1 + numbers.random() + (second > 1500) * numbers.choice([0, 5, 30, 90, 90]))
        self.assertFalse(rises("describe_p50", busy))
        slower = [(second, value + second / 360) for second, value in busy]
        self.assertTrue(rises("describe_p50", slower))

    def test_what_falls_is_no_leak(self):
        self.assertFalse(rises("daemon_rss", series(300, lambda second, numbers: (600 - second) * MIB)))

    def test_too_few_samples_have_no_verdict(self):
        self.assertIsNone(trend.judge("daemon_rss", series(8, lambda second, numbers: second * MIB), trend.Tolerance(0)))

    def test_every_series_is_judged_by_its_name(self):
        samples = [{"time": second, "daemon_rss": 20 * MIB + 4 * MIB * second, "fdsets": 0, "unknown": second} for second in range(90)]
        self.assertEqual({verdict.name: verdict.rises for verdict in trend.judge_all(samples)}, {"daemon_rss": True, "fdsets": False})


if __name__ == "__main__":
    unittest.main()
