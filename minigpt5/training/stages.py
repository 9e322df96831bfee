"""Both stages of MiniGPT-5 (arXiv 2310.02239, section 3.3): what they are set to, begin with and train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from minigpt5.data.mixture import CAPTIONED_TASKS, TEXT_TASKS
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.training.fit import best_of, end_dry_run, fit
from minigpt5.training.mixture import MixtureConfig, check_splits, open_mixture
from minigpt5.training.objective import Coach, LossWeights, VokenModel, sample_grid, validation_loss
from minigpt5.training.results import save_result
from minigpt5.utils.processes import is_main_process, pick_device
from minigpt5.utils.programs import opening
from minigpt5.utils.settings import DTYPES, setting
from minigpt5.vokens.adapter_folder import save_adapter
from minigpt5.vokens.adapters import LoraSettings, train_adapter

Shapes = Mapping[str, Callable[[torch.dtype], MiniGPT5Pipeline]]
"""Pipelines on the meta device by name, which a dry run may count in the place of a folder."""


@dataclass(kw_only=True)
class VokenConfig(MixtureConfig):
    """The vokens, in both stages."""

    # Of what these tasks paint there are captions.
    captioned: ClassVar[Sequence[str]] = CAPTIONED_TASKS

    model: Path = setting(help="pipeline to start from: a folder, a repository, or a shipped name")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    dtype: str = setting("float32", choices=DTYPES, help="of the frozen weights; what trains is float32")
    lora: LoraSettings | None = setting(
        None,
        help="adapters of the language model, which the published first stage leaves alone",
        fixed="what trains depends on it",
    )
    head: bool = setting(
        False,
        help="train the language model's head too, in which words that its pretraining never said mean nothing; the "
        "result is the fused pipeline alone",
        fixed="what trains depends on it",
    )
    weights: LossWeights = setting(factory=LossWeights, help="of the losses")
    mapper_rate: float = setting(1.0, above=0, help="the mapper's learning rate over the vokens'")
    subword_dropout: float = setting(
        0.0, least=0, below=1, help="chance to leave out a merge of a prompt's subwords, to read mistyped words by"
    )
    caption_only_steps: int = setting(0, least=0, help="steps before the diffusion loss comes in")
    gradient_checkpointing: bool = setting(False, help="compute activations twice to keep fewer")
    cache_features: Path | None = setting(None, help="folder to keep the frozen parts' features in")
    fuse: bool = setting(False, help="also write the whole pipeline, with all that was trained folded in")
    best: str | None = best_of(None, "minus_loss")

    def __post_init__(self):
        super().__post_init__()
        if self.head and not self.fuse:
            raise ValueError("head: an adapter does not hold a trained head; set fuse")
        untold = [task for task in self.mix if task not in (*TEXT_TASKS, *self.captioned)]
        if self.weights.caption and untold:
            raise ValueError(
                f"weights.caption is {self.weights.caption}, but {untold[0]} has no caption of what it paints; "
                f"only {' and '.join(self.captioned)} have"
            )

    def weights_at(self, step: int) -> LossWeights:
        """The losses' weights at a step.

        The diffusion loss costs more than all else together, and teaches little before the mapper speaks roughly like
        the text encoder.
        """
        return replace(self.weights, diffusion=0.0) if step < self.caption_only_steps else self.weights


@dataclass(kw_only=True)
class AlignConfig(VokenConfig):
    """The first stage."""

    mapper_rate: float = setting(10.0, above=0, help="the mapper's learning rate over the vokens'")

    def __post_init__(self):
        super().__post_init__()
        if not any(task not in TEXT_TASKS for task in self.mix):
            raise ValueError(
                f"mix: {' and '.join(self.mix)} paint nothing, and there is no first stage without pictures to paint; "
                f"add {' or '.join(CAPTIONED_TASKS)}"
            )


@dataclass(kw_only=True)
class InterleavedConfig(VokenConfig):
    """The second stage."""

    adapter: Path | None = setting(None, help="adapter folder of the first stage, where `model` is the base")
    prefix_length: int = setting(
        0,
        least=0,
        help="keys and values of prefix tuning, in place of LoRA; 0 for none",
        fixed="what trains depends on it",
    )
    weights: LossWeights = setting(factory=lambda: LossWeights(caption=0.0), help="of the losses")

    def __post_init__(self):
        super().__post_init__()
        if self.prefix_length and (self.fuse or self.lora):
            raise ValueError("prefix_length: a prefix takes the place of lora, and cannot be fused")


def begin_alignment(config: AlignConfig, shapes: Shapes | None = None) -> MiniGPT5Pipeline:
    """The pipeline of the first stage: voken rows and the whole mapper train, and LoRA where it is asked for.

    Raises:
        FileNotFoundError, ProgramError, ValueError: see `check_splits` and `open_for_training`.
    """
    check_splits(config)
    pipe = open_for_training(config, shapes)
    train_adapter(pipe, config.lora, seed=config.seed, head=config.head)
    return pipe


def begin_interleaving(config: InterleavedConfig, shapes: Shapes | None = None) -> MiniGPT5Pipeline:
    """The pipeline of the second stage: voken rows, LoRA or a prefix, and the mapper's transformer train.

    Raises:
        FileNotFoundError, ProgramError, ValueError: see `check_splits` and `open_for_training`; or if the first stage's
            adapter does not fit.
    """
    check_splits(config)
    pipe = open_for_training(config, shapes)
    if config.adapter:
        pipe.load_adapter(config.adapter)
    train_adapter(pipe, config.lora, config.prefix_length, config.seed, config.head)
    for name in pipe.mapper.fixed_in_stage_two:
        getattr(pipe.mapper, name).requires_grad_(False)
    return pipe


def open_for_training(config: VokenConfig, shapes: Shapes | None = None) -> MiniGPT5Pipeline:
    """Open a pipeline on this process's device, its mapper trainable and in fp32.

    For a dry run the names of `shapes` stand for shapes alone; these have no text encoder.

    Raises:
        ProgramError: if the pipeline cannot be opened.
        ValueError: if it has no text encoder to take the caption loss with.
    """
    dtype, caption = getattr(torch, config.dtype), config.weights.caption
    if config.dry_run and shapes and str(config.model) in shapes:
        pipe = shapes[str(config.model)](dtype)
        config.weights = replace(config.weights, caption=0.0)
    else:
        with opening(f"the model {config.model}"):
            pipe = MiniGPT5Pipeline.from_pretrained(str(config.model), dtype=dtype).to(pick_device())
        if caption and pipe.text_encoder is None:
            raise ValueError(f"weights.caption is {caption}, but {config.model} has no text encoder: set it to 0")
    pipe.set_progress_bar_config(disable=True)
    pipe.mapper.float().requires_grad_(True)
    if config.gradient_checkpointing:
        pipe.reader.language_model.gradient_checkpointing_enable()
        pipe.picture.painter.denoiser.enable_gradient_checkpointing()
    return pipe


def train_vokens(pipe: MiniGPT5Pipeline, config: VokenConfig, coach: Coach | None = None) -> None:
    """Train what is trainable of a pipeline, as either stage began it, and write the result.

    Args:
        coach: knows what the pictures show; in a mixture whose tasks have captions none is needed.

    Raises:
        FileNotFoundError, ValueError, OSError: for data that are missing or broken.
        TrainingError, CheckpointError: see `fit`.
    """
    model = VokenModel(pipe, config.weights, coach)
    end_dry_run(model, config)
    draw, held_back = (
        open_mixture(config, role, pipe.reader, config.subword_dropout) for role in ("train", "validation")
    )
    if config.cache_features:
        model.cache_features(config.cache_features)

    def batches(index, source=draw):
        drawn, inputs = source.batch(index)
        captions, told = [one.caption for one in drawn if one.paints], None
        if coach:
            captions, told = coach.describe(inputs["targets"])
        return model.prepare(inputs), captions, told

    def losses(batch, step):
        return model(*batch, weights=config.weights_at(step))

    def evaluate():
        figures = coach.examine(pipe) if coach else {}
        figures["minus_loss"] = -validation_loss(losses, lambda index: batches(index, held_back), 2, config.steps)
        questions = held_back.questions(4)
        return figures | ({"painted": sample_grid(pipe, questions)} if questions else {})

    groups = model.parameter_groups(config.learning_rate, config.mapper_rate)
    fit(model, batches, losses, config, config.out, evaluate, groups, draw.sizes)
    if is_main_process():
        save_trained(pipe, config)


def save_trained(pipe: MiniGPT5Pipeline, config: VokenConfig) -> None:
    """Write the adapter, if it holds all that was trained, and where asked the whole pipeline in fp16."""
    if not config.head:
        save_adapter(pipe, config.out / "adapter", str(config.model))
    if config.fuse:
        pipe.fuse_adapter()
        save_result(pipe, config.out / "model")
