"""What training adds to frozen base models: voken rows, a low-rank adapter or a prefix, and the mapper.

An adapter folder holds them, with a fingerprint of the base that they were made for:

    adapter.json           the base's name, its number of vokens, what is inside
    base.safetensors       the fingerprint
    vokens.safetensors     the vokens' rows of embedding table and head, and the prefix
    lora/                  a peft adapter of the language model
    mapper/                the whole mapper
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from minigpt5.painters import painter_of
from minigpt5.readers.generic import language_model_name
from minigpt5.readers.lora import attach_lora, fuse_lora, has_lora, load_lora, save_lora
from minigpt5.readers.prefix import KeyValuePrefix
from minigpt5.utils.integrity import load_whole
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

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits `(..., vocabulary)`."""
        logits = self.frozen(hidden)
        here = slice(self.first, self.first + len(self.rows))
        bias = self.frozen.bias[here] if self.frozen.bias is not None else None
        logits[..., here] = linear(hidden, self.rows.to(hidden.dtype), bias)
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
    model.set_input_embeddings(VokenEmbedding(model.get_input_embeddings(), voken_ids))
    model.set_output_embeddings(VokenHead(model.get_output_embeddings(), voken_ids))


def add_lora(model: PreTrainedModel, settings: LoraSettings) -> None:
    """Give the language model trainable low-rank adapters, in fp32."""
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=rf"{re.escape(language_model_name(model))}\..*\.({'|'.join(settings.targets)})",
    )
    attach_lora(model, config)


def add_prefix(model: PreTrainedModel, length: int) -> None:
    """Give the language model a trainable prefix of keys and values (prefix tuning, arXiv 2101.00190)."""
    model.prefix = KeyValuePrefix(model.config.get_text_config(decoder=True), length).to(model.device)


def train_adapter(
    pipe: DiffusionPipeline, lora: LoraSettings | None = None, prefix_length: int = 0, seed: int = 0
) -> None:
    """Make the voken rows trainable, and with them an adapter or a prefix; all else of comprehension is frozen.

    What is attached already goes on training; what is new is drawn from `seed`.
    """
    model = pipe.comprehension
    if not is_adapted(model):
        add_voken_rows(model, pipe.reader.voken_ids)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(".rows") or "lora_" in name or name.startswith("prefix."))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if lora and not has_lora(model):
            add_lora(model, lora)
        if prefix_length and not hasattr(model, "prefix"):
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
    if hasattr(model, "prefix"):
        raise ValueError("a prefix cannot be folded into weights; keep the adapter folder beside its base")
    fuse_lora(model)
    if not is_adapted(model):
        return
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head.frozen.weight is table.frozen.weight:
        # A voken's two rows were trained apart, so one matrix cannot hold both.
        head.frozen.weight = nn.Parameter(table.frozen.weight.clone(), requires_grad=False)
        model.config.tie_word_embeddings = model.config.get_text_config(decoder=True).tie_word_embeddings = False
    for layer, put_back in ((table, model.set_input_embeddings), (head, model.set_output_embeddings)):
        layer.frozen.weight[layer.first : layer.first + len(layer.rows)] = layer.rows.to(layer.frozen.weight.dtype)
        put_back(layer.frozen)


