"""The settings of programs that train on a mixture of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from minigpt5.data.mixture import TASKS, Mixture
from minigpt5.training.fit import FitConfig
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class MixtureConfig(FitConfig):
    """Data, and what a batch is drawn from."""

    # Those that a program can learn from.
    tasks: ClassVar[Sequence[str]] = tuple(TASKS)

    data: Path = setting(help="folder with the data sets, each in a folder by its name: cc3m, vist, mmdialog, chat")
    layouts: dict[str, str] = setting(factory=dict, help="another layout for one of them, as {cc3m: cc3m-shards}")
    mix: dict[str, int] = setting(least=1, help="conversations a batch by task; batch_size is their sum")
    max_bad_share: float = setting(0.01, least=0, most=1, help="share of missing or broken pictures that stops the run")

    def __post_init__(self):
        super().__post_init__()
        others = [task for task in self.mix if task not in self.tasks]
        if others:
            raise ValueError(f"mix: {others[0]!r} is no task here; there are {', '.join(self.tasks)}")
        if sum(self.mix.values()) != self.batch_size:
            raise ValueError(f"mix adds up to {sum(self.mix.values())} conversations, batch_size is {self.batch_size}")


def open_mixture(config: MixtureConfig, split: str) -> Mixture:
    """The mixture that a program's settings name."""
    return Mixture(config.data, config.mix, split, config.layouts, config.seed, config.max_bad_share)
