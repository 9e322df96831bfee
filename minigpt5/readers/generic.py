"""The seam towards what reads: prompts and pictures in, hidden states and the next token's logits out.

Any `AutoModelForImageTextToText` of transformers is read through its own processor and chat template, and any causal
language model through its tokenizer. A family with a way of its own is a short subclass in a file beside this one.

Vokens, connectors, decoding and training know a reader by what stands here and nothing of the model behind it. Where
positions have several axes, where attention has a window or looks ahead within a picture, what scales embeddings and
logits: all that is the reader's alone.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from torch.compiler import set_stance
from torch.nn.functional import pad
from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, StaticCache

from minigpt5.readers.cache import ReaderCache, new_states
from minigpt5.readers.conversation import conversation
from minigpt5.readers.encoding import PromptEncoder
from minigpt5.readers.lora import adapters_on
from minigpt5.readers.prefix import behind_prefix, prefix_of
from minigpt5.readers.prompts import Prompt, PromptTooLongError, as_batch
from minigpt5.utils.images import to_rgb

# The room of compiled steps is a multiple of so many tokens, so that few sizes have a graph of their own.
ROOM = 256
# Of so many sizes of replies the room is kept; of more, that which was not used for longest is given up.
KEPT_ROOMS = 8
# Layers that remember keys and values, which can be cut back; others remember a state that cannot.
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
# What logits are multiplied by (Cohere, Falcon-H1, Muse) and divided by (Granite, Inkling), as configurations call it.
_MULTIPLIED = ("logit_scale", "lm_head_multiplier", "output_multiplier")
_DIVIDED = ("logits_scaling", "logits_mup_width_multiplier")
# The same of those that mean something else by such a name; MPT has a scale that it does not use.
_OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "hyperclovax": (("logits_scaling",), ()),
    "mpt": ((), ()),
}


class States(NamedTuple):
    """Hidden states `(batch, length, …)`.

    `last` are the last layer's, behind the final norm: logits are made of them. `features` are what a connector reads,
    those of the reader's `layers` side by side; by default the same tensor.
    """

    last: torch.Tensor
    features: torch.Tensor


class Reader(PromptEncoder):
    """A model and its processor as that which reads and speaks.

    Args:
        model: a vision-language model or a causal language model.
        processor: its processor, or its tokenizer, to which `add_vokens` has added the vokens.
        layers: whose states a connector reads, as indices into `hidden_states`; -1 is the last.

    Raises:
        ValueError: if the tokenizer has no vokens, or the model is an encoder-decoder or has no body without its head.
    """

    # Whether what comes later leaves the states of what was read before as they are.
    resumes: ClassVar[bool] = True
    # The token type of what is no picture, where a model's attention looks ahead in some types.
    text_type: ClassVar[int] = 0

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        layers: Sequence[int] = (-1,),
    ):
        super().__init__(model, processor)
        self.layers = tuple(layers)
        self._rooms: dict[tuple, StaticCache] = {}
        self.config: Any = model.config.get_text_config(decoder=True)
        if getattr(self.config, "is_encoder_decoder", False):
            raise ValueError(f"{type(model).__name__} is an encoder-decoder; a reader is a decoder-only model")
        if self.body is model:
            raise ValueError(f"{type(model).__name__} cannot be read: its layers do not stand apart from its head")

    @property
    def context_length(self) -> int:
        """See the function of that name."""
        return context_length(self.model)

    def check_length(self, length: int) -> None:
        """See that a prompt of so many tokens fits.

        Raises:
            PromptTooLongError: if it is longer than the model's context.
        """
        if length + self.n_vokens > self.context_length:
            raise PromptTooLongError(
                f"the prompt is {length} tokens long, but the model's context holds {self.context_length}, "
                f"of which {self.n_vokens} are kept for a picture; shorten it"
            )

    @property
    def feature_width(self) -> int:
        """Width of the states that a connector reads."""
        return len(self.layers) * self.model.get_output_embeddings().weight.shape[1]

    @property
    def language_model(self) -> Any:
        """The layers that predict the next token, without what looks at pictures."""
        return self.model.get_submodule(self._language_model_name)

    @cached_property
    def _language_model_name(self) -> str:
        return language_model_name(self.model)

    @property
    def picture_parts(self) -> list[nn.Module | torch.Tensor]:
        """All that `picture_features` depends on; empty where a picture's features cannot be told from others'."""
        return []

    def new_cache(self, cut: bool = False) -> ReaderCache:
        """An empty cache for a batch.

        Args:
            cut: whether it is to be cut back later, and so forgets nothing that fell out of a window.
        """
        return ReaderCache(new_states() if cut and self._can_be_cut else new_states(self.config))

    @contextmanager
    def reply_cache(self, inputs: BatchFeature, length: int) -> Iterator[ReaderCache]:
        """An empty cache for the replies to a batch.

        That of a compiled language model has room for all that may come, so that every token is read by the same graph.
        It lies where that of earlier replies of the same size lay, which a graph of CUDA keeps to.

        Args:
            length: tokens that a reply may take.
        """
        if not self._reads_in_fixed_room:
            yield self.new_cache()
            return
        mask = inputs["attention_mask"]
        rows, read = mask.shape
        # A row ends with its context, of which padding takes nothing.
        longest = min(read + length, self.context_length + int((mask == 0).sum(1).max()))
        room = -(-longest // ROOM) * ROOM
        # What was made in inference mode cannot be written to outside of it.
        key = (rows, room, mask.device, self.model.dtype, torch.is_inference_mode_enabled())
        states = self._rooms.pop(key, None) or StaticCache(self.config, room)
        try:
            yield ReaderCache(states)
        finally:
            states.reset()
            self._rooms[key] = states
            if len(self._rooms) > KEPT_ROOMS:
                del self._rooms[next(iter(self._rooms))]

    @property
    def _compiled(self) -> bool:
        return self.language_model._compiled_call_impl is not None

    @property
    def _reads_in_fixed_room(self) -> bool:
        can = getattr(self.language_model, "_can_compile_fullgraph", False) and self.resumes and self._can_be_cut
        return can and self._compiled and prefix_of(self.model) is None

    @property
    def takes_prefix(self) -> bool:
        """Whether every layer looks back at the beginning, wherever it is, so that keys and values may stand there."""
        return self.resumes and self._can_be_cut and not any(self.new_cache().states.is_sliding)

    @property
    def _can_be_cut(self) -> bool:
        """Whether all layers remember keys and values; recurrent ones cannot go back."""
        return set(getattr(self.config, "layer_types", None) or ()) <= _ATTENTION

    def prefill(
        self, inputs: BatchFeature, cache: ReaderCache | None = None, features: torch.Tensor | None = None
    ) -> States:
        """Read a batch of `encode` or `training_batch`, behind what is in the cache already.

        Args:
            cache: is extended; without one nothing is kept, as in training.
            features: the pictures' `picture_features`, where they are known already.
        """
        seen = {name: inputs[name] for name in inputs if name in self._takes and name != "input_ids"}
        seen = {
            name: value.to(self.model.dtype) if value.is_floating_point() else value for name, value in seen.items()
        }
        positions = self.positions(inputs) + (0 if cache is None else cache.next_positions())
        return self._forward(inputs["input_ids"], inputs["attention_mask"], positions, cache, seen)

    def extend(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        cache: ReaderCache | None,
        embeds: torch.Tensor | None = None,
    ) -> States:
        """Read more tokens `(batch, width)`; rows that have none are masked.

        Args:
            mask: 1 where there is a token; `None` if there is one everywhere.
            embeds: what is read in place of the tokens' own embeddings, `(batch, width, hidden)`.
        """
        first = 0 if cache is None else cache.next_positions()
        if mask is None:
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) + first
        else:
            positions = (mask.cumsum(1) - 1).clamp(min=0) + first
        if self._rope_index is not None:
            positions = positions.expand(3, -1, -1)
        return self._forward(ids, mask, positions, cache, {}, embeds)

    def positions(self, inputs: BatchFeature) -> torch.Tensor:
        """Positions of a prompt that stands at the beginning, `(batch, length)` or `(axes, batch, length)`."""
        if self._rope_index is None:
            return (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        known = {"mm_token_type_ids": (inputs["input_ids"] == self.image_token_id).int(), **inputs}
        takes = inspect.signature(self._rope_index).parameters
        return self._rope_index(**{name: value for name, value in known.items() if name in takes})[0]

    @property
    def _rope_index(self) -> Callable | None:
        """What gives the positions of models that count time, height and width apart."""
        return getattr(self.body, "get_rope_index", None)

    def _forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        cache: ReaderCache | None,
        seen: dict[str, torch.Tensor],
        embeds: torch.Tensor | None = None,
    ) -> States:
        known, mask = mask is None, torch.ones_like(ids) if mask is None else mask
        every = (ids, mask, positions) if cache is None else cache.after(ids, mask, positions)
        states, whole_mask = behind_prefix(self.model, None if cache is None else cache.states, every[1])
        full = known if cache is None else cache.full and (known or bool(mask.all()))
        options: dict[str, Any] = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}
        if seen:
            options |= self._token_types(every[0]) | seen
        for name in options.keys() & {"token_type_ids", "mm_token_type_ids"}:
            ahead = whole_mask.shape[1] - options[name].shape[1]
            options[name] = pad(options[name], (ahead, 0), value=self.text_type)
        options[cache_argument(self.body)] = states
        fixed = isinstance(states, StaticCache)
        if fixed:
            whole_mask = pad(whole_mask, (0, states.get_max_length() - whole_mask.shape[1]))
        step = fixed and ids.shape[1] == 1
        # Prompts are of any length, and caches that grow are of another one at every step.
        eager = cache is not None and not step and self._compiled
        with set_stance("force_eager") if eager else nullcontext():
            output = self.body(
                # Whether a mask leaves anything out, models would ask the device at every step; and only where there is
                # none do positions tell transformers that a row is of several conversations.
                attention_mask=None if full and known else whole_mask,
                position_ids=positions,
                use_cache=states is not None,
                output_hidden_states=self.layers != (-1,),
                **options,
            )
        if cache is not None:
            cache.ids, cache.mask, cache.positions = every
            cache.full = full
            if cache.coming is not None:
                cache.pictures, cache.coming = cache.coming, None
        # A graph of CUDA writes the next ones into the same place.
        last = output.last_hidden_state.clone() if step else output.last_hidden_state
        if self.layers == (-1,):
            return States(last, last)
        chosen = [last if layer == -1 else output.hidden_states[layer] for layer in self.layers]
        return States(last, torch.cat(chosen, dim=-1))

    def _token_types(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """What tells text from pictures, of all tokens read, for models whose attention looks ahead in a picture."""
        names = [name for name in ("token_type_ids", "mm_token_type_ids") if name in self._forward_arguments]
        return dict.fromkeys(names, (ids == self.image_token_id).int())

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Vocabulary logits of the last layer's states, in fp32."""
        return next_token_logits(self.model, hidden)

    # A cache that is kept

    def unread(self, prompt: Prompt, images: Any, cache: ReaderCache, device: torch.device) -> BatchFeature:
        """What a kept cache does not hold of one prompt; the cache is cut back to what it holds of it.

        Read behind the cache, it gives what the whole prompt gives. Where the two do not begin alike, or the cache
        cannot be cut, it is emptied and the whole prompt returned.

        Args:
            images: the prompt's pictures, or `None`.
            device: where it is to be read.

        Raises:
            ValueError: if the cache is another reader's.
        """
        if not self.knows(cache, device):
            raise ValueError(
                "the prompt_cache was filled by another model, or with other weights, in another dtype or on another "
                "device; start with a new ReaderCache()"
            )
        (prompt,), (images,) = as_batch([prompt], [images])
        inputs, pictures = self.encode([prompt], [images]), conversation(prompt, images)[1]
        return self.behind(cache, inputs, pictures, self.picture_keys(inputs, pictures), device)

    def behind(
        self, cache: ReaderCache, inputs: BatchFeature, pictures: list[Any], keys: list[bytes], device: torch.device
    ) -> BatchFeature:
        """`unread` of a prompt that is encoded already.

        Args:
            pictures, keys: the prompt's pictures, and their `picture_keys`.
        """
        known, rest = len(cache.pictures), None
        if shared := self.held(cache, inputs, keys):
            rest = self._rest(inputs, shared, pictures[known:])
        if rest is None:
            cache.clear()
            cache.states, cache.source = self.new_cache(cut=True).states, self._source(device)
        else:
            cache.crop(shared)
        cache.coming = keys
        return inputs if rest is None else rest

    def held(self, cache: ReaderCache, inputs: BatchFeature, keys: list[bytes]) -> int:
        """How many of a prompt's first tokens a cache holds, where it can be cut back to them.

        Args:
            keys: the `picture_keys` of the prompt's pictures.
        """
        return self._shared(inputs["input_ids"], cache) if keys[: len(cache.pictures)] == cache.pictures else 0

    def knows(self, cache: ReaderCache, device: torch.device) -> bool:
        """Whether a cache is empty, or was filled by this very model, as it is now, on such a device."""
        return cache.source is None or cache.source == self._source(device)

    def _source(self, device: torch.device) -> tuple:
        """What tells this model and its weights from others, and from themselves before they were changed in place."""
        weights = tuple(
            # What was made in inference mode counts no changes.
            (name, None if weight.is_inference() else weight._version)
            for name, weight in self.model.named_parameters()
        )
        return weakref.ref(self.model), self.model.dtype, device.type, weights, adapters_on(self.model)

    def _shared(self, ids: torch.Tensor, cache: ReaderCache) -> int:
        """How many tokens of a prompt a cache holds, all its pictures among them."""
        prefix = prefix_of(self.model)
        ahead = 0 if prefix is None else prefix.length
        # Of a reading that was broken off, the states may hold more.
        if not self.resumes or len(cache) == 0 or cache.states.get_seq_length() != len(cache) + ahead:
            return 0
        # The last token is always read: its state chooses the next one.
        length = min(len(cache), ids.shape[1] - 1)
        held = cache.ids[0].to(ids.device)
        shared = int((held[:length] == ids[0, :length]).int().cumprod(0).sum())
        cut = held[shared:]
        if self.image_token_id in cut.tolist() or (len(cut) and not self._can_be_cut):
            return 0
        return shared

    def _rest(self, inputs: BatchFeature, shared: int, pictures: list[Any]) -> BatchFeature | None:
        """A prompt behind its first tokens, with the pictures there; `None` if they cannot be told from the others."""
        rest = BatchFeature({name: inputs[name][:, shared:] for name in ("input_ids", "attention_mask")})
        if pictures:
            # By themselves they take as many tokens, unless the family reads several pictures in another way than one.
            alone = self.encode([[{"role": "user", "content": [{"type": "image", "image": p} for p in pictures]}]])
            if (alone["input_ids"] == self.image_token_id).sum() != (rest["input_ids"] == self.image_token_id).sum():
                return None
            rest.update({name: alone[name] for name in alone if name in self._takes and name != "input_ids"})
        return rest

    def picture_keys(self, inputs: BatchFeature, pictures: list[Any]) -> list[bytes]:
        """What tells each picture of a prompt, and how it was read, from others."""
        if not pictures:
            return []
        looks = getattr(getattr(self.processor, "image_processor", None), "to_dict", dict)()
        rgb = [to_rgb(picture) for picture in pictures]
        return [hashlib.sha256(repr((image.size, looks)).encode() + image.tobytes()).digest() for image in rgb]


