"""The rule by which a training of the claims is done."""

import numpy as np
import pytest

from minigpt5.evaluation.claims.flatness import budget, is_flat, last_third_gain


def marks(share: float, count: int = 100) -> list[float]:
    return [float(i < share * count) for i in range(count)]


def test_a_curve_is_flat_where_its_last_third_gains_nothing_that_its_interval_shows():
    climbing = {100: marks(0.2), 200: marks(0.5), 300: marks(0.7)}
    assert last_third_gain(climbing).estimate == pytest.approx(0.2)
    assert not is_flat(climbing)
    # What it gained before, and what noise gains, does not count.
    assert is_flat({100: marks(0.2), 200: marks(0.9), 300: marks(0.91)})
    assert is_flat({100: marks(0.5), 200: marks(0.7), 300: marks(0.4)})
    noise = np.random.default_rng(0)
    assert is_flat({step: noise.normal(0.5, 0.3, 100).tolist() for step in (1, 2, 3)})


def test_a_curve_at_chance_is_not_flat():
    noise = np.random.default_rng(0)
    assert not is_flat({step: noise.normal(0, 0.3, 100).tolist() for step in (1, 2, 3)})
    assert not is_flat({100: [0.0] * 5, 200: [0.0] * 5, 300: [0.0] * 5})


def test_a_curve_is_flat_where_no_item_changed():
    assert is_flat({100: marks(0.2), 200: marks(0.5), 250: marks(0.9), 300: marks(0.9)})
    assert not is_flat({100: marks(0.2), 200: marks(0.5), 250: marks(0.89), 300: marks(0.9)})


def test_the_last_mark_by_two_thirds_of_the_steps_is_compared_with():
    curve = {100: marks(0.1), 200: marks(0.4), 201: marks(0.8), 300: marks(0.8)}
    assert last_third_gain(curve).estimate == pytest.approx(0.4)
    with pytest.raises(ValueError, match="first two thirds of its 300 steps, this one at 250"):
        is_flat({250: marks(0.1), 300: marks(0.2)})


def test_budgets_grow_by_half_and_keep_whole_sixths():
    assert [budget(1200, rounds) for rounds in (1, 2, 3)] == [1200, 1800, 2700]
    assert budget(100, 1) == 102
