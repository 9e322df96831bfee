"""The feature mapper: from voken features of the language model to the text features that condition the diffusion."""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn

from minigpt5.vokens.connector import Connector
from minigpt5.vokens.layers import Transformer


class VokenMapper(Connector):
    """Linear–GELU–Linear, then an encoder-decoder transformer whose decoder is fed with learned queries.

    MiniGPT-5 (arXiv 2310.02239), section 3.2, equation 4: the output of the transformer takes the place of the text
    encoder's features.

    Args:
        voken_dim: width of the language model's hidden states.
        text_dim: width of the text features, the diffusion model's `cross_attention_dim`.
        text_length: number of text features, 77 for Stable Diffusion.
        num_layers: layers of the encoder and of the decoder, each.
        num_heads: attention heads; must divide `text_dim`.
        pooled_dims: widths of pooled vectors that the diffusion model wants besides, by their names; none for
            Stable Diffusion 1 and 2.
        sequence_dims: widths of further sequences of features that it wants, by their names.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    fixed_in_stage_two = ("fc", "queries")
    _supports_gradient_checkpointing = True
    _group_offload_block_modules = ("transformer", "encoder", "decoder")
    _repeated_blocks: ClassVar[list[str]] = ["EncoderLayer", "DecoderLayer"]

    @register_to_config
    def __init__(
        self,
        voken_dim: int,
        text_dim: int,
        text_length: int = 77,
        num_layers: int = 4,
        num_heads: int = 8,
        pooled_dims: dict[str, int] | None = None,
        sequence_dims: dict[str, int] | None = None,
    ):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(voken_dim, text_dim), nn.GELU(), nn.Linear(text_dim, text_dim))
        self.transformer = Transformer(text_dim, num_heads, num_layers)
        self.queries = nn.Parameter(torch.randn(1, text_length, text_dim))
        self.add_heads(text_dim, pooled_dims, sequence_dims)

    def forward(self, voken_features: torch.Tensor) -> torch.Tensor:
        """Map `(blocks, n_vokens, voken_dim)` to `(blocks, text_length, text_dim)`.

        Raises:
            ValueError: for features of another shape.
        """
        width = self.fc[0].in_features
        if voken_features.ndim != 3 or voken_features.shape[-1] != width:
            given = tuple(voken_features.shape)
            raise ValueError(f"voken features are (blocks, n_vokens, {width}), got shape {given}")
        voken_features = voken_features.to(self.queries.dtype)
        return self.transformer(self.fc(voken_features), self.queries.expand(len(voken_features), -1, -1))
