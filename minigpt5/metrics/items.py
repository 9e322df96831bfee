"""Metrics that keep one row of numbers an item, so that figures and their intervals come from the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from minigpt5.metrics.intervals import Interval, bootstrap_intervals


class InOrder(Metric):
    """A metric whose states are lists of what items leave, in the order of items, instances and processes."""

    full_state_update = False

    def nothing(self) -> torch.Tensor:
        """What no items leave: a tensor of the right width and type."""
        raise NotImplementedError

    def merge_state(self, incoming_state: dict | Metric) -> None:
        """Take in what another instance has kept, behind what this one has (torchmetrics puts it in front)."""
        own = {state: len(getattr(self, state)) for state in self._lists()}
        super().merge_state(incoming_state)
        for state, kept in own.items():
            rows = getattr(self, state)
            setattr(self, state, rows[len(rows) - kept :] + rows[: len(rows) - kept])

    def sync(self, *args, **kwargs) -> None:
        """Gather what all processes have kept, of which some may have seen no item."""
        for state in self._lists():
            if not getattr(self, state):
                getattr(self, state).append(self.nothing())
        super().sync(*args, **kwargs)

    def _lists(self) -> list[str]:
        return [state for state in self._reductions if isinstance(getattr(self, state), list)]


class ItemMetric(InOrder):
    """A figure over items, each of which leaves a row of numbers.

    Rows are kept in float64 and concatenated over batches, and over processes in their order, so figures do not depend
    on how the items were split. A subclass names its columns, calls `add` in `update`, and has its own `summarise`
    where figures are not the means of the columns.
    """

    columns: tuple[str, ...]

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # A name of its own: a MetricCollection takes metrics of equal states for one and the same.
        self._state = f"rows_of_{type(self).__name__}"
        self.add_state(self._state, [], dist_reduce_fx="cat")

    @property
    def width(self) -> int:
        """Numbers that are kept of an item."""
        return len(self.columns)

    def add(self, rows: Sequence[Sequence[float]] | torch.Tensor) -> None:
        """Keep rows `(items, columns)`."""
        rows = torch.as_tensor(rows, dtype=torch.float64, device=self.device).reshape(-1, self.width)
        getattr(self, self._state).append(rows)

    @property
    def items(self) -> np.ndarray:
        """The rows kept so far, `(items, columns)`; what `bootstrap_interval` and `paired_difference` take."""
        rows = getattr(self, self._state)
        if isinstance(rows, list) and not rows:
            return np.zeros((0, self.width))
        return dim_zero_cat(rows).cpu().numpy()

    def summarise(self, items: np.ndarray) -> dict[str, float]:
        """Figures by name of rows `(items, columns)`: here the mean of each column."""
        return dict(zip(self.columns, items.mean(axis=0).tolist(), strict=True))

    def compute(self) -> dict[str, torch.Tensor]:
        """Figures by name.

        Raises:
            ValueError: if there are no items.
        """
        figures = self.summarise(self._any_items())
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}

    def intervals(self, confidence: float = 0.95, seed: int = 0) -> dict[str, Interval]:
        """Figures with their bootstrap intervals, of this process's items.

        Raises:
            ValueError: if there are no items.
        """
        return bootstrap_intervals(self._any_items(), self.summarise, None, confidence, seed)

    def nothing(self) -> torch.Tensor:
        """No rows `(0, columns)`."""
        return torch.zeros(0, self.width, dtype=torch.float64, device=self.device)

    def _any_items(self) -> np.ndarray:
        items = self.items
        if not len(items):
            raise ValueError(f"{type(self).__name__} has no items yet: call update first")
        return items


class WhereAsked(ItemMetric):
    """Rows that lack what was not asked of their item, as NaN: figures are means of what was."""

    def summarise(self, items: np.ndarray) -> dict[str, float]:
        """The mean of each column of rows `(items, columns)` where it is there; without columns that no row has."""
        asked = ~np.isnan(items)
        total, count = np.where(asked, items, 0).sum(axis=0).tolist(), asked.sum(axis=0).tolist()
        return {name: total[i] / count[i] for i, name in enumerate(self.columns) if count[i]}


def paired(name: str, ones: Sequence, name_of_others: str, others: Sequence) -> list[tuple]:
    """Pairs of two lists.

    Raises:
        ValueError: if one is longer, or one is a single string.
    """
    if isinstance(ones, str) or isinstance(others, str):
        raise ValueError(f"{name} and {name_of_others} are lists, got a string; wrap it in a list")
    if len(ones) != len(others):
        raise ValueError(f"there are {len(ones)} {name} but {len(others)} {name_of_others}")
    return list(zip(ones, others, strict=True))
