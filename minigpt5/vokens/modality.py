"""What a reply may hold beside text."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from minigpt5.painters import Painter
from minigpt5.vokens.connector import Connector


@dataclass(frozen=True)
class Modality:
    """A kind of output beside text: the block of tokens that asks for one, and what makes it of their states.

    Args:
        name: as in "image".
        tokens: ids of the block; the first is chosen, the others follow by themselves.
        connector: of the block's features to what the painter is conditioned on.
        painter: makes the output.
    """

    name: str
    tokens: tuple[int, ...]
    connector: Connector
    painter: Painter

    def conditioning(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """The painter's tensors by its own names, of features `(blocks, tokens, width)` where the connector is.

        Raises:
            ValueError: if the connector does not make what the painter wants.
        """
        made = self.connector.conditioning(features.to(dtype=self.connector.dtype))
        self.painter.check_conditioning(made)
        dtype = self.painter.denoiser.dtype
        return {name: value.to(dtype) for name, value in made.items()}
