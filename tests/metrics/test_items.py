"""Rows add up over batches and processes."""

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from minigpt5.metrics import (
    FrechetInceptionDistance,
    InceptionScore,
    ItemMetric,
    KernelInceptionDistance,
    bootstrap_interval,
)
from minigpt5.metrics.items import paired


class Ratio(ItemMetric):
    """A figure that is not the mean of its column."""

    columns = ("part", "whole")

    def update(self, parts, wholes):
        self.add(paired("parts", parts, "wholes", wholes))

    def summarise(self, items):
        return {"ratio": float(items[:, 0].sum() / items[:, 1].sum())}


class Mean(ItemMetric):
    columns = ("mean",)

    def update(self, values):
        self.add([[value] for value in values])


def test_figures_are_means_of_columns_unless_a_metric_says_otherwise():
    mean, ratio = Mean(), Ratio()
    mean.update([1, 2, 6])
    ratio.update([1, 2], [4, 4])
    assert mean.compute()["mean"].item() == 3
    assert ratio.compute()["ratio"].item() == 3 / 8


def test_rows_add_up_over_batches_and_instances(accumulates):
    done = accumulates(Ratio, [1, 2, 3, 4, 5], [9, 8, 7, 6, 5])
    assert done.figures == {"ratio": 15 / 35}
    first, second = Ratio(), Ratio()
    first.update([1, 2], [9, 8])
    second.update([3, 4, 5], [7, 6, 5])
    first.merge_state(second)
    assert first.items.tolist() == done.metric.items.tolist() == [[1, 9], [2, 8], [3, 7], [4, 6], [5, 5]]


def test_intervals_are_those_of_the_rows():
    metric = Ratio()
    metric.update([1, 2, 3, 4], [5, 6, 7, 3])
    by_rows = bootstrap_interval(metric.items, lambda rows: rows[:, 0].sum() / rows[:, 1].sum(), 0.9, 3)
    assert metric.intervals(0.9, 3) == {"ratio": pytest.approx(by_rows)}


def test_a_metric_forgets_when_it_is_reset():
    metric = Mean()
    metric.update([1])
    metric.reset()
    assert metric.items.shape == (0, 1)
    metric.update([5])
    assert metric.compute()["mean"].item() == 5


def test_a_collection_keeps_metrics_of_equal_rows_apart():
    from torchmetrics import MetricCollection

    class Double(Mean):
        def summarise(self, items):
            return {"double": 2 * float(items.mean())}

    both = MetricCollection({"a": Mean(), "b": Double()})
    both.update([1, 2])
    both.update([6])
    assert {name: value.item() for name, value in both.compute().items()} == {"mean": 3, "double": 6}


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_no_items_and_lists_of_different_lengths_are_told():
    with pytest.raises(ValueError, match="no items yet"):
        Mean().compute()
    with pytest.raises(ValueError, match="no items yet"):
        Mean().intervals()
    with pytest.raises(ValueError, match="2 parts but 1 wholes"):
        Ratio().update([1, 2], [3])
    with pytest.raises(ValueError, match="wrap it in a list"):
        paired("texts", "a", "truths", "b")


class Flat(torch.nn.Module):
    """The corner pixel's three values as features."""

    num_features = 3

    def forward(self, pixels):
        return pixels[:, :, 0, 0].double() / 255


PIXELS = np.random.default_rng(0).integers(0, 256, (2, 7, 3, 4, 4), dtype=np.uint8)
ALL, SPLITS = list(range(7)), [(range(7), ()), ((), range(7)), (range(2), range(2, 7))]


def metrics_of(shard, **options):
    """A metric of each way to keep states, fed with some of seven items."""
    shard = list(shard)
    true, made = (list(torch.from_numpy(pictures[shard])) for pictures in PIXELS)
    fid = FrechetInceptionDistance(feature=Flat(), **options)
    kid = KernelInceptionDistance(feature=Flat(), subsets=2, subset_size=4, **options)
    score, mean = InceptionScore(feature=Flat(), splits=2, **options), Mean(**options)
    for metric in (fid, kid):
        metric.update(true, real=True)
        metric.update(made, real=False)
    score.update(made)
    if shard:
        mean.update([i / 3 for i in shard])
    return [fid, kid, score, mean]


def figures_of(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def exchange(one, other):
    """Sync the first as if the second were the other process."""
    sent = []
    other.sync(lambda state, group: [sent.append(state), state][1:], distributed_available=lambda: True)
    one.sync(lambda state, group: [state, sent.pop(0)], distributed_available=lambda: True)
    assert not sent


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("first", "second"), SPLITS)
def test_what_two_processes_gather_is_what_one_has(first, second):
    sides = [metrics_of(shard, sync_on_compute=False) for shard in (first, second)]
    for one, other, whole in zip(*sides, metrics_of(ALL), strict=True):
        exchange(one, other)
        assert figures_of(one) == pytest.approx(figures_of(whole))


def _one_process(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save([figures_of(metric) for split in SPLITS for metric in metrics_of(split[rank])], folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_real_processes_have_what_one_has(tmp_path):
    multiprocessing.spawn(_one_process, (tmp_path,), nprocs=2)
    wanted = [figures_of(metric) for metric in metrics_of(ALL)] * len(SPLITS)
    for rank in range(2):
        for figures, one in zip(torch.load(tmp_path / f"{rank}.pt"), wanted, strict=True):
            assert figures == pytest.approx(one)
