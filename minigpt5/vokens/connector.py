"""What stands between vokens and painter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import nn

from minigpt5.utils.offload import bring_to_device, take_off_device


class Connector(ModelMixin, ConfigMixin):
    """From voken features `(blocks, n_vokens, voken_dim)` to all that a painter is conditioned on.

    A subclass registers `voken_dim`, `text_dim` and `text_length` in its configuration, makes sequence features
    `(blocks, text_length, text_dim)` in `forward`, and calls `add_heads` in `__init__`.
    """

    # Whether there are as many features as vokens, whatever the painter's text encoder makes.
    one_feature_a_voken: ClassVar[bool] = False
    # Parts that the second stage of training leaves as the first made them.
    fixed_in_stage_two: ClassVar[tuple[str, ...]] = ()

    def add_heads(
        self, text_dim: int, pooled_dims: Mapping[str, int] | None, sequence_dims: Mapping[str, int] | None
    ) -> None:
        """Make room for what painters want besides, of these widths by its names.

        Each is a linear map: pooled vectors of the mean of the sequence features, further sequences of each feature.
        """
        pooled, sequences = pooled_dims or {}, sequence_dims or {}
        self.pooled = nn.ModuleDict({name: nn.Linear(text_dim, width) for name, width in pooled.items()})
        self.sequences = nn.ModuleDict({name: nn.Linear(text_dim, width) for name, width in sequences.items()})

    def conditioning(self, voken_features: torch.Tensor) -> dict[str, torch.Tensor]:
        """The painter's tensors by its own names, one row a block: `prompt_embeds`, and what it wants besides."""
        features = self(voken_features)
        made = {"prompt_embeds": features}
        if self.pooled or self.sequences:
            mean = features.mean(1)
            bring_to_device(self)
            made |= {name: head(mean) for name, head in self.pooled.items()}
            made |= {name: head(features) for name, head in self.sequences.items()}
            take_off_device(self)
        return made
