"""Prefix tuning: trainable keys and values in front of all that a language model reads (arXiv 2101.00190)."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel


class KeyValuePrefix(nn.Module):
    """Trainable keys and values that every layer of the language model attends to before the prompt.

    `states` is `(layers, 2, key-value heads, length, head width)`. They stand at no position: the prompt's positions
    stay what they were.
    """

    def __init__(self, config: PreTrainedConfig, length: int):
        super().__init__()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.states = nn.Parameter(0.02 * torch.randn(config.num_hidden_layers, 2, heads, length, width))

    @property
    def length(self) -> int:
        """Number of keys before the prompt."""
        return self.states.shape[3]

    def forward(self, cache: Cache, batch_size: int, dtype: torch.dtype) -> None:
        """Put the prefix into an empty cache."""
        for layer, (keys, values) in enumerate(self.states.to(dtype)):
            cache.update(keys.expand(batch_size, -1, -1, -1), values.expand(batch_size, -1, -1, -1), layer)


def prefix_of(model: PreTrainedModel) -> KeyValuePrefix | None:
    """The prefix of a model, which is its submodule, if it has one."""
    return getattr(model, "prefix", None)


def behind_prefix(
    model: PreTrainedModel, states: Cache | None, mask: torch.Tensor
) -> tuple[Cache | None, torch.Tensor]:
    """A cache and a mask of all that is in it and is to be read, with the model's prefix in front if it has one."""
    prefix = prefix_of(model)
    if prefix is None:
        return states, mask
    states = DynamicCache() if states is None else states
    if states.get_seq_length() == 0:
        prefix(states, len(mask), model.dtype)
    return states, torch.cat([mask.new_ones(len(mask), prefix.length), mask], dim=1)
