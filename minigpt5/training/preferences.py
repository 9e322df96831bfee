"""Direct preference optimisation of what a reader says (DPO, arXiv 2305.18290).

The reference is the same model without its adapter, so no second one is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import log_softmax, logsigmoid
from transformers import BatchFeature

from minigpt5.data.readers import read_preferences
from minigpt5.data.tolerant import TolerantDataset, usable
from minigpt5.readers import Reader
from minigpt5.readers.lora import fuse_lora, without_lora
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.training.fit import FitConfig, best_of, end_dry_run, fit
from minigpt5.training.reading import ReadingModel, open_reader_to_train
from minigpt5.training.results import save_result
from minigpt5.utils.processes import is_main_process, pick_device, shard, share_of_batch
from minigpt5.utils.programs import opening
from minigpt5.utils.settings import DTYPES, setting
from minigpt5.vokens.adapters import LoraSettings


def sequence_log_probs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The log-probability of each row's scored tokens together: `(batch,)`.

    Args:
        logits: `(batch, length, vocabulary)`.
        labels: `(batch, length)`, the token that each place foretells, or `IGNORE_INDEX` where it is not scored.
    """
    scored = labels != IGNORE_INDEX
    tokens = labels.masked_fill(~scored, 0).unsqueeze(-1)
    return (log_softmax(logits, -1).gather(-1, tokens).squeeze(-1) * scored).sum(-1)


def dpo_margin(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """How much more the policy has come to prefer the better reply of each pair: the argument of equation 7's sigmoid.

    Args:
        policy: log-probabilities `(2, pairs)` of the better replies and of the worse ones.
        reference: the same of the model that was begun with.
        beta: how dearly the policy pays for leaving the reference.

    Returns:
        `(pairs,)`; the loss is the mean of `-logsigmoid` of it.
    """
    better, worse = policy - reference
    return beta * (better - worse)


class PreferenceModel(ReadingModel):
    """The loss of pairs of replies, of which one is better, for a low-rank adapter of the language model.

    Args:
        reader: its model is changed.
        lora: of what trains.
        beta: see `dpo_margin`.
    """

    def __init__(self, reader: Reader, lora: LoraSettings, beta: float, seed: int = 0):
        super().__init__(reader, trains=(), lora=lora, seed=seed)
        self.beta = beta

    def forward(self, batch: BatchFeature) -> dict[str, torch.Tensor]:
        """The loss of a training batch of the reader: all better replies, and then the worse ones in the same order.

        Returns:
            "loss", and "accuracy", the share of pairs whose better reply has gained more than the other.
        """
        labels = batch["labels"][:, 1:]
        with torch.no_grad(), without_lora(self.comprehension):
            reference = sequence_log_probs(self.logits(batch), labels).view(2, -1)
        margin = dpo_margin(sequence_log_probs(self.logits(batch), labels).view(2, -1), reference, self.beta)
        share = share_of_batch(len(margin)) if self.training else 1.0
        return {"loss": share * -logsigmoid(margin).mean(), "accuracy": (margin.detach() > 0).float().mean()}


class Pairs:
    """Draws batches of pairs; every pair comes once before any comes twice.

    A pair of which a conversation is longer than the model's context is passed over and counted as one with a broken
    picture is; the next pair takes its place.

    Args:
        folder: with `{split}.jsonl`, see `read_preferences`.
        max_bad_share: share of the pairs read that cannot be used that stops the run.

    Raises:
        FileNotFoundError, ValueError: see `read_preferences`; or if there are no pairs.
    """

    def __init__(self, folder: Path, split: str, reader: Reader, batch_size: int, seed: int, max_bad_share: float):
        self.reader, self.batch_size = reader, batch_size
        rows = read_preferences(folder, split)
        if not len(rows):
            raise ValueError(f"{folder / split}.jsonl has no pairs of a better and a worse reply")
        self.rows = TolerantDataset(rows, max_bad_share, seed)

    def batch(self, index: int) -> BatchFeature:
        """This process's share of a batch, as `PreferenceModel` takes it.

        Raises:
            TooManyBadRows: if more pairs cannot be used than may.
            ValueError: if none can.
        """
        numbers = shard(range(index * self.batch_size, (index + 1) * self.batch_size))
        pairs = [self._pairs(number) for number in numbers]
        return usable(pairs, self._encoded, self.reader.context_length, self._pass_over)[1]

    def _pairs(self, number: int) -> Iterator[dict[str, Any]]:
        """A pair, and those after it."""
        for further in range(len(self.rows)):
            yield self.rows.drawn(number + further)
        raise ValueError("none of the pairs of a better and a worse reply can be used")

    def _encoded(self, pairs: Sequence[dict[str, Any]]) -> BatchFeature:
        return self.reader.training_batch(
            [pair["prompt"] + pair[kind] for kind in ("chosen", "rejected") for pair in pairs]
        )

    def _pass_over(self, place: int, pair: dict[str, Any], problem: str) -> None:
        parts = [part for message in pair["prompt"] for part in message["content"]]
        beginning = next((part["text"] for part in parts if part["text"]), "")
        self.rows.count.add(f"the pair whose prompt begins {beginning[:40]!r}: {problem}")


@dataclass(kw_only=True)
class PreferenceConfig(FitConfig):
    """A stage in which a reader learns what people prefer."""

    data: Path = setting(help="folder with train.jsonl and validation.jsonl, the preferences of an export of feedback")
    model: Path = setting(help="pipeline, or a reader's folder, to start from")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    dtype: str = setting("float32", choices=DTYPES, help="of the frozen weights; what trains is float32")
    lora: LoraSettings = setting(
        factory=LoraSettings, help="adapters of the language model, which alone train and are folded in at the end"
    )
    beta: float = setting(0.1, above=0, help="how dearly the model pays for leaving its start", rejudge=True)
    max_bad_share: float = setting(
        0.01, least=0, below=1, help="share of pairs that cannot be used (broken pictures, too long) that stops the run"
    )
    judged: int = setting(4, least=1, help="validation batches of an evaluation", rejudge=True)
    best: str = best_of("minus_loss", "accuracy")


def train_preferences(config: PreferenceConfig) -> None:
    """Train from the settings to the saved result.

    Raises:
        FileNotFoundError, ValueError, OSError: for data that are missing or broken.
        TrainingError, CheckpointError: see `fit`.
    """
    with opening(f"the model {config.model}"):
        reader, result = open_reader_to_train(config.model, getattr(torch, config.dtype))
    model = PreferenceModel(reader, config.lora, config.beta, config.seed).to(pick_device())
    end_dry_run(model, config)
    draw, held_back = (
        Pairs(config.data, split, reader, config.batch_size, config.seed, config.max_bad_share)
        for split in ("train", "validation")
    )

    def losses(batch: BatchFeature, step: int) -> dict[str, torch.Tensor]:
        return model(batch)

    def evaluate() -> dict[str, Any]:
        told = [model(held_back.batch(index).to(pick_device())) for index in range(config.judged)]
        loss, accuracy = (sum(float(one[name]) for one in told) / len(told) for name in ("loss", "accuracy"))
        return {"minus_loss": -loss, "accuracy": accuracy}

    fit(model, draw.batch, losses, config, config.out, evaluate, rows={"preferences": len(draw.rows)})
    if is_main_process():
        fuse_lora(reader.model)
        save_result(result[0], config.out / "model", *result[1:])
