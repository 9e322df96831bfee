"""Systems of the field as what they are made of, and models of them composed of parts that are there."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import AddedToken

from minigpt5.readers.additions import VisualExpert
from minigpt5.readers.composed import ComposedConfig, ComposedForConditionalGeneration
from minigpt5.readers.composed_processor import ComposedProcessor
from minigpt5.readers.generic import check_head
from minigpt5.utils.meta import empty_weights


@dataclass(frozen=True)
class System:
    """What a system of the field is, whatever sizes its parts have.

    Args:
        name: what it is called.
        chat_template: how its conversations are written, `<image>` for a picture; `None` is MiniGPT-4's dialogue.
        settings: of `ComposedConfig`, besides the parts' configurations.
        encoders: how many it has.
        text_settings: what the language model's configuration has to say, if it knows such settings.
        sub_pictures: whether a picture is read as five, see `ComposedProcessor`.
        special_tokens: of its conversations, which the tokenizer is to have.
        fit: how pictures become square, see `ComposedProcessor`.
    """

    name: str
    chat_template: str | None
    settings: Mapping[str, Any]
    encoders: int = 1
    text_settings: Mapping[str, Any] = field(default_factory=dict)
    sub_pictures: bool = False
    special_tokens: tuple[str, ...] = ()
    fit: str | None = None

    @property
    def has_qformer(self) -> bool:
        """Whether a Q-Former is among its parts, which reads the last of its encoders."""
        return self.settings["connector"] in ("two_projections", "mixed")

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
            if hasattr(text, name):
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
        with empty_weights():
            return ComposedForConditionalGeneration(self.config(text, *encoders, **settings))

    def processor(
        self, config: ComposedConfig, image_processor: Any, tokenizer: PreTrainedTokenizerBase
    ) -> ComposedProcessor:
        """The processor of a model."""
        return ComposedProcessor(
            image_processor,
            tokenizer,
            config.image_seq_length,
            self.sub_pictures,
            chat_template=self.chat_template,
            fit=self.fit,
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
        tokenizer: its tokenizer; to a copy of it the picture's mark is added, and the system's chat template replaces
            its own.
        encoders: of pictures, without the one that a Q-Former reads. Of several kinds, each has to say in its
            configuration how its pictures are normalized, by `image_mean` and `image_std`.
        image_processor: of the first encoder.
        blip2: a BLIP-2 or MiniGPT-4, whose encoder, Q-Former and, for TinyGPT-V, projection are taken.
        seed: of what is new.
        settings: of `ComposedConfig`, in the place of the system's own.

    Raises:
        ValueError: for too few or too many encoders, one that is more than what sees, makes other tokens than one a
            patch or does not say how its pictures are normalized; for a Q-Former that is missing or has no use, or a
            projection of another width; for a language model that the system's additions do not fit, or whose logits
            are not known here.
    """
    needs = system.has_qformer
    if needs != (blip2 is not None):
        raise ValueError(f"{system.name} {'needs a BLIP-2 for its Q-Former' if needs else 'has no Q-Former'}")
    if needs:
        encoders = [*encoders, blip2.vision_model]
        settings |= {"qformer_config": blip2.config.qformer_config.to_dict()}
        settings |= {"num_query_tokens": blip2.config.num_query_tokens}
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = None
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
    if head.weight.device.type != "meta":
        ids = torch.tensor([[1, 2]], device=head.weight.device)
        language_model.eval()
        check_head(language_model, language_model.base_model(ids).last_hidden_state, language_model(ids).logits)
    _check_norms(config)
    _check_tokens(config)
    with empty_weights():
        model = ComposedForConditionalGeneration(config)
    body = model.model
    _take(model.lm_head, head)
    _take(body.language_model, language_model.base_model)
    for own, given in zip([body.vision_tower, *body.more_vision_towers], encoders, strict=True):
        _take_whole(own, given)
    if needs:
        _take_whole(body.qformer, blip2.qformer)
        body.query_tokens = blip2.query_tokens
        first = getattr(body.multi_modal_projector, "first", None)
        if first is not None:
            width = blip2.language_projection.out_features
            if first.out_features != width:
                raise ValueError(
                    f"the projection of {type(blip2).__name__} leads to a width of {width} and not of "
                    f"{first.out_features}: give connector_options of width {width}"
                )
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
    return model.to(device).eval(), system.processor(config, image_processor, tokenizer)


def _check_norms(config: ComposedConfig) -> None:
    """See that encoders which may have learnt from pictures of other means say how theirs are normalized."""
    kinds = {each.model_type for each in config.encoder_configs}
    for each in config.encoder_configs if len(kinds) > 1 else ():
        if None in (getattr(each, "image_mean", None), getattr(each, "image_std", None)):
            raise ValueError(
                f"encoders of several kinds ({', '.join(sorted(kinds))}) see pictures that are normalized by their own "
                f"means: set image_mean and image_std in the configuration of {each.model_type}"
            )


def _check_tokens(config: ComposedConfig) -> None:
    """See that the encoders and the connector make as many tokens of a picture as the processor makes room for."""
    first: Any = config.vision_config
    with torch.device("meta"):
        model = ComposedForConditionalGeneration(config)
    picture = torch.empty(1, 3, first.image_size, first.image_size, device="meta")
    tokens: Any = model.model.get_image_features(picture).pooler_output
    made = len(tokens[0])
    if made != config.image_seq_length:
        kinds = ", ".join(each.model_type for each in config.encoder_configs)
        raise ValueError(
            f"encoders of the kind {kinds} make {made} tokens of a picture and not {config.image_seq_length}: "
            "what is read are a class token and a token for each patch, and nothing else"
        )


def _take_whole(own: nn.Module, given: nn.Module) -> None:
    """Put the weights of a part into a module without memory that is of the same kind.

    Raises:
        ValueError: if some are missing.
    """
    missing = own.state_dict().keys() - given.state_dict().keys()
    if missing:
        raise ValueError(
            f"{type(given).__name__} is no {type(own).__name__}, it has no {min(missing)}: give its vision model alone"
        )
    _take(own, given)


def _take(own: nn.Module, given: nn.Module) -> None:
    """Put a part's weights into a module without memory, which may have more."""
    state = given.state_dict()
    for name, module in own.named_modules():
        if isinstance(module, VisualExpert):
            for kind in ("weight", "bias"):
                if f"{name}.{kind}" in state:
                    state[f"{name}.language.{kind}"] = state.pop(f"{name}.{kind}")
    own.load_state_dict(state, strict=False, assign=True)
