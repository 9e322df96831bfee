import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, permutation_test, t

from minigpt5.metrics import (
    Interval,
    bootstrap_interval,
    bootstrap_intervals,
    crossed_interval,
    hierarchical_interval,
    paired_difference,
    wilson_interval,
)
from minigpt5.metrics import intervals as module
from minigpt5.metrics.intervals import randomisation_p_value, student_quantile


def test_the_bootstrap_interval_of_a_mean_is_scipy_s():
    values = np.random.default_rng(1).normal(2, 1, 100)
    ours = bootstrap_interval(values)
    theirs = bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=2).confidence_interval
    assert ours.estimate == values.mean()
    assert ours.low == pytest.approx(theirs.low, abs=0.02) and ours.high == pytest.approx(theirs.high, abs=0.02)


def test_a_seed_names_an_interval_and_confidence_widens_it():
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    wide, narrow = bootstrap_interval(values, confidence=0.99), bootstrap_interval(values, confidence=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_any_statistic_of_rows_has_an_interval():
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 5.0]])
    ratio = bootstrap_interval(rows, lambda chosen: chosen[:, 0].sum() / chosen[:, 1].sum())
    assert ratio.estimate == pytest.approx(4 / 11)
    assert 0 <= ratio.low < ratio.estimate < ratio.high <= 0.75


def test_what_is_hard_for_both_cancels_out_of_a_paired_difference():
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 10, 40)
    better, worse = hardness + 1 + rng.normal(0, 0.1, 40), hardness
    difference = paired_difference(better, worse)
    assert difference.low > 0.9 and difference.high < 1.1
    assert difference == pytest.approx(bootstrap_interval(better - worse))
    assert bootstrap_interval(better).low < bootstrap_interval(worse).high


def test_the_randomisation_test_is_scipy_s_and_exact_for_few():
    # Five pairs differ, all the same way: two of the 32 ways in which coins may fall are as far apart.
    assert randomisation_p_value([True] * 5 + [False] * 2, [False] * 7) == pytest.approx(2 / 32, abs=0.005)
    assert randomisation_p_value([2, 1, 3], [2, 1, 3]) == randomisation_p_value([1, 0], [0, 1]) == 1
    values = np.random.default_rng(1).normal(0.4, 1, 30)
    theirs = permutation_test((values, np.zeros(30)), lambda a, b: (a - b).mean(), permutation_type="samples", rng=0)
    assert randomisation_p_value(values, np.zeros(30)) == pytest.approx(theirs.pvalue, abs=0.02)


def test_of_equal_systems_few_items_seldom_differ():
    rng = np.random.default_rng(0)
    pairs = (rng.random((2000, 2, 12)) < 0.9).astype(float)
    values = np.array([randomisation_p_value(one, other, draws=999) for one, other in pairs])
    for level in (0.05, 0.05 / 8):
        # Three standard errors of a share of 2000.
        assert (values <= level).mean() <= level + 3 * np.sqrt(level / 2000)


def test_equal_systems_do_not_differ():
    assert paired_difference([1, 2, 3], [1, 2, 3]) == Interval(0, 0, 0)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (81, 263)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_wilson_s_interval_is_scipy_s(successes, trials, confidence):
    theirs = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    ours = wilson_interval(successes, trials, confidence)
    assert ours == pytest.approx((successes / trials, theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("trials", range(1, 200))
def test_of_none_and_of_all_the_share_is_a_bound(trials):
    none, every = wilson_interval(0, trials), wilson_interval(trials, trials)
    assert none.low == none.estimate == 0 and every.high == every.estimate == 1


def test_wilson_s_interval_is_that_of_the_textbook():
    # Newcombe 1998, Statistics in Medicine 17, table I: 15 of 148.
    assert wilson_interval(15, 148)[1:] == pytest.approx((0.0624, 0.1605), abs=5e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "at least one item"),
        (lambda: bootstrap_interval([1.0, float("nan")]), "leave out items"),
        (lambda: bootstrap_interval([1.0, 2.0], confidence=95), "between 0 and 1"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "got 1 and 2"),
        (lambda: randomisation_p_value([1.0], [1.0, 2.0]), "got 1 and 2"),
        (lambda: wilson_interval(3, 2), "got 3 of 2"),
        (lambda: wilson_interval(0, 0), "at least one trial"),
        (lambda: wilson_interval(1, 2, 95), "between 0 and 1"),
    ],
)
def test_bad_input_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_intervals_draw_whole_groups():
    stories = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0, 1.0], 5)[:, None]
    summarise = lambda rows: {"mean": float(rows.mean())}  # noqa: E731
    grouped = bootstrap_intervals(stories, summarise, np.repeat(np.arange(6), 5))["mean"]
    assert grouped == pytest.approx(bootstrap_interval([0, 1, 1, 0, 1, 1]))
    alone = bootstrap_intervals(stories, summarise)["mean"]
    assert alone.high - alone.low < grouped.high - grouped.low


@pytest.mark.parametrize("groups", ["ab", "abcd"])
def test_each_item_has_its_group(groups):
    with pytest.raises(ValueError, match=f"got {len(groups)} groups of 3 items"):
        bootstrap_intervals(np.ones((3, 1)), lambda rows: {"mean": rows.mean()}, groups)


