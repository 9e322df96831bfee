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
    """Whether the last marks are above chance, which is 0, and no longer rise.

    They no longer rise where that gain is not above 0 by its interval, or no item's mark is another than the time
    before.
    """
    *_, before, last = (list(curve[step]) for step in sorted(curve))
    learnt = paired_difference(last, [0.0] * len(last)).low > 0
    return learnt and (last == before or last_third_gain(curve).low <= 0)


def budget(first: int, rounds: int) -> int:
    """Steps in all after so many rounds, the first of which is round 1, in sixths that are whole."""
    return 6 * round(first * GROWTH ** (rounds - 1) / 6)
