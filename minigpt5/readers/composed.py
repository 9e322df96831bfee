"""Vision-language models of parts: encoders of pictures, a connector and a language model, all three of transformers.

LLaVA of transformers, of which everything may be another: several encoders, a Q-Former, any connector of `CONNECTORS`,
and layers of the language model that know pictures from words. `minigpt5.readers.compose` makes them of parts that are
there; a system of the field is one file each beside this one.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn.functional import interpolate
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple

from minigpt5.readers.additions import add_post_norms, add_visual_experts
from minigpt5.readers.composed_processor import ComposedProcessor
from minigpt5.readers.connectors import CONNECTORS, Connector
from minigpt5.readers.generic import Reader, behind_head


@strict
class ComposedConfig(LlavaConfig):
    """LLaVA's configuration, and what of it is another.

    Args:
        connector: one of `CONNECTORS`.
        connector_options: what the connector takes besides.
        more_vision_configs: of further encoders, as dictionaries. Where the configurations have `image_mean` and
            `image_std`, each encoder is given pictures that are normalized by its own.
        qformer_config: of a Q-Former that reads the last encoder, whose own patches are then not seen.
        num_query_tokens: the Q-Former's queries.
        framed_pictures: whether a learnt vector stands before each picture's tokens and one behind them.
        vision_feature_layer: of whose states a picture's features are; `None` is the last, behind its norm.
        visual_expert: whether each linear layer of the language model has a second matrix for pictures, all patches of
            which then stand at one position (CogVLM).
        post_norm: whether a norm stands behind each attention (TinyGPT-V).
        lm_head_bias: whether the language model's head has a bias.

    `image_seq_length`, the tokens of a picture, is counted here.

    Raises:
        ValueError: for a connector that there is not, or a number of patches that it cannot take.
    """

    model_type = "minigpt5_composed"

    connector: str = "two_layers"
    connector_options: dict | None = None
    more_vision_configs: list | None = None
    qformer_config: dict | None = None
    num_query_tokens: int = 0
    framed_pictures: bool = False
    vision_feature_layer: int | None = -2
    visual_expert: bool = False
    post_norm: bool = False
    lm_head_bias: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.connector not in CONNECTORS:
            raise ValueError(f"connector must be one of {', '.join(CONNECTORS)}, got {self.connector!r}")
        wanted, given = CONNECTORS[self.connector].options, tuple(self.connector_options or ())
        if sorted(given) != sorted(wanted):
            told = " and ".join(wanted) or "none"
            raise ValueError(f"connector_options of {self.connector} are {told}, got {' and '.join(given) or 'none'}")
        patches = _grid(self.vision_config) ** 2 + (self.vision_feature_select_strategy == "full")
        self.image_seq_length = CONNECTORS[self.connector].tokens(self, patches) + 2 * self.framed_pictures

    @property
    def encoder_configs(self) -> list[Any]:
        """Of all encoders."""
        return [self.vision_config, *(AutoConfig.for_model(**each) for each in self.more_vision_configs or ())]

    @property
    def feature_widths(self) -> list[int]:
        """Widths of the features that the connector is given."""
        widths = [_width(config) for config in self.encoder_configs]
        return widths if self.qformer_config is None else [*widths[:-1], self.qformer_config["hidden_size"]]


def _grid(config: Any) -> int:
    """Patches on a side.

    Raises:
        ValueError: for an encoder that has no patches.
    """
    if not (hasattr(config, "image_size") and hasattr(config, "patch_size")):
        raise ValueError(f"an encoder of the kind {config.model_type} says no image_size and patch_size, so no patches")
    if not (isinstance(config.image_size, int) and isinstance(config.patch_size, int)):
        raise ValueError(
            f"an encoder of the kind {config.model_type} says image_size {config.image_size} and patch_size "
            f"{config.patch_size}; each has to be one number"
        )
    stages = len(config.depths) if config.model_type == "convnext" else 1
    return config.image_size // (config.patch_size * 2 ** (stages - 1))


def _width(config: Any) -> int:
    return config.hidden_sizes[-1] if config.model_type == "convnext" else config.hidden_size


def _encoder(config: Any) -> Any:
    if not isinstance(config, Blip2VisionConfig):
        return AutoModel.from_config(config)
    model = Blip2VisionModel(config)
    # LAVIS' norm behind the ViT has another epsilon than its blocks, see `MiniGPT4ForConditionalGeneration`.
    model.post_layernorm.eps = getattr(config, "post_layernorm_eps", config.layer_norm_eps)
    return model


class ComposedModel(LlavaModel):
    """The model without its head."""

    config: ComposedConfig

    def __init__(self, config: ComposedConfig):
        super(LlavaModel, self).__init__(config)
        self.vision_tower, *more = map(_encoder, config.encoder_configs)
        self.more_vision_towers = nn.ModuleList(more)
        if config.qformer_config is not None:
            self.qformer = Blip2QFormerModel(Blip2QFormerConfig(**config.qformer_config))
            self.query_tokens = nn.Parameter(
                torch.empty(1, config.num_query_tokens, config.qformer_config["hidden_size"])
            )
        self.multi_modal_projector = CONNECTORS[config.connector](config)
        self.language_model = AutoModel.from_config(config.text_config)
        if config.visual_expert:
            add_visual_experts(self.language_model)
        if config.post_norm:
            add_post_norms(self.language_model)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        text: Any = self.config.text_config
        std = getattr(text, "initializer_range", None) or getattr(text, "init_std", 0.02)  # as OPT calls it
        if isinstance(module, Connector):
            module.init_parameters(std)
        if module is self and self.config.qformer_config is not None:
            nn.init.normal_(self.query_tokens, std=std)

    def picture_features(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """What the encoders see in pictures `(pictures, 3, height, width)`: `(pictures, patches, width)` of each.

        The last is the Q-Former's, if there is one. Encoders of other picture sizes see the picture resized to theirs.
        """
        towers = [self.vision_tower, *self.more_vision_towers]
        features = [self._seen(tower, pixel_values) for tower in towers]
        if self.config.qformer_config is not None:
            queries = self.query_tokens.expand(len(pixel_values), -1, -1)
            read = self.qformer(query_embeds=queries, encoder_hidden_states=features[-1])
            features[-1] = read.last_hidden_state.to(features[-1].dtype)
        return features

    def _seen(self, tower: Any, pixels: torch.Tensor) -> torch.Tensor:
        config, first, layer = tower.config, self.config.vision_config, self.config.vision_feature_layer
        norms = [getattr(each, name, None) for each in (first, config) for name in ("image_mean", "image_std")]
        if None not in norms and norms[:2] != norms[2:]:
            mean, std, own_mean, own_std = (pixels.new_tensor(norm).view(3, 1, 1) for norm in norms)
            pixels = (pixels * std + mean - own_mean) / own_std
        # Encoders of patches whose positions can be stretched see as many as the first one does.
        side = _grid(first) * config.patch_size if config.model_type == "dinov2" else config.image_size
        if pixels.shape[-1] != side:
            pixels = interpolate(pixels, (side, side), mode="bicubic")
        whole = self.config.vision_feature_select_strategy == "full"
        if config.model_type == "convnext":
            grid = _grid(first)
            states = interpolate(tower(pixels).last_hidden_state, (grid, grid), mode="nearest").flatten(2).mT
            # In the place of a class token.
            return torch.cat([states.mean(1, keepdim=True), states], dim=1) if whole else states
        output = tower(pixels, output_hidden_states=layer is not None)
        states = output.last_hidden_state if layer is None else output.hidden_states[layer]
        if layer is None and isinstance(tower, CLIPVisionModel):
            states = tower.post_layernorm(states)
        return states if whole else states[:, 1:]

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """The tokens of pictures, `pooler_output`: one `(tokens, hidden)` a picture."""
        features = self.picture_features(pixel_values.to(self.dtype))
        # As LLaVA has them: a list, a picture each.
        tokens: Any = list(self.multi_modal_projector(features))
        return BaseModelOutputWithPooling(last_hidden_state=features[0], pooler_output=tokens)

    @wraps(LlavaModel.forward)
    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        """See `LlavaModel.forward`.

        Raises:
            ValueError: with visual experts, for keys and values of before without `position_ids`.
        """
        if self.config.visual_expert and input_ids is not None:
            _, expert = self._place_in_picture(input_ids)
            if expert.any():
                kwargs["picture_tokens"] = expert
            if kwargs.get("position_ids") is None:
                cache = kwargs.get("cache", kwargs.get("past_key_values"))
                if cache is not None and cache.get_seq_length():
                    raise ValueError(
                        "behind what was read before, position_ids must be given: the patches of a picture stand at "
                        "one position, and how many pictures there were cannot be told from keys and values"
                    )
                kwargs["position_ids"] = self.positions(input_ids, kwargs.get("attention_mask"))
        return super().forward(input_ids=input_ids, **kwargs)

    def positions(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Where the tokens `(batch, length)` of a prompt stand, from zero.

        With visual experts all patches of a picture stand at one position (arXiv 2311.03079, section 2.1).
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        if self.config.visual_expert:
            number, _ = self._place_in_picture(input_ids)
            framed = int(self.config.framed_pictures)
            mask = mask * ((number <= framed) | (number == self.config.image_seq_length - 1) & (framed == 1))
        return (mask.cumsum(1) - 1).clamp(min=0)

    def _place_in_picture(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The number of each token among its picture's, -1 for words; and which of them go by the visual expert.

        The vector behind a picture's tokens goes by the language model's, as in the published code.
        """
        here = input_ids == self.config.image_token_id
        length = self.config.image_seq_length
        number = torch.where(here, (here.cumsum(1) - 1) % length, -1)
        return number, here & (number < length - 1) if self.config.framed_pictures else here


