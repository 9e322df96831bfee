"""The folder of an adapter: what was trained beside a base, with a fingerprint of that base.

    adapter.json           the base's name, its number of vokens, what is inside
    base.safetensors       the fingerprint
    vokens.safetensors     the vokens' rows of embedding table and head, and the prefix
    lora/                  a peft adapter of the language model
    mapper/                the whole mapper

A folder is read and checked whole before anything is attached, so one that is refused leaves the pipeline as it was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

from minigpt5.readers.lora import attach_lora, has_lora, read_lora, save_lora
from minigpt5.readers.prefix import KeyValuePrefix, prefix_of
from minigpt5.utils.files import whole_folder, write_json, write_text
from minigpt5.utils.integrity import load_whole, read_whole
from minigpt5.utils.json_files import read_json
from minigpt5.vokens.adapters import add_prefix, add_voken_rows, is_adapted
from minigpt5.vokens.connector import Connector

RECORD = "adapter.json"
# What the record says, and of which kind.
FIELDS = {"base": str, "base_sha256": str, "n_vokens": int, "lora": bool, "prefix_length": int}


def fingerprint(pipe: DiffusionPipeline) -> tuple[str, torch.Tensor]:
    """A hash of the names and shapes of the base's tensors, and eight numbers of each: `(tensors, 8)`.

    The numbers are of their first half: the vokens' rows, which change, stand at the end.
    """
    names, samples = [], []
    for part in ("comprehension", pipe.picture.painter.denoiser_name):
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
        OSError: if it cannot be written.
        ValueError: if nothing is attached to the comprehension stack.
    """
    model = pipe.comprehension
    if not is_adapted(model):
        raise ValueError("there is no adapter to save: nothing is attached to the comprehension stack")
    prefix = prefix_of(model)
    rows = {"embedding": model.get_input_embeddings().rows, "head": model.get_output_embeddings().rows}
    if prefix is not None:
        rows["prefix"] = prefix.states
    names, samples = fingerprint(pipe)
    told = {"base": base, "base_sha256": names, "n_vokens": pipe.reader.n_vokens, "lora": has_lora(model)}
    told["prefix_length"] = 0 if prefix is None else prefix.length
    with whole_folder(folder, RECORD) as new:
        save_file({name: value.detach().contiguous() for name, value in rows.items()}, new / "vokens.safetensors")
        save_file({"samples": samples}, new / "base.safetensors")
        if has_lora(model):
            save_lora(model, new / "lora")
        pipe.mapper.save_pretrained(new / "mapper")
        write_json(new / RECORD, told)
        write_text(new / "README.md", _card(told))


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
        OSError: if a file of the adapter is missing or cannot be read.
        ValueError: if the pipeline is another base or has an adapter already, or if the folder is broken; the pipeline
            is as it was.
    """
    folder, model = Path(folder), pipe.comprehension
    if is_adapted(model):
        raise ValueError("the pipeline has an adapter already; fuse it, or open the base anew")
    if not (folder / RECORD).is_file():
        raise FileNotFoundError(f"{folder} is no adapter folder: it has no {RECORD}")
    told = _read_record(folder / RECORD)
    _check_base(pipe, folder, told)
    rows = _read_rows(pipe, folder, told["prefix_length"])
    lora = read_lora(model, folder / "lora") if told["lora"] else None
    mapper = _read_mapper(pipe.mapper, folder / "mapper")

    device = model.device
    add_voken_rows(model, pipe.reader.voken_ids)
    for layer, name in ((model.get_input_embeddings(), "embedding"), (model.get_output_embeddings(), "head")):
        layer.rows.copy_(rows[name])
    if lora is not None:
        attach_lora(model, *lora)
    if "prefix" in rows:
        add_prefix(model, told["prefix_length"]).states.copy_(rows["prefix"])
    model.requires_grad_(False).to(device)
    pipe.mapper = mapper.to(pipe.mapper.device, pipe.mapper.dtype)


def _read_record(file: Path) -> dict[str, Any]:
    told = read_json(file)
    for name, kind in FIELDS.items():
        if type(told.get(name)) is not kind or (kind is int and told[name] < 0):
            raise ValueError(f"{file}: {name} must be {FIELDS[name].__name__}, got {told.get(name)!r}")
    if told["lora"] != (file.parent / "lora").is_dir():
        raise ValueError(f"{file} says that there is {'' if told['lora'] else 'no '}LoRA, but that is not so")
    return told


def _check_base(pipe: DiffusionPipeline, folder: Path, told: dict[str, Any]) -> None:
    names, samples = fingerprint(pipe)
    why = "sizes"
    if names == told["base_sha256"] and told["n_vokens"] == pipe.reader.n_vokens:
        there = read_whole(folder / "base.safetensors", {"samples": samples.shape})["samples"]
        # Bases in fp32, bf16 and fp16 are one base.
        if torch.allclose(samples, there, rtol=0.02, atol=1e-4):
            return
        why = "weights"
    raise ValueError(f"{folder} is an adapter of another base, {told['base']}: the {why} differ from this pipeline's")


def _read_rows(pipe: DiffusionPipeline, folder: Path, prefix_length: int) -> dict[str, torch.Tensor]:
    model, n_vokens = pipe.comprehension, pipe.reader.n_vokens
    layers = {"embedding": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    shapes: dict[str, Sequence[int]] = {name: (n_vokens, layer.weight.shape[1]) for name, layer in layers.items()}
    if prefix_length:
        with torch.device("meta"):
            shapes["prefix"] = KeyValuePrefix(model.config.get_text_config(decoder=True), prefix_length).states.shape
    return read_whole(folder / "vokens.safetensors", shapes)


def _read_mapper(own: Connector, folder: Path) -> Connector:
    kind, there = type(own).__name__, read_json(folder / "config.json").get("_class_name")
    if there != kind:
        raise ValueError(f"{folder} is a {there}, but this pipeline's connector is a {kind}; open the adapter's base")
    mapper = load_whole(type(own), folder, use_safetensors=True)
    for name, value in own.config.items():
        if not name.startswith("_") and mapper.config.get(name) != value:
            raise ValueError(f"{folder}: {name} is {mapper.config.get(name)}, but the base's mapper has {value}")
    return mapper