def fingerprint(pipe: DiffusionPipeline) -> tuple[str, torch.Tensor]:
    """A hash of the names and shapes of the base's tensors, and eight numbers of each: `(tensors, 8)`.

    The numbers are of their first half: the vokens' rows, which change, stand at the end.
    """
    names, samples = [], []
    for part in ("comprehension", painter_of(pipe.painter).denoiser_name):
        for name, parameter in getattr(pipe, part).named_parameters():
            if ".rows" in name or "lora_" in name or name.startswith("prefix"):
                continue
            plain_name = name.replace(".base_layer.", ".").replace(".frozen.", ".")
            names.append(f"{part}.{plain_name} {tuple(parameter.shape)}")
            values = parameter.detach().flatten()[:: max(parameter.numel() // 16, 1)][:8].float().cpu()
            samples.append(torch.nn.functional.pad(values, (0, 8 - len(values))))
    order = sorted(range(len(names)), key=names.__getitem__)
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest(), torch.stack([samples[i] for i in order])


def save_adapter(pipe: DiffusionPipeline, folder: str | os.PathLike, base: str) -> None:
    """Write what was trained beside the base `base`: whole or not at all.

    Raises:
        ValueError: if nothing is attached to the comprehension stack.
    """
    model, folder = pipe.comprehension, Path(folder)
    if not is_adapted(model):
        raise ValueError("there is no adapter to save: nothing is attached to the comprehension stack")
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    rows = {"embedding": model.get_input_embeddings().rows, "head": model.get_output_embeddings().rows}
    prefix = getattr(model, "prefix", None)
    if prefix is not None:
        rows["prefix"] = prefix.states
    save_file({name: value.detach().contiguous() for name, value in rows.items()}, temporary / "vokens.safetensors")
    names, samples = fingerprint(pipe)
    save_file({"samples": samples}, temporary / "base.safetensors")
    if has_lora(model):
        save_lora(model, temporary / "lora")
    pipe.mapper.save_pretrained(temporary / "mapper")
    told = {"base": base, "base_sha256": names, "n_vokens": pipe.reader.n_vokens, "lora": has_lora(model)}
    told["prefix_length"] = 0 if prefix is None else prefix.length
    (temporary / "adapter.json").write_text(json.dumps(told, indent=2) + "\n")
    (temporary / "README.md").write_text(_card(told))
    if folder.exists():
        shutil.rmtree(folder)
    temporary.replace(folder)


def _card(told: dict) -> str:
    kind = "LoRA" if told["lora"] else f"a prefix of {told['prefix_length']}" if told["prefix_length"] else "no more"
    return f"""---
library_name: minigpt5
base_model: {told["base"]}
tags: [minigpt5, adapter]
---

# MiniGPT-5 adapter of {told["base"]}

The rows of {told["n_vokens"]} vokens, the mapper, and {kind} on the language model.

```python
from minigpt5 import MiniGPT5Pipeline

pipeline = MiniGPT5Pipeline.from_pretrained("{told["base"]}")
pipeline.load_adapter("PATH_OF_THIS_FOLDER")
```
"""


@torch.no_grad()
def load_adapter(pipe: DiffusionPipeline, folder: str | os.PathLike) -> None:
    """Attach an adapter folder to the pipeline that it was made for.

    Raises:
        FileNotFoundError: if a file of the adapter is missing.
        ValueError: if the pipeline is another base, has an adapter already, or a file is broken.
    """
    folder, model = Path(folder), pipe.comprehension
    if is_adapted(model):
        raise ValueError("the pipeline has an adapter already; fuse it, or open the base anew")
    if not (folder / "adapter.json").exists():
        raise FileNotFoundError(f"{folder} is no adapter folder: it has no adapter.json")
    told = json.loads((folder / "adapter.json").read_text())
    try:
        rows, there = load_file(folder / "vokens.safetensors"), load_file(folder / "base.safetensors")["samples"]
    except SafetensorError as error:
        raise ValueError(f"{folder}: a file is broken ({error})") from error
    names, samples = fingerprint(pipe)
    # Bases in fp32, bf16 and fp16 are one base.
    same = names == told["base_sha256"] and torch.allclose(samples, there, rtol=0.02, atol=1e-4)
    if not same or told["n_vokens"] != pipe.reader.n_vokens:
        why = "weights differ" if names == told["base_sha256"] else "sizes differ"
        raise ValueError(f"{folder} is an adapter of another base, {told['base']}: the {why} from this pipeline's")
    device = model.device
    add_voken_rows(model, pipe.reader.voken_ids)
    for layer, name in ((model.get_input_embeddings(), "embedding"), (model.get_output_embeddings(), "head")):
        layer.rows.copy_(rows[name])
    if told["lora"]:
        load_lora(model, folder / "lora")
    if told["prefix_length"]:
        add_prefix(model, told["prefix_length"])
        model.prefix.states.copy_(rows["prefix"])
    model.requires_grad_(False).to(device)
    mapper = load_whole(type(pipe.mapper), folder / "mapper")
    pipe.mapper = mapper.to(pipe.mapper.device, pipe.mapper.dtype)
