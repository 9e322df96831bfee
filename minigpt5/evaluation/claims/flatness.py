"""When a training is done: it has learnt, and its validation curve is flat over the last third of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minigpt5.metrics.intervals import Interval, paired_difference

# How often a training that is not flat is made longer, and by how much.
GROWTH, MOST_ROUNDS = 1.5, 4


def last_third_gain(curve: Mapping[int, Sequence[float]]) -> Interval:
    """What the last third of the steps gained, with its paired interval over the validation items.

    Args:
        curve: marks of the same validation items at steps of the training.

    Raises:
        ValueError: if nothing was marked by two thirds of the steps, or there are no items.
    """
    last = max(curve)
    before = [step for step in curve if 3 * step <= 2 * last]
    if not before:
        raise ValueError(f"a curve begins in the first two thirds of its {last} steps, this one at {min(curve)}")
    return paired_difference(curve[last], curve[max(before)])


def is_flat(curve: Mapping[int, Sequence[float]]) -> bool:
    """Whether the last marks are above 0, which is chance, by their interval, and that gain is not by its own."""
    last = curve[max(curve)]
    return last_third_gain(curve).low <= 0 < paired_difference(last, [0.0] * len(last)).low


def budget(first: int, rounds: int) -> int:
    """Steps in all after so many rounds, the first of which is round 1, in sixths that are whole."""
    return 6 * round(first * GROWTH ** (rounds - 1) / 6)