class ComposedForConditionalGeneration(LlavaForConditionalGeneration):
    """Encoders, a connector and a language model with its head."""

    config: ComposedConfig
    config_class = ComposedConfig

    def __init__(self, config: ComposedConfig):
        super(LlavaForConditionalGeneration, self).__init__(config)
        self.model = ComposedModel(config)
        text: Any = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=config.lm_head_bias)
        words = self.model.language_model
        table = words.get_input_embeddings()
        if table.embedding_dim != text.hidden_size:
            raise ValueError(
                f"{type(words).__name__} has embeddings of width {table.embedding_dim} before layers of width "
                f"{text.hidden_size}; a language model to be composed has one width"
            )
        name = next(name for name, module in words.named_modules() if module is table)
        self._tied_weights_keys = {"lm_head.weight": f"model.language_model.{name}.weight"}
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        self.model._init_weights(module)

    @can_return_tuple
    @wraps(LlavaForConditionalGeneration.forward)
    def forward(self, input_ids: Any = None, *, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """See `LlavaForConditionalGeneration.forward`; logits are scaled and capped as the language model does it."""
        options: Any = kwargs | {"return_dict": True}
        output: Any = super().forward(input_ids=input_ids, **options)
        text: Any = self.config.text_config
        logits = behind_head(output.logits, text)
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=text.vocab_size, **kwargs)
        return type(output)(**{**output, "loss": loss, "logits": logits})

    def _prepare_position_ids_for_generation(self, inputs_tensor: torch.Tensor, model_kwargs: dict) -> torch.Tensor:
        ids = model_kwargs.get("input_ids", inputs_tensor)
        if not self.config.visual_expert or ids.is_floating_point():
            return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)
        return self.model.positions(ids, model_kwargs.get("attention_mask"))


class ComposedReader(Reader):
    """Knows where a model with visual experts has the patches of a picture stand."""

    def positions(self, inputs: BatchFeature) -> torch.Tensor:
        """See `Reader.positions`."""
        return self.body.positions(inputs["input_ids"], inputs["attention_mask"])


AutoConfig.register(ComposedConfig.model_type, ComposedConfig)
AutoModelForImageTextToText.register(ComposedConfig, ComposedForConditionalGeneration)
AutoProcessor.register(ComposedConfig, ComposedProcessor)
