"""The settings of programs that train on a mixture of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from minigpt5.data.mixture import TASKS, Mixture, layout_of
from minigpt5.data.splits import ROLES, SPLIT_FILES, choose_split
from minigpt5.readers.generic import Reader
from minigpt5.training.fit import FitConfig
from minigpt5.training.resuming import ROWS
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class MixtureConfig(FitConfig):
    """Data, and what a batch is drawn from."""

    # Those that a program can learn from.
    tasks: ClassVar[Sequence[str]] = tuple(TASKS)

    data: Path = setting(help="folder with the data sets, each in a folder by its name: cc3m, vist, mmdialog, chat, …")
    layouts: dict[str, str] = setting(
        factory=dict, help="another layout for one of them, as {cc3m: cc3m-shards}", fixed=ROWS
    )
    mix: dict[str, int] = setting(least=1, help="conversations a batch by task; batch_size is their sum", fixed=ROWS)
    max_bad_share: float = setting(
        0.01,
        least=0,
        below=1,
        help="share of the rows that cannot be used (broken pictures, too long) that stops the run",
    )
    train_split: str | None = setting(None, help="split to train with; null finds it by its name", fixed=ROWS)
    validation_split: str | None = setting(
        None, help="split to judge by; null finds it by its name: validation, val, …", rejudge=True
    )

    def __post_init__(self):
        super().__post_init__()
        others = [task for task in self.mix if task not in self.tasks]
        if others:
            raise ValueError(f"mix: {others[0]!r} is no task here; there are {', '.join(self.tasks)}")
        if sum(self.mix.values()) != self.batch_size:
            raise ValueError(f"mix adds up to {sum(self.mix.values())} conversations, batch_size is {self.batch_size}")
        for kind, layout in self.layouts.items():
            # A layout is named after the data set that it is one of.
            others = [name for name in SPLIT_FILES if name.partition("-")[0] == kind]
            if layout not in others:
                told = f"it has {' or '.join(others)}" if others else "there is no data set of that name"
                raise ValueError(f"layouts: {kind} cannot be read as {layout}; {told}")

    def splits(self, role: str) -> dict[str, str]:
        """The split of each data set of the mixture that plays a role, train or validation.

        Raises:
            FileNotFoundError, ValueError: see `choose_split`.
        """
        named = {"train": self.train_split, "validation": self.validation_split}[role]
        kinds = sorted({TASKS[task][0] for task in self.mix})
        return {kind: choose_split(self.data / kind, layout_of(kind, self.layouts), role, named) for kind in kinds}


def check_splits(config: MixtureConfig) -> None:
    """Find the splits before anything is opened; a dry run tells them, and may be of data that are not there.

    Raises:
        FileNotFoundError, ValueError: see `choose_split`.
    """
    if config.dry_run and not config.data.exists():
        print(f"{config.data} is missing: its splits are not checked")
        return
    chosen = {role: config.splits(role) for role in ROLES}
    if config.dry_run:
        for kind in chosen["train"]:
            print(
                f"{config.data / kind}: " + ", ".join(f"{role} with {splits[kind]}" for role, splits in chosen.items())
            )


def open_mixture(
    config: MixtureConfig, role: str, reader: Reader | None = None, subword_dropout: float = 0.0
) -> Mixture:
    """The mixture that a program's settings name, to train with or to judge by, encoded by a reader if there is one.

    Args:
        subword_dropout: of the prompts to train with, see `dropped_merges`.
    """
    settings = (config.splits(role), config.layouts, config.seed, config.max_bad_share)
    if reader is None:
        return Mixture(config.data, config.mix, *settings)
    encode = reader.training_batch
    if role == "train" and subword_dropout:
        encode = partial(encode, subword_dropout=subword_dropout)
    return Mixture(config.data, config.mix, *settings, encode, reader.context_length, reader.tokenizer)