def context_length(model: PreTrainedModel) -> int:
    """Positions that a language model has; one without positions, such as Bloom, has no end."""
    return getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", sys.maxsize)


def cache_argument(body: nn.Module) -> str:
    """What a model's forward calls the cache, which transformers has renamed."""
    return _cache_argument(type(body))


@lru_cache
def _cache_argument(kind: type[nn.Module]) -> str:
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"


def next_token_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Vocabulary logits of hidden states, in fp32, with what some language models do behind their head."""
    head: Any = model.get_output_embeddings()
    return behind_head(head(hidden).float(), model.config.get_text_config(decoder=True))


def behind_head(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """What a language model of this configuration makes of what its head says: scaled, or capped."""
    multiplied, divided = _OTHERS.get(config.model_type, (_MULTIPLIED, _DIVIDED))
    for name in (name for name in multiplied if hasattr(config, name)):
        logits = logits * getattr(config, name)
    for name in (name for name in divided if hasattr(config, name)):
        logits = logits / getattr(config, name)
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    return logits if cap is None else cap * torch.tanh(logits / cap)


def check_head(model: PreTrainedModel, hidden: torch.Tensor, own: torch.Tensor) -> None:
    """Compare what is made here of a model's last states with what it says itself.

    Args:
        hidden: states `(batch, length, hidden)` of its last layer.
        own: logits `(batch, length, vocabulary)` that it makes of them.

    Raises:
        ValueError: if they are something else: what the model does behind its layers is not known here.
    """
    head: Any = model.get_output_embeddings()
    fits = hidden.shape[-1] == head.weight.shape[1]
    # In half precision they differ by less than that.
    if not fits or not (next_token_logits(model, hidden) - own.float()).norm() <= 0.05 * own.float().norm():
        raise ValueError(
            f"{type(model).__name__} cannot be read: its logits are not those of its output embeddings, so that "
            "what it would say is not known"
        )


def language_model_name(model: PreTrainedModel) -> str:
    """Under which name of a model the layers lie that predict the next token."""
    table = model.get_input_embeddings()
    return next(name for name, module in model.named_modules() if module is table).rpartition(".")[0]
