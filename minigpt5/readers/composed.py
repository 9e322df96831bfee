"""Vision-language models of parts: encoders of pictures, a connector and a language model, all three of transformers.

LLaVA of transformers, of which everything but the connector may be another: several encoders, a Q-Former, any connector
of `CONNECTORS`, and layers of the language model that know pictures from words. A system of the field is a `System`,
one file each beside this one; `compose` makes a model of it from parts that are there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from accelerate import init_empty_weights
from huggingface_hub.dataclasses import strict
from PIL import Image, ImageOps
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
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.tokenization_utils_base import AddedToken

from minigpt5.readers.additions import VisualExpert, add_post_norms, add_visual_experts
from minigpt5.readers.connectors import CONNECTORS, Connector
from minigpt5.readers.generic import Reader

# Around what a picture does not fill of a square: the mean of CLIP's pictures.
MARGIN = (123, 117, 104)


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
    """Patches on a side."""
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
        std = text.initializer_range
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
        if getattr(config, "image_mean", None) != getattr(first, "image_mean", None):
            (mean, std), (own_mean, own_std) = (
                [pixels.new_tensor(getattr(each, name)).view(3, 1, 1) for name in ("image_mean", "image_std")]
                for each in (first, config)
            )
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
        """See `LlavaModel.forward`."""
        if self.config.visual_expert and input_ids is not None:
            _, expert = self._place_in_picture(input_ids)
            if expert.any():
                kwargs["picture_tokens"] = expert
            if kwargs.get("position_ids") is None and kwargs.get("cache", kwargs.get("past_key_values")) is None:
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
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        self.model._init_weights(module)

    def _prepare_position_ids_for_generation(self, inputs_tensor: torch.Tensor, model_kwargs: dict) -> torch.Tensor:
        ids = model_kwargs.get("input_ids", inputs_tensor)
        if not self.config.visual_expert or ids.is_floating_point():
            return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)
        return self.model.positions(ids, model_kwargs.get("attention_mask"))


class ComposedProcessor(ProcessorMixin):
    """An image processor and a tokenizer; a picture's mark is repeated as often as the connector makes tokens.

    Args:
        image_processor: that makes squares of one size, the first encoder's.
        tokenizer: with `image_token` among its special tokens.
        image_seq_length: tokens of a picture, the model's.
        sub_pictures: whether a picture is read as five: the whole one padded to a square, and its four quarters
            (SPHINX, arXiv 2311.07575, section 3.4).
        image_token: what stands for a picture in a text.
        chat_template: how conversations are written.
    """

    def __init__(
        self,
        image_processor,
        tokenizer,
        image_seq_length: int = 576,
        sub_pictures: bool = False,
        image_token: str = "<image>",
        chat_template: str | None = None,
    ):
        self.image_seq_length, self.sub_pictures, self.image_token = image_seq_length, sub_pictures, image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @property
    def model_input_names(self) -> list[str]:
        """What a model is given of its output."""
        return ["input_ids", "attention_mask", "pixel_values"]

    def __call__(
        self, images: Any = None, text: str | Sequence[str] = (), return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Texts and the pictures of their marks, a list or a list of lists, as the model's inputs.

        Args:
            kwargs: of the tokenizer.

        Raises:
            ValueError: if there are fewer or more pictures than marks.
        """
        texts = [text] if isinstance(text, str) else list(text)
        rows = images if isinstance(images, (list, tuple)) else [] if images is None else [images]
        pictures = [one for row in rows for one in (row if isinstance(row, (list, tuple)) else [row])]
        marks = sum(each.count(self.image_token) for each in texts)
        if marks != len(pictures):
            raise ValueError(f"the text has {marks} mark(s) {self.image_token} but {len(pictures)} picture(s) came")
        views = [view for picture in pictures for view in self.views(picture)]
        every = self.image_token * self.image_seq_length * (5 if self.sub_pictures else 1)
        made = dict(self.tokenizer([each.replace(self.image_token, every) for each in texts], **kwargs))
        if views:
            made["pixel_values"] = self.image_processor(views, return_tensors=return_tensors)["pixel_values"]
        return BatchFeature(made, tensor_type=return_tensors)

    def views(self, picture: Image.Image) -> list[Image.Image]:
        """The pictures that one is read as."""
        if not self.sub_pictures:
            return [picture]
        size: Any = self.image_processor.size
        side = size["height"] if "height" in size else size["shortest_edge"]
        square = ImageOps.pad(picture, (2 * side, 2 * side), Image.Resampling.BICUBIC, color=MARGIN)
        corners = [(0, 0), (side, 0), (0, side), (side, side)]
        return [square, *(square.crop((x, y, x + side, y + side)) for x, y in corners)]


class ComposedReader(Reader):
    """Knows where a model with visual experts has the patches of a picture stand."""

    def positions(self, inputs: BatchFeature) -> torch.Tensor:
        """See `Reader.positions`."""
        return self.body.positions(inputs["input_ids"], inputs["attention_mask"])


AutoConfig.register(ComposedConfig.model_type, ComposedConfig)
AutoModelForImageTextToText.register(ComposedConfig, ComposedForConditionalGeneration)
AutoProcessor.register(ComposedConfig, ComposedProcessor)


