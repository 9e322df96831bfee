"""How sure a figure is: bootstrap intervals for figures of items, Wilson's for shares."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import islice
from math import pi, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

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


def bootstrap_intervals(
    rows: np.ndarray,
    summarise: Callable[[np.ndarray], Mapping[str, float]],
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """The percentile intervals of figures over items, or over groups of items that are drawn whole.

    Args:
        rows: `(items, ...)`, one row an item.
        summarise: figures of some rows, by name; one that they lack is left out of that resample.
        groups: the group of each row, where rows of one group are not independent of each other.

    Raises:
        ValueError: if there are no rows, or more or fewer groups than rows.
    """
    if not len(rows):
        raise ValueError("an interval needs at least one item, got none")
    if groups is not None and len(groups) != len(rows):
        raise ValueError(f"each item has its group, got {len(groups)} groups of {len(rows)} items")
    parts = _split(rows, range(len(rows)) if groups is None else groups)
    # Stacked, rows of groups of one are drawn at once.
    alone = np.concatenate(parts) if len(parts) == len(rows) else None
    draws = [
        summarise(np.concatenate([parts[i] for i in chosen]) if alone is None else alone[chosen])
        for chosen in resamples(len(parts), seed)
    ]
    return {
        name: Interval(value, *percentile_bounds([draw[name] for draw in draws if name in draw], confidence))
        for name, value in summarise(rows).items()
    }


def bootstrap_interval(
    values: ArrayLike, statistic: Callable[[np.ndarray], float] = mean, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The percentile interval of a statistic over items (Efron and Tibshirani 1993, chapter 13).

    Items must be independent of each other: give one value a story where steps of a story are not.

    Args:
        values: `(items, ...)`, one number or one row an item.
        statistic: from such an array to a number.

    Raises:
        ValueError: if there are no values, or the statistic of them is not a number.
    """
    items = _items(values)
    _number(statistic(items))
    return bootstrap_intervals(items, lambda rows: {"": statistic(rows)}, None, confidence, seed)[""]


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
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
    ones, others = _pairs(a, b)
    estimate = _number(statistic(ones) - statistic(others))
    draws = [statistic(ones[chosen]) - statistic(others[chosen]) for chosen in resamples(len(ones), seed)]
    return Interval(estimate, *percentile_bounds(draws, confidence))


def randomisation_p_value(a: ArrayLike, b: ArrayLike, draws: int = 20_000, seed: int = 0) -> float:
    """How often the means of paired marks would lie as far apart if only a coin had told which system is which.

    Fisher's randomisation test (1935), two-sided: of two equal systems the value is at most p with probability p,
    however few the items are. The observed signs count as one of the draws.

    Args:
        a: `(items,)`, the marks of one system.
        b: those of the other, of the same items in the same order.

    Raises:
        ValueError: if `a` and `b` are not equally many, or there are none.
    """
    ones, others = _pairs(a, b)
    differences = ones - others
    values = differences[differences != 0]
    rng = np.random.default_rng(seed)
    observed, as_far = abs(values.sum()) - 1e-9, 0
    for start in range(0, draws, 1000):
        signs = rng.integers(0, 2, (min(1000, draws - start), len(values))) * 2 - 1
        as_far += int((abs(signs @ values) >= observed).sum())
    return (1 + as_far) / (1 + draws)


