"""What a reader says of pictures and texts is learnt: by its connector alone, or by more of it.

Which parts train is a setting of the programs: what the systems of the field differ in from stage to stage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BatchFeature
from transformers.modeling_layers import GradientCheckpointingLayer

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.readers import Reader, reader_of
from minigpt5.readers.connectors import Connector
from minigpt5.readers.generic import language_model_name
from minigpt5.readers.lora import fuse_lora
from minigpt5.readers.vokens import with_vokens
from minigpt5.training.fit import best_of, end_dry_run, fit
from minigpt5.training.losses import text_loss
from minigpt5.training.mixture import MixtureConfig, check_splits, open_mixture
from minigpt5.training.objective import validation_loss
from minigpt5.training.results import open_result, save_result
from minigpt5.utils.processes import is_main_process, pick_device
from minigpt5.utils.programs import opening
from minigpt5.utils.settings import DTYPES, setting
from minigpt5.vokens.adapters import LoraSettings, add_lora

# Vokens of a reader that has none yet: MiniGPT-5's number.
N_VOKENS = 8
# A part's parameters by their names; `{words}` stands for that of the language model.
_NAMES = {
    "connector": r"(model\.)?(language_projection|multi_modal_projector|connector|modality_projection"
    r"|visual\.(merger|deepstack_merger_list))\.",
    "qformer": r"(model\.)?(qformer\.|query_tokens)",
    "encoder": r"(model\.)?(vision_tower|more_vision_towers|vision_model|visual)\.(?!merger|deepstack_merger_list)",
    "visual_expert": r"{words}\..*\.vision\.",
    "norms": r"{words}\..*norm\.",
    "language_model": r"({words}|lm_head|language_model\.lm_head)\.(?!.*\.vision\.)",
}
PARTS = tuple(_NAMES)


def parameters_of(model: Any, part: str) -> dict[str, nn.Parameter]:
    """A part's parameters by their names in the model.

    Args:
        part: one of `PARTS`: the connector, the Q-Former, the encoders of pictures, and of the language model the
            visual experts, the norms, or all that is not a visual expert.

    Raises:
        ValueError: if the model has no such part.
    """
    pattern = re.compile(_NAMES[part].replace("{words}", re.escape(language_model_name(model))))
    found = {name: parameter for name, parameter in model.named_parameters() if pattern.match(name)}
    if not found:
        raise ValueError(f"trains: {type(model).__name__} has no {part}")
    return found


class ReadingModel(nn.Module):
    """The text loss of a batch of conversations, with all of a reader frozen but some parts of it.

    What trains is kept in float32, whatever the frozen parts are in; they compute in theirs.

    Args:
        reader: its model is changed.
        trains: of `PARTS`.
        lora: of low-rank adapters of the language model, which train too.
        gradient_checkpointing: compute the language model's activations twice to keep fewer.
        seed: of the adapters.

    Raises:
        ValueError: if the model lacks a part, or nothing would train.
    """

    def __init__(
        self,
        reader: Reader,
        trains: Sequence[str] = ("connector",),
        lora: LoraSettings | None = None,
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        if not trains and lora is None:
            raise ValueError("trains: nothing would train; name a part or give lora")
        self.reader, self.gradient_checkpointing = reader, gradient_checkpointing
        self.comprehension: Any = reader.model.requires_grad_(False)
        self.frozen_dtype = self.comprehension.dtype
        if gradient_checkpointing:
            reader.language_model.gradient_checkpointing_enable()
        for part in trains:
            for parameter in parameters_of(self.comprehension, part).values():
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)
        if lora is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                add_lora(self.comprehension, lora)

    def train(self, mode: bool = True) -> ReadingModel:
        """All stays in evaluation mode but the adapters' dropout, and layers that save memory in training mode only.

        Of those the layer alone: what is in it, such as the frozen language model's dropout, stays as it is.
        """
        super().train(mode)
        self.comprehension.eval()
        for name, module in self.comprehension.named_modules():
            if "lora_dropout" in name:
                module.train(mode)
            elif isinstance(module, GradientCheckpointingLayer):
                module.training = mode and self.gradient_checkpointing
        return self

    def reset_connector(self) -> None:
        """Draw the connector anew."""
        names = {name.rpartition(".")[0] for name in parameters_of(self.comprehension, "connector")}
        modules: list[Any] = [self.comprehension.get_submodule(name) for name in sorted(names)]
        for module in modules:
            if isinstance(module, Connector):
                module.init_parameters(0.02)
            elif hasattr(module, "reset_parameters"):
                module.reset_parameters()

    def precision(self) -> torch.autocast:
        """In which frozen parts in their type and what trains in float32 compute together."""
        low = self.frozen_dtype != torch.float32
        device = next(self.comprehension.parameters()).device
        return torch.autocast(device.type, self.frozen_dtype if low else None, enabled=low)

    def _states(self, batch: BatchFeature) -> torch.Tensor:
        inputs = BatchFeature({name: value for name, value in batch.items() if name not in ("labels", "targets")})
        return self.reader.prefill(inputs).last

    def logits(self, batch: BatchFeature) -> torch.Tensor:
        """Of the token after each of a training batch of the reader: `(batch, length - 1, vocabulary)`."""
        with self.precision():
            return self.reader.logits(self._states(batch)[:, :-1])

    def forward(self, batch: BatchFeature) -> dict[str, torch.Tensor]:
        """The loss of a training batch of the reader.

        Returns:
            "loss": cross-entropy of the replies. In training it is scaled so that the mean over the processes is the
            mean over all their tokens.
        """
        with self.precision():
            loss = text_loss(self.reader, self._states(batch), batch["labels"], shared=self.training)
        if not loss.requires_grad:
            # Chats without a picture teach a connector nothing, but the loop asks for its gradient.
            trainable = (parameter for parameter in self.parameters() if parameter.requires_grad)
            loss = loss + 0 * sum(parameter.sum() for parameter in trainable)
        return {"loss": loss}


@dataclass(kw_only=True)
class ReadingConfig(MixtureConfig):
    """A stage in which a reader learns to read."""

    model: Path = setting(help="pipeline, or a reader's folder, to start from")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    dtype: str = setting("float32", choices=DTYPES, help="of the frozen weights; what trains is float32")
    trains: tuple[str, ...] = setting(
        ("connector",), choices=PARTS, help="parts of the reader that train", fixed="what trains depends on it"
    )
    lora: LoraSettings | None = setting(
        None, help="adapters of the language model that train too, folded in at the end; null for none"
    )
    gradient_checkpointing: bool = setting(False, help="compute the language model's activations twice to keep fewer")
    judged: int = setting(4, least=1, help="validation batches of an evaluation", rejudge=True)
    best: str = best_of("minus_loss")


def open_reader_to_train(source: Path, dtype: torch.dtype) -> tuple[Reader, tuple[Any, ...]]:
    """A reader, and what is saved once it is trained: its pipeline, or its model and processor.

    A reader without vokens gets eight.

    Raises:
        OSError, ValueError: if it cannot be opened.
    """
    result = open_result(source, dtype)
    if isinstance(result[0], MiniGPT5Pipeline):
        return result[0].reader, result
    model, processor = result
    processor = with_vokens(model, processor, N_VOKENS)
    return reader_of(model, processor), (model, processor)


def train_reading(
    config: ReadingConfig, fresh: bool = False, tell: Callable[[Reader, Any], None] = lambda reader, held_back: None
) -> int:
    """Train parts of a reader on what its replies say, from the settings to the saved result.

    Args:
        fresh: whether the connector begins anew.
        tell: called at each evaluation with the reader and the mixture to judge by.

    Returns:
        How many numbers were trained, those of adapters among them.
    """
    check_splits(config)
    with opening(f"the model {config.model}"):
        reader, result = open_reader_to_train(config.model, getattr(torch, config.dtype))
    model = ReadingModel(reader, config.trains, config.lora, config.gradient_checkpointing, config.seed)
    model.to(pick_device())
    if fresh:
        model.reset_connector()
    end_dry_run(model, config)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    draw, held_back = (open_mixture(config, role, reader) for role in ("train", "validation"))

    def batches(index: int, source: Any = draw) -> BatchFeature:
        return source.batch(index)[1]

    def losses(batch: BatchFeature, step: int) -> dict[str, torch.Tensor]:
        return model(batch)

    def evaluate() -> dict[str, Any]:
        with model.precision():
            tell(reader, held_back)
        return {
            "minus_loss": -validation_loss(losses, lambda index: batches(index, held_back), config.judged, config.steps)
        }

    fit(model, batches, losses, config, config.out, evaluate, rows=draw.sizes)
    if is_main_process():
        fuse_lora(reader.model)
        save_result(result[0], config.out / "model", *result[1:])
    return trained
