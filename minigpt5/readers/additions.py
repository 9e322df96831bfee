"""What some systems add to the layers of a language model: visual experts, and norms behind attention."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from minigpt5.utils.integrity import few


class VisualExpert(nn.Module):
    """A linear layer with a second matrix, by which the tokens of pictures go (CogVLM, arXiv 2311.03079, section 2.1).

    Args:
        language: the layer of the language model, by which all other tokens go; the second matrix begins as a copy.
    """

    def __init__(self, language: nn.Linear):
        super().__init__()
        self.language, self.vision = language, copy.deepcopy(language)
        # Which tokens are pictures', (batch, length); `None` where none is. Set for each forward of the layer.
        self.pictures: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`(batch, length, out)` of `(batch, length, in)`."""
        here = self.pictures
        if here is None:
            return self.language(hidden)
        words, seen = self.language(hidden[~here]), self.vision(hidden[here])
        made = words.new_empty(*hidden.shape[:-1], words.shape[-1])
        made[here], made[~here] = seen.to(made.dtype), words
        return made


def _hand_out(layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Tell a layer's experts which tokens are pictures'; done anew where a layer is computed again for its gradient."""
    kwargs = dict(kwargs)
    pictures = kwargs.pop("picture_tokens", None)
    for module in layer.modules():
        if isinstance(module, VisualExpert):
            module.pictures = pictures
    return args, kwargs


def add_visual_experts(language_model: Any) -> None:
    """Give every linear layer of attention and feed-forward a second matrix for the tokens of pictures.

    The model's forward then takes `picture_tokens`, `(batch, length)` of bool, and without it does what it did before.

    Raises:
        ValueError: for layers that are not as Llama's, or have matrices that no `nn.Linear` holds.
    """
    for layer in layers_of(language_model):
        linear = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
        matrices = {name.rpartition(".")[0] for name, value in layer.named_parameters() if value.ndim > 1}
        if others := matrices - linear.keys():
            raise ValueError(
                f"{type(language_model).__name__} cannot have visual experts: {few(sorted(others))} of its layers hold "
                "matrices and are no nn.Linear"
            )
        for name, module in linear.items():
            parent, _, leaf = name.rpartition(".")
            setattr(layer.get_submodule(parent), leaf, VisualExpert(module))
        layer.register_forward_pre_hook(_hand_out, with_kwargs=True)


def layers_of(language_model: Any) -> Iterable[Any]:
    """The layers of a language model.

    Raises:
        ValueError: if they do not lie where Llama and most others have them, or have no attention of that name.
    """
    layers = getattr(language_model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(layer, "self_attn") for layer in layers):
        raise ValueError(
            f"nothing can be added to the layers of {type(language_model).__name__}, which are not as Llama's: "
            "`layers`, each with `self_attn`"
        )
    return layers


def _norm_output(attention: Any, args: Any, output: tuple) -> tuple:
    return attention.post_layernorm(output[0]), *output[1:]


def add_post_norms(language_model: Any) -> None:
    """Put an RMS norm behind each layer's attention, before its residual (TinyGPT-V, arXiv 2312.16862, section 3.1).

    Raises:
        ValueError: for layers that are not as Llama's.
    """
    for layer in layers_of(language_model):
        layer.self_attn.post_layernorm = LlamaRMSNorm(language_model.config.hidden_size)
        layer.self_attn.register_forward_hook(_norm_output)
