"""What stands between encoders of pictures and a language model: the part in which the systems of the field differ.

Each connector is made of a `ComposedConfig` and takes the encoders' features, a list of `(pictures, patches, width)`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import gelu, interpolate, silu


class Connector(nn.Module):
    """From the encoders' features to as many tokens a picture as `tokens` says.

    With `config.framed_pictures` a learnt vector stands before each picture's tokens and one behind them.
    """

    # The sizes that `config.connector_options` gives.
    options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any):
        super().__init__()
        self.frame = nn.Parameter(torch.empty(2, config.text_config.hidden_size)) if config.framed_pictures else None

    @staticmethod
    def tokens(config: Any, patches: int) -> int:
        """How many tokens become of a picture of so many patches, without a frame."""
        return patches

    def project(self, features: list[torch.Tensor]) -> torch.Tensor:
        """The tokens `(pictures, tokens, hidden)`, without a frame."""
        raise NotImplementedError

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """The tokens `(pictures, tokens, hidden)` of a language model."""
        made = self.project(features)
        if self.frame is None:
            return made
        begin, end = self.frame.to(made.dtype).expand(len(made), -1, -1).split(1, dim=1)
        return torch.cat([begin, made, end], dim=1)

    def init_parameters(self, std: float) -> None:
        """Draw what is no layer of torch's; transformers draws the rest."""
        if self.frame is not None:
            nn.init.normal_(self.frame, std=std)


class Linear(Connector):
    """A linear projection of each patch (LLaVA, arXiv 2304.08485, section 4.1)."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.linear = nn.Linear(config.feature_widths[0], config.text_config.hidden_size)

    def project(self, features: list[torch.Tensor]) -> torch.Tensor:
        """See `Connector.project`."""
        return self.linear(features[0])


class TwoLayers(Connector):
    """Two layers with a GELU between them, named as in transformers' LLaVA (1.5: arXiv 2310.03744, section 3.3)."""

    def __init__(self, config: Any):
        super().__init__(config)
        width = config.text_config.hidden_size
        self.linear_1, self.linear_2 = nn.Linear(config.feature_widths[0], width), nn.Linear(width, width)

    def project(self, features: list[torch.Tensor]) -> torch.Tensor:
        """See `Connector.project`."""
        return self.linear_2(gelu(self.linear_1(features[0])))


class Neighbours(Connector):
    """Four patches that follow one another in a row become one token (MiniGPT-v2, arXiv 2310.09478, section 2.1).

    The published code takes four of a row, not two by two.
    """

    def __init__(self, config: Any):
        super().__init__(config)
        self.linear = nn.Linear(4 * config.feature_widths[0], config.text_config.hidden_size)

    @staticmethod
    def tokens(config: Any, patches: int) -> int:
        """A quarter of them."""
        if patches % 4:
            raise ValueError(f"{patches} patches cannot be joined by fours; take a picture size with a multiple of 4")
        return patches // 4

    def project(self, features: list[torch.Tensor]) -> torch.Tensor:
        """See `Connector.project`."""
        return self.linear(features[0].unflatten(1, (-1, 4)).flatten(2))


class Resampler(Connector):
    """One layer of cross-attention from learnt queries, with 2-D positions (Qwen-VL, arXiv 2308.12966, section 2.1).

    Options: `queries`, a square number, and `heads`.
    """

    options = ("queries", "heads")

    def __init__(self, config: Any):
        super().__init__(config)
        options, width = config.connector_options, config.text_config.hidden_size
        self.side = _side(options["queries"])
        self.queries = nn.Parameter(torch.empty(options["queries"], width))
        self.narrow = nn.Linear(config.feature_widths[0], width, bias=False)
        self.norm_queries, self.norm_patches, self.norm_out = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, options["heads"], batch_first=True)
        self.out = nn.Linear(width, width, bias=False)

    @staticmethod
    def tokens(config: Any, patches: int) -> int:
        """As many as there are queries."""
        _side(patches)
        heads, width = config.connector_options["heads"], config.text_config.hidden_size
        if width % 4:
            raise ValueError(f"positions of two axes take a width in fours, the language model's is {width}")
        if width % heads:
            raise ValueError(f"heads is {heads}, must divide the language model's width, {width}")
        return config.connector_options["queries"]

    def project(self, features: list[torch.Tensor]) -> torch.Tensor:
        """See `Connector.project`."""
        patches = self.norm_patches(self.narrow(features[0]))
        places = sincos_positions(self.side, patches.shape[-1]).to(patches.device)
        queries = self.norm_queries(self.queries) + places.to(patches.dtype)
        # The same places of the picture have the same positions, however many patches it is of.
        grid = places.T.unflatten(1, (self.side, self.side)).unsqueeze(0)
        fine = interpolate(grid, 2 * (_side(patches.shape[1]),), mode="bicubic").flatten(2).mT.to(patches.dtype)
        seen, _ = self.attention(queries.expand(len(patches), -1, -1), patches + fine, patches, need_weights=False)
        return self.out(self.norm_out(seen))

    def init_parameters(self, std: float) -> None:
        """See `Connector.init_parameters`."""
        super().init_parameters(std)
        nn.init.trunc_normal_(self.queries, std=0.02)
        nn.init.xavier_uniform_(self.attention.in_proj_weight)
        nn.init.zeros_(self.attention.in_proj_bias)


