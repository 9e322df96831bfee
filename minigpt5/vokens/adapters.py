"""What training adds to a frozen reader: voken rows, and a low-rank adapter or a prefix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from torch import nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from minigpt5.readers.additions import VisualExpert
from minigpt5.readers.generic import language_model_name
from minigpt5.readers.lora import attach_lora, fuse_lora, has_lora
from minigpt5.readers.prefix import KeyValuePrefix, prefix_of
from minigpt5.utils.settings import Settings, setting


class VokenRows(nn.Module):
    """A frozen matrix with a row a token, and trainable rows for the vokens: nothing of its size is ever trained."""

    def __init__(self, frozen: nn.Embedding | nn.Linear, voken_ids: Sequence[int]):
        super().__init__()
        self.frozen, self.first = frozen.requires_grad_(False), voken_ids[0]
        self.rows = nn.Parameter(frozen.weight[list(voken_ids)].detach().float().clone())

    @property
    def weight(self) -> torch.Tensor:
        """The frozen matrix."""
        return self.frozen.weight


class VokenEmbedding(VokenRows):
    """An embedding table."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings `(..., hidden)`."""
        embeds = self.frozen(input_ids)
        place = input_ids - self.first
        here = (place >= 0) & (place < len(self.rows))
        # Some tables scale what they give (Gemma).
        rows = self.rows[place.clamp(0, len(self.rows) - 1)] * getattr(self.frozen, "embed_scale", 1.0)
        return torch.where(here.unsqueeze(-1), rows.to(embeds.dtype), embeds)


class VokenHead(VokenRows):
    """A language model's head."""

    def __init__(self, frozen: nn.Linear, voken_ids: Sequence[int]):
        super().__init__(frozen, voken_ids)
        # Beside the rows, because the frozen head's own is on the device in that module's forward alone.
        if frozen.bias is None:
            self.bias_of_rows = None
        else:
            self.register_buffer("bias_of_rows", frozen.bias[list(voken_ids)].detach().clone(), persistent=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits `(..., vocabulary)`."""
        logits = self.frozen(hidden)
        here = slice(self.first, self.first + len(self.rows))
        logits[..., here] = linear(hidden, self.rows.to(hidden.dtype), self.bias_of_rows)
        return logits


@dataclass
class LoraSettings(Settings):
    """Low-rank adapters of the language model (published: rank 8, alpha 16, dropout 0.05, q_proj and v_proj)."""

    rank: int = setting(8, least=1, help="of the two matrices", fixed="what trains depends on it")
    alpha: int = setting(16, least=1, help="their product is scaled by alpha / rank", fixed="what trains depends on it")
    dropout: float = setting(0.05, least=0, below=1, help="on their input")
    targets: tuple[str, ...] = setting(
        ("q_proj", "v_proj"), help="names of the layers that are adapted", fixed="what trains depends on it"
    )


def add_voken_rows(model: PreTrainedModel, voken_ids: Sequence[int]) -> None:
    """Freeze the comprehension stack and make the vokens' rows of embedding table and head trainable.

    Raises:
        ValueError: if the vokens are not neighbours in the vocabulary.
    """
    if list(voken_ids) != list(range(voken_ids[0], voken_ids[0] + len(voken_ids))):
        raise ValueError(f"the vokens must follow one another in the vocabulary, their ids are {list(voken_ids)}")
    model.requires_grad_(False)
    table: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    model.set_input_embeddings(VokenEmbedding(table, voken_ids))
    model.set_output_embeddings(VokenHead(head, voken_ids))


def add_lora(model: PreTrainedModel, settings: LoraSettings) -> None:
    """Give the language model trainable low-rank adapters, in fp32; beside visual experts to what is for words."""
    own = r"\.language" if any(isinstance(module, VisualExpert) for module in model.modules()) else ""
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=rf"{re.escape(language_model_name(model))}\..*\.({'|'.join(settings.targets)}){own}",
    )
    attach_lora(model, config)


def add_prefix(model: PreTrainedModel, length: int) -> KeyValuePrefix:
    """Give the language model a trainable prefix of keys and values (prefix tuning, arXiv 2101.00190)."""
    model.prefix = prefix = KeyValuePrefix(model.config.get_text_config(decoder=True), length).to(model.device)
    return prefix


def train_adapter(
    pipe: DiffusionPipeline,
    lora: LoraSettings | None = None,
    prefix_length: int = 0,
    seed: int = 0,
    head: bool = False,
) -> None:
    """Make the voken rows trainable, and with them an adapter or a prefix; all else of comprehension is frozen.

    With `head` that of the language model trains too, all of it and in fp32.

    What is attached already goes on training; what is new is drawn from `seed`.

    Raises:
        ValueError: for a prefix of a model in which not all can look back at it.
    """
    model = pipe.comprehension
    if prefix_length and not pipe.reader.takes_prefix:
        kind = type(model).__name__
        raise ValueError(f"{kind} does not look back at all that it has read, so it cannot have a prefix; train LoRA")
    if not is_adapted(model):
        add_voken_rows(model, pipe.reader.voken_ids)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(".rows") or "lora_" in name or name.startswith("prefix."))
    if head:
        model.get_output_embeddings().frozen.float().requires_grad_(True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if lora and not has_lora(model):
            add_lora(model, lora)
        if prefix_length and prefix_of(model) is None:
            add_prefix(model, prefix_length)


def is_adapted(model: PreTrainedModel) -> bool:
    """Whether something of this module is attached to the model."""
    return isinstance(model.get_input_embeddings(), VokenEmbedding)


@torch.no_grad()
def fuse_adapter(model: PreTrainedModel) -> None:
    """Fold voken rows and low-rank adapters into the weights, and take them off.

    A head that shares its matrix with the embedding table gets one of its own.

    Raises:
        ValueError: if the model has a prefix, which no weight can take up.
    """
    if prefix_of(model) is not None:
        raise ValueError("a prefix cannot be folded into weights; keep the adapter folder beside its base")
    fuse_lora(model)
    if not is_adapted(model):
        return
    table: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    if head.frozen.weight is table.frozen.weight:
        # A voken's two rows were trained apart, so one matrix cannot hold both.
        head.frozen.weight = nn.Parameter(table.frozen.weight.clone(), requires_grad=False)
        model.config.tie_word_embeddings = model.config.get_text_config(decoder=True).tie_word_embeddings = False
    for layer, put_back in ((table, model.set_input_embeddings), (head, model.set_output_embeddings)):
        layer.frozen.weight[layer.first : layer.first + len(layer.rows)] = layer.rows.to(layer.frozen.weight.dtype)
        put_back(layer.frozen)
