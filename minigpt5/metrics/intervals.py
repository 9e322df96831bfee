"""How sure a figure is: bootstrap intervals for figures of items, Wilson's for shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000


class Interval(NamedTuple):
    """A figure and the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float


def mean(values: np.ndarray) -> float:
    """The mean over items."""
    return float(np.mean(values))


def resamples(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """`RESAMPLES` draws of `count` items with replacement, as indices."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        yield rng.integers(count, size=count)


def percentile_bounds(draws: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The middle `confidence` of the figures of all resamples.

    Raises:
        ValueError: if `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is between 0 and 1, got {confidence}")
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_interval(
    values: Sequence, statistic: Callable[[np.ndarray], float] = mean, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The percentile interval of a statistic over items (Efron and Tibshirani 1993, chapter 13).

    Items must be independent of each other: give one value a story where steps of a story are not.

    Args:
        values: `(items, ...)`, one number or one row an item.
        statistic: from such an array to a number.

    Raises:
        ValueError: if there are no values, or the statistic of them is not a number.
    """
    values = _items(values)
    estimate = _number(statistic(values))
    draws = [statistic(values[chosen]) for chosen in resamples(len(values), seed)]
    return Interval(estimate, *percentile_bounds(draws, confidence))


def paired_difference(
    a: Sequence,
    b: Sequence,
    statistic: Callable[[np.ndarray], float] = mean,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of `statistic(a) - statistic(b)` where both systems were given the same items in the same order.

    Each resample draws the same items for both (Koehn 2004, paired bootstrap resampling), so what makes an item hard
    for both cancels out. The difference is established at `confidence` where the interval does not hold 0.

    Raises:
        ValueError: if `a` and `b` are not equally many, there are none, or a statistic is not a number.
    """
    a, b = _items(a), _items(b)
    if len(a) != len(b):
        raise ValueError(f"a paired difference needs as many items of both, got {len(a)} and {len(b)}")
    estimate = _number(statistic(a) - statistic(b))
    draws = [statistic(a[chosen]) - statistic(b[chosen]) for chosen in resamples(len(a), seed)]
    return Interval(estimate, *percentile_bounds(draws, confidence))


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """The score interval of a share (Wilson 1927), which keeps within [0, 1] and works for few trials.

    Raises:
        ValueError: if there are no trials, or fewer than successes.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"there must be at least one trial, and no more successes: got {successes} of {trials}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is between 0 and 1, got {confidence}")
    share = successes / trials
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / shrink
    half = z / shrink * sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def _items(values: Sequence) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("an interval needs at least one item, got none")
    return values


def _number(estimate: float) -> float:
    if not np.isfinite(estimate):
        raise ValueError(f"the statistic of the items is {estimate}: leave out items without a value")
    return float(estimate)