def test_a_figure_that_a_resample_lacks_has_an_interval_of_the_others():
    rows = np.array([[1.0], [2.0], [np.nan]])
    summarise = lambda rows: {"mean": np.nanmean(rows)} if not np.isnan(rows).all() else {}  # noqa: E731
    found = bootstrap_intervals(rows, summarise)["mean"]
    assert found.estimate == 1.5 and (found.low, found.high) == (1, 2)


def test_runs_on_the_same_items_are_drawn_with_the_items():
    # Runs that differ and items that do not: the same run comes three times in one draw of 27, more often than 2.5 %.
    runs = np.repeat([[0.0], [0.3], [0.9]], 50, axis=1)
    assert crossed_interval(runs) == pytest.approx((0.4, 0.0, 0.9))
    assert crossed_interval(runs.T[:, :1]) == (0.0, 0.0, 0.0)
    # Items that differ and runs that do not: that of the items of one run.
    items = np.random.default_rng(0).normal(size=200)
    assert crossed_interval(np.tile(items, (3, 1))) == pytest.approx(bootstrap_interval(items, seed=1))
    both = crossed_interval(runs[:, :1] + items)
    assert both.low < 0.1 and both.high > 0.8
    with pytest.raises(ValueError, match="leave out items without a value"):
        crossed_interval([[1.0, float("nan")]])


@pytest.mark.parametrize("freedom", [1, 2, 4, 12])
def test_quantiles_of_student_s_distribution_are_scipy_s(freedom):
    assert student_quantile(0.975, freedom) == pytest.approx(t.ppf(0.975, freedom), rel=1e-3)
    assert student_quantile(0.5, freedom) == pytest.approx(0, abs=1e-3)


def gain(systems):
    """How much the first is above the second."""
    return float(systems[0].mean() - systems[1].mean())


def test_an_interval_over_runs_and_items_by_hand():
    # Runs of 0 and 1 on items that are all alike. Drawn anew, two of them are 0, ½ or 1 in mean, that is ½ - ½, ½ or
    # ½ + ½; the half is widened by √2 and by Student's quantile with one degree of freedom over the normal one.
    far = 0.5 * 2**0.5 * t.ppf(0.975, 1) / 1.959964
    one = hierarchical_interval([np.repeat([[0.0], [1.0]], 5, axis=1)], lambda systems: float(systems[0].mean()))
    assert one == pytest.approx((0.5, 0.5 - far, 0.5 + far), rel=1e-3)
    # Runs that are all alike: the paired interval over items.
    a, b = np.random.default_rng(0).normal(size=(2, 80))
    both = hierarchical_interval([np.tile(a, (3, 1)), np.tile(b, (4, 1))], gain)
    assert both == pytest.approx(paired_difference(a, b, seed=1))
    # One training asked two things that differ by 1 in each of its runs, however far these lie apart.
    runs = np.repeat([[0.0], [5.0], [9.0]], 4, axis=1)
    assert hierarchical_interval([runs + 1, runs], gain, ["same", "same"]) == pytest.approx((1, 1, 1))
    apart = hierarchical_interval([runs + 1, runs], gain)
    assert apart.low < -5 and apart.high > 7


@pytest.mark.parametrize(("of_runs", "of_items"), [(1.0, 0.3), (0.1, 1.0)])
def test_an_interval_over_runs_and_items_covers_the_truth_as_often_as_it_says(of_runs, of_items, monkeypatch):
    """Two systems of three runs each on 40 items, drawn from a population that is known."""
    monkeypatch.setattr(module, "RESAMPLES", 120)
    rng, covered, trials = np.random.default_rng(0), 0, 120
    for trial in range(trials):
        shared = rng.normal(size=(1, 40))
        systems = [
            of_runs * rng.normal(size=(3, 1)) + shared + of_items * rng.normal(size=(1, 40)) + rng.normal(size=(3, 40))
            for _ in range(2)
        ]
        interval = hierarchical_interval(systems, gain, seed=trial)
        covered += interval.low <= 0 <= interval.high
    # Three runs resampled without a correction cover 0.8 of what differs by run alone.
    assert 0.9 <= covered / trials <= 0.995


@pytest.mark.parametrize(
    ("systems", "trainings", "message"),
    [
        ([], None, "at least one of each"),
        ([np.zeros((3, 4)), np.zeros((3, 5))], None, r"same items, got \[4, 5\]"),
        ([np.zeros((1, 4))], None, r"has \[1\] runs"),
        ([np.zeros((3, 4)), np.zeros((2, 4))], ["a", "a"], r"training a has \[2, 3\] runs"),
        ([np.zeros((3, 0))], None, "at least one item"),
        ([np.full((3, 4), np.nan)], None, "leave out items"),
    ],
)
def test_runs_and_items_that_make_no_interval_are_told(systems, trainings, message):
    with pytest.raises(ValueError, match=message):
        hierarchical_interval(systems, lambda given: float(np.mean(given[0])), trainings)