class TwoProjections(Connector):
    """A Q-Former's tokens through two linear projections, the first of them MiniGPT-4's (TinyGPT-V, arXiv 2312.16862).

    Option: `width` between the two, the hidden size of MiniGPT-4's language model.
    """

    options = ("width",)

    def __init__(self, config: Any):
        super().__init__(config)
        width = config.connector_options["width"]
        self.first = nn.Linear(config.feature_widths[-1], width)
        self.second = nn.Linear(width, config.text_config.hidden_size)

    @staticmethod
    def tokens(config: Any, patches: int) -> int:
        """As many as the Q-Former has queries."""
        return config.num_query_tokens

    def project(self, features: list[torch.Tensor]) -> torch.Tensor:
        """See `Connector.project`."""
        return self.second(self.first(features[-1]))


class Mixed(Connector):
    """Encoders joined by channel, a Q-Former's tokens before them (SPHINX, arXiv 2311.07575, section 3.3)."""

    def __init__(self, config: Any):
        super().__init__(config)
        *joined, queries = config.feature_widths
        width = config.text_config.hidden_size
        self.of_queries = nn.Sequential(nn.Linear(queries, width), nn.LayerNorm(width))
        self.of_patches = nn.Sequential(nn.Linear(sum(joined), width), nn.LayerNorm(width))

    @staticmethod
    def tokens(config: Any, patches: int) -> int:
        """The Q-Former's and the patches'."""
        return config.num_query_tokens + patches

    def project(self, features: list[torch.Tensor]) -> torch.Tensor:
        """See `Connector.project`."""
        *joined, queries = features
        return torch.cat([self.of_queries(queries), self.of_patches(torch.cat(joined, dim=-1))], dim=1)


class GatedLayers(Connector):
    """A projection and a gated feed-forward layer (CogVLM, arXiv 2311.03079, section 2.1 and published code).

    Option: `width` of the gate.
    """

    options = ("width",)

    def __init__(self, config: Any):
        super().__init__(config)
        width, inner = config.text_config.hidden_size, config.connector_options["width"]
        self.linear = nn.Linear(config.feature_widths[0], width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)

    def project(self, features: list[torch.Tensor]) -> torch.Tensor:
        """See `Connector.project`."""
        hidden = gelu(self.norm(self.linear(features[0])))
        return self.down(silu(self.gate(hidden)) * self.up(hidden))


CONNECTORS: dict[str, type[Connector]] = {
    "linear": Linear,
    "two_layers": TwoLayers,
    "neighbours": Neighbours,
    "resampler": Resampler,
    "two_projections": TwoProjections,
    "mixed": Mixed,
    "gated_layers": GatedLayers,
}


def _side(count: int) -> int:
    """The side of a square of so many."""
    side = round(count**0.5)
    if side * side != count:
        raise ValueError(f"{count} tokens make no square, as positions with two axes need")
    return side


@lru_cache(maxsize=8)
def sincos_positions(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of the column, then of the row, of a square's places: `(side * side, width)`.

    Each axis has a quarter of the width for sines and one for cosines, of 10000^(-i / quarter) (arXiv 2111.06377).
    """
    angles = torch.outer(torch.arange(side).double(), 1e4 ** -(torch.arange(width // 4) / (width // 4)).double())
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = axis.repeat(side, 1), axis.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1).float()
