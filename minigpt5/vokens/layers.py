"""The networks of `nn.Transformer`, name by name, each module reading its own weights in its own forward.

PyTorch's attention hands the weights of its projections to one function, past the modules that hold them, so hooks that
offload or cast those modules never hear of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, relu, scaled_dot_product_attention


class Attention(nn.Module):
    """Multi-head attention with the weights of `nn.MultiheadAttention`.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"num_heads must divide the width, got {num_heads} heads for a width of {width}")
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, hidden: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        """What `hidden` `(batch, length, width)` finds in `memory`, by default in itself."""
        width, weight, bias = hidden.shape[-1], self.in_proj_weight, self.in_proj_bias
        if memory is None:
            query, key, value = linear(hidden, weight, bias).chunk(3, dim=-1)
        else:
            query = linear(hidden, weight[:width], bias[:width])
            key, value = linear(memory, weight[width:], bias[width:]).chunk(2, dim=-1)
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        return self.out_proj(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """`nn.TransformerEncoderLayer` with `norm_first`, ReLU and a feed-forward network four times as wide."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.self_attn = Attention(width, num_heads)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """From `(batch, length, width)` to the same shape."""
        hidden = hidden + self.self_attn(self.norm1(hidden))
        return hidden + self.linear2(relu(self.linear1(self.norm2(hidden))))


class DecoderLayer(nn.Module):
    """`nn.TransformerDecoderLayer` with `norm_first`, ReLU and a feed-forward network four times as wide."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.self_attn = Attention(width, num_heads)
        self.multihead_attn = Attention(width, num_heads)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, hidden: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """From `(batch, length, width)` to the same shape, looking at `memory` `(batch, other length, width)`."""
        hidden = hidden + self.self_attn(self.norm1(hidden))
        hidden = hidden + self.multihead_attn(self.norm2(hidden), memory)
        return hidden + self.linear2(relu(self.linear1(self.norm3(hidden))))


class Stack(nn.Module):
    """Layers and the norm behind them; `enable_gradient_checkpointing` of the model that holds it reaches it."""

    def __init__(self, layer: Callable[[int, int], nn.Module], width: int, num_heads: int, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList(layer(width, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.gradient_checkpointing = False

    def forward(self, hidden: torch.Tensor, *memory: torch.Tensor) -> torch.Tensor:
        """From `(batch, length, width)` to the same shape."""
        checkpointed: Any = getattr(self, "_gradient_checkpointing_func", None)
        for layer in self.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpointed(layer, hidden, *memory)
            else:
                hidden = layer(hidden, *memory)
        return self.norm(hidden)


class Transformer(nn.Module):
    """`nn.Transformer` of such layers: an encoder, and a decoder that looks at what it makes."""

    def __init__(self, width: int, num_heads: int, num_layers: int):
        super().__init__()
        self.encoder = Stack(EncoderLayer, width, num_heads, num_layers)
        self.decoder = Stack(DecoderLayer, width, num_heads, num_layers)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """From a target `(batch, length, width)` to the same shape, looking at `source` `(batch, other, width)`."""
        return self.decoder(target, self.encoder(source))
