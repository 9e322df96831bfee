"""Low-rank adapters of a language model, attached, kept and folded in with peft's own functions.

A folder with one is peft's: `adapter_config.json` and `adapter_model.safetensors`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from minigpt5.utils.integrity import read_whole
from minigpt5.utils.json_files import read_json
from minigpt5.utils.meta import empty_weights
from minigpt5.utils.reading import first_line

NAME = "default"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What peft writes before the names of a wrapped model's tensors.
WRAPPED = "base_model.model."


def has_lora(model: nn.Module) -> bool:
    """Whether an adapter is attached to the model."""
    return NAME in getattr(model, "peft_config", {})


def attach_lora(model: nn.Module, config: LoraConfig, state: dict[str, torch.Tensor] | None = None) -> None:
    """Give the model an adapter, in fp32: a fresh one, or with `state` as peft names its tensors.

    What of the model trains is left as it was, and so is its mode: dropout is only for a model in training.

    Raises:
        ValueError: if the state lacks a tensor of the adapter, or has another besides.
    """
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    inject_adapter_in_model(config, model, NAME)
    if state is not None:
        found = set_peft_model_state_dict(model, state, NAME)
        missing = [name for name in found.missing_keys if "lora_" in name]
        if missing or found.unexpected_keys:
            name, verb = (missing or found.unexpected_keys)[0], "lacks" if missing else "has besides"
            raise ValueError(f"the LoRA adapter {verb} {name}")
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
        else:
            parameter.requires_grad_(name.replace(".base_layer.", ".") in trainable)
    model.train(model.training)


def load_lora(model: PreTrainedModel, folder: str | os.PathLike) -> None:
    """Attach the adapter of a folder.

    Raises:
        OSError, ValueError: as `read_lora`.
    """
    attach_lora(model, *read_lora(model, Path(folder)))


def read_lora(model: PreTrainedModel, folder: Path) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """The adapter of a folder as `attach_lora` takes it, seen to fit the model, which is left alone.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: if a file is broken, if this is no plain low-rank adapter, or if its tensors are not those that the
            model's layers need.
    """
    read_json(folder / CONFIG)
    try:
        config: Any = LoraConfig.from_pretrained(str(folder))
        plain = isinstance(config, LoraConfig) and config.bias == "none"
        if not plain or config.modules_to_save or config.trainable_token_indices:
            raise ValueError("it is no low-rank adapter alone")
        # Other ways to begin would change the weights beneath.
        config.init_lora_weights = True
        # Attached to a model without memory, it tells what it needs.
        with empty_weights():
            skeleton = type(model)(copy.deepcopy(model.config))
        inject_adapter_in_model(config, skeleton, NAME)
        needed = get_peft_model_state_dict(skeleton, adapter_name=NAME)
        tables = (skeleton.get_input_embeddings(), skeleton.get_output_embeddings())
        if any(isinstance(layer, BaseTunerLayer) for layer in tables):
            raise ValueError("it changes the embedding table or the head, whose rows are the vokens'")
    except Exception as error:
        raise ValueError(f"{folder / CONFIG} cannot be attached: {first_line(error)}") from error
    state = read_whole(folder / WEIGHTS, {WRAPPED + name: value.shape for name, value in needed.items()})
    return config, {name.removeprefix(WRAPPED): value for name, value in state.items()}


def save_lora(model: nn.Module, folder: str | os.PathLike) -> None:
    """Write the model's adapter to a folder that peft opens too."""
    configs: Any = model.peft_config
    configs[NAME].save_pretrained(folder)
    state = get_peft_model_state_dict(model, adapter_name=NAME)
    save_file({WRAPPED + name: value.detach().contiguous() for name, value in state.items()}, Path(folder, WEIGHTS))


def is_layered(part: Any) -> bool:
    """Whether peft has put layers of its own around some of a model's."""
    return isinstance(part, nn.Module) and any(isinstance(module, BaseTunerLayer) for module in part.modules())


def adapters_on(model: nn.Module) -> list[tuple[str, ...]]:
    """The adapters that each adapted layer of the model adds to its own output."""
    layers = (module for module in model.modules() if isinstance(module, BaseTunerLayer))
    return [() if layer.disable_adapters else tuple(layer.active_adapters) for layer in layers]


def base_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's tensors by the names that they have without an adapter."""
    return {name.replace(".base_layer.", "."): v for name, v in model.state_dict().items() if "lora_" not in name}


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """The model as it is without its adapter, which is back after the block and trains."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@torch.no_grad()
def fuse_lora(model: nn.Module) -> None:
    """Fold the adapter into the weights, and take it off."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            outer, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(outer), leaf, module.get_base_layer())
    if has_lora(model):
        del model.peft_config
