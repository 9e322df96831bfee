"""Low-rank adapters of a language model, attached, kept and folded in with peft's own functions.

A folder with one is peft's: `adapter_config.json` and `adapter_model.safetensors`.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import nn

NAME = "default"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What peft writes before the names of a wrapped model's tensors.
WRAPPED = "base_model.model."


def has_lora(model: nn.Module) -> bool:
    """Whether an adapter is attached to the model."""
    return NAME in getattr(model, "peft_config", {})


def attach_lora(model: nn.Module, config: LoraConfig, state: dict[str, torch.Tensor] | None = None) -> None:
    """Give the model an adapter, in fp32: a fresh one, or with `state` as peft names its tensors.

    What of the model trains is left as it was.

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


def load_lora(model: nn.Module, folder: str | os.PathLike) -> None:
    """Attach the adapter of a folder.

    Raises:
        ValueError: as `attach_lora`.
    """
    state = load_file(Path(folder, WEIGHTS))
    config = LoraConfig.from_pretrained(str(folder))
    attach_lora(model, config, {name.removeprefix(WRAPPED): value for name, value in state.items()})


def save_lora(model: nn.Module, folder: str | os.PathLike) -> None:
    """Write the model's adapter to a folder that peft opens too."""
    model.peft_config[NAME].save_pretrained(folder)
    state = get_peft_model_state_dict(model, adapter_name=NAME)
    save_file({WRAPPED + name: value.detach().contiguous() for name, value in state.items()}, Path(folder, WEIGHTS))


def base_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's tensors by the names that they have without an adapter."""
    return {name.replace(".base_layer.", "."): v for name, v in model.state_dict().items() if "lora_" not in name}


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
