"""Today's connector: as many features as vokens, by a bidirectional encoder as wide as the reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock
from torch import nn
from torch.nn.functional import layer_norm

from minigpt5.painters import TrainablePainter
from minigpt5.vokens.connector import Connector


class QueryConnector(Connector):
    """A bidirectional transformer encoder, Linear–GELU–Linear, and a norm of the text features' scale.

    In the manner of MetaQuery (arXiv 2504.06256, section 3) and OpenUni (arXiv 2505.23661): the vokens are queries, 64
    to 256 of them, that the reader takes in at once, and each becomes one feature.

    Args:
        voken_dim: width of the states, all layers of the reader together.
        text_dim: width of the text features.
        text_length: number of vokens, and so of features.
        reader_layers: layers of the reader whose states lie side by side, as indices into its `hidden_states`.
        width: of the encoder, by default that of the reader.
        num_layers: of the encoder; 6 in OpenUni, 24 in MetaQuery.
        head_dim: width of an attention head; must divide `width`.
        pooled_dims: widths of pooled vectors that the painter wants besides, by their names.
        sequence_dims: widths of further sequences of features that it wants, by their names.

    Raises:
        ValueError: if layers or heads do not divide the width.
    """

    one_feature_a_voken = True
    _supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["BasicTransformerBlock"]
    _repeated_blocks: ClassVar[list[str]] = ["BasicTransformerBlock"]

    @register_to_config
    def __init__(
        self,
        voken_dim: int,
        text_dim: int,
        text_length: int = 64,
        reader_layers: Sequence[int] = (-1,),
        width: int | None = None,
        num_layers: int = 6,
        head_dim: int = 64,
        pooled_dims: dict[str, int] | None = None,
        sequence_dims: dict[str, int] | None = None,
    ):
        super().__init__()
        if not reader_layers or voken_dim % len(reader_layers):
            raise ValueError(f"voken_dim is {voken_dim}, which {len(reader_layers)} reader_layers do not divide")
        width = voken_dim // len(reader_layers) if width is None else width
        if width % head_dim:
            raise ValueError(f"head_dim must divide the width, got {head_dim} for a width of {width}")
        self.proj_in = nn.Linear(voken_dim, width)
        # Without them null features, which are all alike, would make features that are all alike.
        self.positions = nn.Parameter(0.02 * torch.randn(1, text_length, width))
        self.blocks = nn.ModuleList(
            BasicTransformerBlock(width, width // head_dim, head_dim, activation_fn="gelu", attention_bias=True)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.proj_out = nn.Sequential(nn.Linear(width, text_dim), nn.GELU(), nn.Linear(text_dim, text_dim))
        self.norm_out = nn.LayerNorm(text_dim)
        self.gradient_checkpointing = False
        self.add_heads(text_dim, pooled_dims, sequence_dims)

    def forward(self, voken_features: torch.Tensor) -> torch.Tensor:
        """Map `(blocks, text_length, voken_dim)` to `(blocks, text_length, text_dim)`.

        Raises:
            ValueError: for features of another shape.
        """
        settings: Any = self.config
        wanted = (settings.text_length, settings.voken_dim)
        if voken_features.shape[1:] != wanted:
            given = tuple(voken_features.shape)
            raise ValueError(f"voken features are (blocks, {wanted[0]}, {wanted[1]}), got shape {given}")
        # Layers of a reader differ in scale by orders of magnitude.
        layers = voken_features.to(self.positions.dtype).unflatten(-1, (len(settings.reader_layers), -1))
        hidden = self.proj_in(layer_norm(layers, layers.shape[-1:]).flatten(2)) + self.positions
        checkpointed: Any = self._gradient_checkpointing_func
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpointed(block, hidden)
            else:
                hidden = block(hidden)
        return self.norm_out(self.proj_out(self.norm(hidden)))

    @torch.no_grad()
    def take_scale_of(self, text_features: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        """Begin where text features lie: the last norm takes the mean and standard deviation of each channel.

        Args:
            text_features: of captions, `(captions, length, text_dim)`.
            mask: `(captions, length)`, 0 where there is none.

        Raises:
            ValueError: for features of another width, none at all, or some that are not finite.
        """
        width = self.norm_out.weight.shape[0]
        if text_features.ndim != 3 or text_features.shape[-1] != width:
            raise ValueError(f"text features are (captions, length, {width}), got {tuple(text_features.shape)}")
        features = (text_features.flatten(0, 1) if mask is None else text_features[mask.bool()]).double()
        if len(features) == 0 or not features.isfinite().all():
            got = "NaN or infinity among them" if len(features) else "none"
            raise ValueError(f"a scale is measured from finite text features, got {got}")
        self.norm_out.bias.copy_(features.mean(0))
        self.norm_out.weight.copy_(features.std(0, correction=0))


# Of things and places of all kinds, in the manner of data sets of captions.
CAPTIONS = (
    "a dog runs along the beach with a stick in its mouth",
    "two women talk at a small table outside a café",
    "a plate of rice, beans and grilled vegetables",
    "an old stone bridge over a river in autumn",
    "a red bus in the traffic of a rainy city at night",
    "portrait of a boy in a blue jacket, smiling",
    "snow on the mountains behind a wooden house",
    "a vase of yellow tulips by the window",
    "children play football in front of a school",
    "an astronaut floats above the earth, digital painting",
    "a black and white photograph of an empty train station",
    "three sheep on a green hill under dark clouds",
)


def measure_scale(connector: QueryConnector, painter: TrainablePainter, captions: Sequence[str] = CAPTIONS) -> None:
    """Measure the scale of the painter's text features, once, before the connector is trained.

    Raises:
        ValueError: if the painter has no text encoder.
    """
    with torch.no_grad():
        features = painter.encode_captions(captions)
    connector.take_scale_of(features["prompt_embeds"], features.get("mask"))