def crossed_interval(values: ArrayLike, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The interval of the mean of several runs, all marked on the same items: both are drawn (Owen 2007).

    It tells what another training and other items would do. Of few runs it tells too little: n of them vary, drawn
    anew, by (n - 1) / n of what they vary by.

    Args:
        values: `(runs, items)`.

    Raises:
        ValueError: if there are no values, or one is no finite number.
    """
    table = _items(values)
    runs, items = table.shape
    estimate = _number(mean(table))
    both = zip(resamples(runs, seed), resamples(items, seed + 1), strict=True)
    draws = [mean(table[np.ix_(some, those)]) for some, those in both]
    return Interval(estimate, *percentile_bounds(draws, confidence))


def hierarchical_interval(
    systems: Sequence[ArrayLike],
    statistic: Callable[[Sequence[np.ndarray]], float],
    trainings: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    draws: int | None = None,
) -> Interval:
    """The interval of a statistic of systems that were each trained several times and all marked on the same items.

    A hierarchical bootstrap: each resample draws the items once for all systems, and the runs of each training. Few
    runs, drawn anew, vary too little, and their own spread is hardly known: what a resample owes to the draw of runs is
    widened by √(n / (n - 1)) and by how much wider Student's distribution is than the normal one, with as many degrees
    of freedom as there are runs beyond the first of each training.

    Args:
        systems: of each `(runs, items, ...)`, one number or one row an item and run.
        statistic: from such arrays, one a system, to a number.
        trainings: which systems are the same runs (asked something else), by equal names; their runs are drawn
            together. By default each is trained by itself.
        draws: how many resamples are taken, at most `RESAMPLES`, which is the default.

    Raises:
        ValueError: if there are no systems, they differ in their items, one training has several numbers of runs or
            fewer than two, or the statistic is not a finite number.
    """
    tables = [np.asarray(system, dtype=np.float64) for system in systems]
    names = list(range(len(tables)) if trainings is None else trainings)
    if not tables or len(names) != len(tables):
        raise ValueError(f"{len(tables)} system(s) of {len(names)} training(s): an interval needs at least one of each")
    if len({table.shape[1] for table in tables}) != 1:
        raise ValueError(f"systems are marked on the same items, got {[table.shape[1] for table in tables]}")
    if not tables[0].shape[1]:
        raise ValueError("an interval needs at least one item, got none")
    counts = {name: {len(t) for t, own in zip(tables, names, strict=True) if own == name} for name in names}
    for name, found in counts.items():
        if len(found) != 1 or min(found) < 2:
            raise ValueError(f"the training {name} has {sorted(found)} runs; it needs one number of them, at least 2")
    runs = {name: min(found) for name, found in counts.items()}
    widened = student_quantile((1 + confidence) / 2, sum(count - 1 for count in runs.values()))
    widened /= NormalDist().inv_cdf((1 + confidence) / 2)
    estimate, rng, found = _number(statistic(tables)), np.random.default_rng(seed), []
    for those in islice(resamples(tables[0].shape[1], seed + 1), draws):
        taken = {name: rng.integers(count, size=count) for name, count in runs.items()}
        chosen = [table[:, those] for table in tables]
        all_runs = statistic(chosen)
        some_runs = statistic([table[taken[name]] for table, name in zip(chosen, names, strict=True)])
        spread = sqrt(sum(count / (count - 1) for count in runs.values()) / len(runs))
        found.append(all_runs + widened * spread * (some_runs - all_runs))
    return Interval(estimate, *percentile_bounds(found, confidence))


def student_quantile(share: float, freedom: int) -> float:
    """Below what a share of Student's distribution lies: √freedom · tan of an angle whose density is a power of cos."""
    angles = np.linspace(-pi / 2, pi / 2, 200_001)
    below = np.cumsum(np.cos(angles) ** (freedom - 1))
    return float(sqrt(freedom) * np.tan(np.interp(share, below / below[-1], angles)))


def wilson_interval(successes: float, trials: int, confidence: float = 0.95) -> Interval:
    """The score interval of a share (Wilson 1927), which keeps within [0, 1] and works for few trials.

    Args:
        successes: no whole number where each trial is itself a share, as of a story's steps.

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
    # Of none and of all, rounding would leave the share itself outside.
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def _items(values: ArrayLike) -> np.ndarray:
    items = np.asarray(values, dtype=np.float64)
    if not len(items):
        raise ValueError("an interval needs at least one item, got none")
    return items


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    ones, others = _items(a), _items(b)
    if len(ones) != len(others):
        raise ValueError(f"a paired difference needs as many items of both, got {len(ones)} and {len(others)}")
    return ones, others


def _split(rows: np.ndarray, groups: Sequence[Hashable]) -> list[np.ndarray]:
    """The rows of each group, in the order in which groups first come."""
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    return [rows[chosen] for chosen in members.values()]


def _number(estimate: float) -> float:
    if not np.isfinite(estimate):
        raise ValueError(f"the statistic of the items is {estimate}: leave out items without a value")
    return float(estimate)