@dataclass(frozen=True)
class System:
    """What a system of the field is, whatever sizes its parts have.

    Args:
        name: what it is called.
        chat_template: how its conversations are written, `<image>` for a picture; `None` is MiniGPT-4's dialogue.
        settings: of `ComposedConfig`, besides the parts' configurations.
        encoders: how many it has.
        text_settings: what the language model's configuration has to say.
        sub_pictures: whether a picture is read as five, see `ComposedProcessor`.
        special_tokens: of its conversations, which the tokenizer is to have.
    """

    name: str
    chat_template: str | None
    settings: Mapping[str, Any]
    encoders: int = 1
    text_settings: Mapping[str, Any] = field(default_factory=dict)
    sub_pictures: bool = False
    special_tokens: tuple[str, ...] = ()

    def config(self, text: Any, *encoders: Any, **settings: Any) -> ComposedConfig:
        """The configuration of a model with such parts.

        Args:
            text, encoders: configurations of transformers; one encoder beside the first is told by its dictionary.
            settings: in the place of the system's own.

        Raises:
            ValueError: for another number of encoders, or what `ComposedConfig` does not take.
        """
        if len(encoders) != self.encoders:
            raise ValueError(f"{self.name} has {self.encoders} encoder(s) of pictures, got {len(encoders)}")
        first, *more = encoders
        settings = {**self.settings, **settings}
        text = copy.deepcopy(text)
        for name, value in self.text_settings.items():
            setattr(text, name, value)
        return ComposedConfig(
            text_config=text,
            vision_config=first,
            more_vision_configs=[each.to_dict() for each in more] or None,
            tie_word_embeddings=text.tie_word_embeddings,
            **settings,
        )

    def empty(self, text: Any, *encoders: Any, **settings: Any) -> ComposedForConditionalGeneration:
        """A model of such parts on the meta device, to be counted."""
        with init_empty_weights(include_buffers=False):
            return ComposedForConditionalGeneration(self.config(text, *encoders, **settings))

    def processor(
        self, config: ComposedConfig, image_processor: Any, tokenizer: PreTrainedTokenizerBase
    ) -> ComposedProcessor:
        """The processor of a model."""
        return ComposedProcessor(
            image_processor, tokenizer, config.image_seq_length, self.sub_pictures, chat_template=self.chat_template
        )


@torch.no_grad()
def compose(
    system: System,
    language_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoders: Sequence[PreTrainedModel],
    image_processor: Any,
    blip2: Any = None,
    seed: int = 0,
    **settings: Any,
) -> tuple[ComposedForConditionalGeneration, ComposedProcessor]:
    """A model of a system from parts that are there, and its processor; only what stands between them is new.

    The parts' weights are used, not copied. Visual experts begin as the language model's own matrices.

    Args:
        language_model: a causal language model.
        tokenizer: its tokenizer, to which the picture's mark is added.
        encoders: of pictures, without the one that a Q-Former reads.
        image_processor: of the first encoder.
        blip2: a BLIP-2 or MiniGPT-4, whose encoder, Q-Former and, where it fits, projection are taken.
        seed: of what is new.
        settings: of `ComposedConfig`, in the place of the system's own.

    Raises:
        ValueError: for too few or too many encoders, or a Q-Former that is missing or has no use.
    """
    needs = system.settings["connector"] in ("two_projections", "mixed")
    if needs != (blip2 is not None):
        raise ValueError(f"{system.name} {'needs a BLIP-2 for its Q-Former' if needs else 'has no Q-Former'}")
    if needs:
        encoders = [*encoders, blip2.vision_model]
        settings |= {"qformer_config": blip2.config.qformer_config.to_dict()}
        settings |= {"num_query_tokens": blip2.config.num_query_tokens}
    marks = ["<image>", *system.special_tokens]
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    head: Any = language_model.get_output_embeddings()
    config = system.config(
        language_model.config,
        *(each.config for each in encoders),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        lm_head_bias=head.bias is not None,
        **settings,
    )
    with init_empty_weights(include_buffers=False):
        model = ComposedForConditionalGeneration(config)
    body = model.model
    _take(model.lm_head, head)
    _take(body.language_model, language_model.base_model)
    for own, given in zip([body.vision_tower, *body.more_vision_towers], encoders, strict=True):
        _take(own, given)
    if needs:
        _take(body.qformer, blip2.qformer)
        body.query_tokens = blip2.query_tokens
        first = getattr(body.multi_modal_projector, "first", None)
        if first is not None and first.weight.shape == blip2.language_projection.weight.shape:
            _take(first, blip2.language_projection)
    dtype, device = head.weight.dtype, head.weight.device
    new = [each for each in model.modules() if any(one.is_meta for one in each.parameters(recurse=False))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in new:
            module.to_empty(device="cpu", recurse=False)
        for module in new:
            model._init_weights(module)
    for module in new:
        module.to(device, dtype)
    for module in model.modules():
        if isinstance(module, VisualExpert):
            module.vision.load_state_dict(module.language.state_dict())
    model.tie_weights()
    table: Any = model.get_input_embeddings()
    if len(tokenizer) > len(table.weight):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if language_model.generation_config is not None:
        model.generation_config = copy.deepcopy(language_model.generation_config)
    return model.eval(), system.processor(config, image_processor, tokenizer)


def _take(own: nn.Module, given: nn.Module) -> None:
    """Put a part's weights into a module without memory, which may have more."""
    state = given.state_dict()
    for name, module in own.named_modules():
        if isinstance(module, VisualExpert):
            for kind in ("weight", "bias"):
                if f"{name}.{kind}" in state:
                    state[f"{name}.language.{kind}"] = state.pop(f"{name}.{kind}")
    own.load_state_dict(state, strict=False, assign=True)
