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
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from transformers import BatchFeature, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from minigpt5.readers.cache import ReaderCache
from minigpt5.readers.conversation import ChatTemplate, conversation
from minigpt5.readers.prefix import behind_prefix, prefix_of
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.readers.prompts import Example, Mark, Message, Piece, Prompt, as_batch, check_messages
from minigpt5.readers.vokens import voken_ids
from minigpt5.utils.images import to_rgb, trim_strip

# Layers that remember keys and values, which can be cut back; others remember a state that cannot.
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


class States(NamedTuple):
    """Hidden states `(batch, length, …)`.

    `last` are the last layer's, behind the final norm: logits are made of them. `features` are what a connector reads,
    those of the reader's `layers` side by side; by default the same tensor.
    """

    last: torch.Tensor
    features: torch.Tensor


class Reader:
    """A model and its processor as that which reads and speaks.

    Args:
        model: a vision-language model or a causal language model.
        processor: its processor, or its tokenizer, to which `add_vokens` has added the vokens.
        layers: whose states a connector reads, as indices into `hidden_states`; -1 is the last.

    Raises:
        ValueError: if the tokenizer has no vokens, or the model is an encoder-decoder.
    """

    # Whether what comes later leaves the states of what was read before as they are.
    resumes: ClassVar[bool] = True

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        layers: Sequence[int] = (-1,),
    ):
        self.model, self.processor, self.layers = model, processor, tuple(layers)
        self.tokenizer: PreTrainedTokenizerBase = getattr(processor, "tokenizer", processor)
        self.config = model.config.get_text_config(decoder=True)
        self.voken_ids = voken_ids(self.tokenizer)
        if not self.voken_ids:
            raise ValueError("the tokenizer has no vokens; add them with minigpt5.readers.add_vokens")
        if getattr(self.config, "is_encoder_decoder", False):
            raise ValueError(f"{type(model).__name__} is an encoder-decoder; a reader is a decoder-only model")

    # What it is

    @property
    def n_vokens(self) -> int:
        """Vokens that make one picture."""
        return len(self.voken_ids)

    @property
    def context_length(self) -> int:
        """Positions that the language model has; one without positions, such as Bloom, has no end."""
        return getattr(self.config, "max_position_embeddings", sys.maxsize)

    @property
    def feature_width(self) -> int:
        """Width of the states that a connector reads."""
        return len(self.layers) * self.model.get_output_embeddings().weight.shape[1]

    @property
    def image_token_id(self) -> int | None:
        """Of the token that stands where a picture is read, if it reads pictures."""
        return getattr(self.model.config, "image_token_id", None)

    @property
    def language_model(self) -> PreTrainedModel:
        """The layers that predict the next token, without what looks at pictures."""
        return self.model.get_submodule(language_model_name(self.model))

    @cached_property
    def chat(self) -> ChatTemplate:
        """How a conversation is written."""
        return ChatTemplate(self.processor)

    # What a reply is made of

    @property
    def pad_token_id(self) -> int:
        """What stands where a row has no token; it is masked, so any will do."""
        return self.tokenizer.pad_token_id or 0

    @cached_property
    def eos_token_ids(self) -> set[int]:
        """The tokens of which any ends a reply."""
        settings = getattr(self.model.generation_config, "eos_token_id", None)
        ends = [settings] if isinstance(settings, int) else settings or []
        ends = {*ends, self.tokenizer.eos_token_id, *self._specials.intersection(self._end)}
        return ends - {None}

    @property
    def reply_begin_id(self) -> int:
        """What stands before a reply where repeated tokens are counted: BOS, or what is never said anyhow."""
        bos = self.tokenizer.bos_token_id
        return bos if bos is not None and bos not in self.eos_token_ids else [*self.never_said, self.pad_token_id][0]

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end a reply: the dialogue's mark, where there is no chat template."""
        return ("###",) if self.chat.template is None else ()

    @cached_property
    def never_said(self) -> list[int]:
        """Tokens that no reply is made of: marks of what is read, and vokens that follow from the first."""
        names = [f"{kind}_token_id" for kind in ("image", "video", "audio")]
        marks = {getattr(whose, name, None) for whose in (self.model.config, self.processor) for name in names}
        return [*self.voken_ids[1:], *sorted(mark for mark in marks - {None} if mark < len(self.tokenizer))]

    # Prompts to inputs

    def encode(self, prompts: Sequence[Prompt], images: Sequence[Any] | None = None) -> BatchFeature:
        """Prompts and their pictures as a batch that the model is to answer, padded on the left.

        Words that spell a special token stay words.

        Args:
            images: one list of pictures, or `None`, a prompt, where they do not stand in the prompts.

        Raises:
            TypeError, ValueError: for what is no prompt or picture, where pictures and marks do not match, for pictures
                where none can be read, or for a conversation that the model's chat template does not take.
        """
        batch = zip(*as_batch(list(prompts), images), strict=True)
        return self._batch([self._row(*conversation(prompt, own)) for prompt, own in batch], "left")

    def training_batch(self, items: Sequence[list[Message] | Example]) -> BatchFeature:
        """What is to be learnt, conversations that end in the reply or ready-made examples, padded on the right.

        Pictures of the reply are to be painted: they become vokens, and their own pixels are not read. Scored are the
        reply's text, the first and the last voken of a block, and the reply's end.

        Returns:
            `input_ids`, `attention_mask`, `labels` (batch, length), what the pictures read became, and `targets`, the
            list of pictures to be painted, in order.

        Raises:
            ValueError: where an item has fewer or more pictures than marks.
        """
        rows, targets = [], []
        for item in items:
            prompt, reply, painted = _split(item)
            row = self._row(*conversation(prompt))
            ids = self._reply_ids(reply)
            between = set(self.voken_ids[1:-1])
            row["labels"] = [IGNORE_INDEX] * len(row["input_ids"])
            row["labels"] += [IGNORE_INDEX if i in between else i for i in ids]
            row["input_ids"] = [*row["input_ids"], *ids]
            if "token_type_ids" in row:
                row["token_type_ids"] = [*row["token_type_ids"], *[1] * len(ids)]
            rows.append(row)
            targets += [to_rgb(picture) for picture in painted]
        batch = self._batch(rows, "right")
        batch["targets"] = targets
        return batch

    def _row(self, messages: list[Message], pictures: list[Any]) -> dict[str, Any]:
        """A prompt's ids, and what the processor makes of its pictures, as the model's forward takes it."""
        if pictures and self.image_token_id is None:
            raise ValueError(f"{type(self.model).__name__} reads no pictures, but the prompt holds {len(pictures)}")
        return self._process(self.chat.render(messages), [trim_strip(to_rgb(picture)) for picture in pictures])

    def _process(self, text: str, pictures: list[Any]) -> dict[str, Any]:
        tokenizer = self.tokenizer
        # As transformers has it: what a template writes is whole for a tokenizer, and for a processor if it begins.
        begun = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        begun = begun or (self.processor is tokenizer and self.chat.template is not None)
        made = self._call(text, pictures, add_special_tokens=not begun, return_tensors="pt")
        ids = made["input_ids"][0].tolist()
        if not begun and self._ends_texts:
            ids.pop()
        return {name: value for name, value in made.items() if name in self._takes} | {"input_ids": ids}

    def _call(self, text: str, pictures: list[Any], **options: Any) -> Mapping[str, torch.Tensor]:
        """The processor's own work on one text and its pictures."""
        return self.processor(text=[text], **({"images": [pictures]} if pictures else {}), **options)

    @cached_property
    def _ends_texts(self) -> bool:
        """Whether the tokenizer puts a token behind every text, also behind one that is to go on."""
        plain, whole = (self.tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
        return whole[-1] != plain[-1]

    @cached_property
    def _takes(self) -> set[str]:
        """What the model's forward takes beside ids, masks and positions: pixels and what belongs to them."""
        return set(self._forward_arguments) - {"attention_mask", "token_type_ids", "mm_token_type_ids", "labels"}

    @cached_property
    def _forward_arguments(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.body.forward).parameters)

    def _reply_ids(self, reply: Sequence[Piece]) -> list[int]:
        """A reply's tokens as they stand behind the prompt's, its end among them."""
        lead, _ = self.chat.frame
        block = self.tokenizer.decode(self.voken_ids)
        text = ""
        for piece in reply:
            space = " " * bool(text)
            if piece is Mark.VOKENS:
                text += block
            elif piece.strip():
                text += space + self.chat.plain(piece.strip())
        if lead.strip() or not text.startswith(block):
            text = lead + text
        return [*self._behind_opening(text), *self._end]

    @cached_property
    def _end(self) -> list[int]:
        """The tokens that end a reply: up to the template's first special token, or the tokenizer's own."""
        _, end = self.chat.frame
        ids = self._behind_opening(f"a{end}")[len(self._behind_opening("a")) :]
        for length, number in enumerate(ids, 1):
            if number in self._specials:
                return ids[:length]
        if self.chat.template is None or self.tokenizer.eos_token_id is None:
            return ids
        return [self.tokenizer.eos_token_id]

    @cached_property
    def _specials(self) -> set[int]:
        return {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    def _behind_opening(self, text: str) -> list[int]:
        """A text's tokens where the assistant begins to speak, which is not where a text begins."""
        encode = lambda text: self.tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
        before, both = encode(self.chat.opening), encode(self.chat.opening + text)
        return both[len(before) :] if both[: len(before)] == before else encode(text)

    def _batch(self, rows: list[dict[str, Any]], side: str) -> BatchFeature:
        """Rows padded to one length; what came of their pictures behind one another."""
        length = max(len(row["input_ids"]) for row in rows)

        def padded(values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
            short = [[fill] * (length - len(row)) for row in values]
            pairs = zip(short, values, strict=True)
            return torch.tensor([[*pad, *row] if side == "left" else [*row, *pad] for pad, row in pairs])

        ids = [row["input_ids"] for row in rows]
        batch = BatchFeature({"input_ids": padded(ids, self.pad_token_id)})
        batch["attention_mask"] = padded([[1] * len(row) for row in ids], 0)
        for name, fill in (("labels", IGNORE_INDEX), ("token_type_ids", 0)):
            if name in rows[0]:
                batch[name] = padded([row[name] for row in rows], fill)
        for name in sorted({name for row in rows for name in row if isinstance(row[name], torch.Tensor)}):
            batch[name] = _stack([row[name] for row in rows if name in row])
        return batch

    def unread(self, prompt: Prompt, images: Any, cache: ReaderCache) -> BatchFeature:
        """What a kept cache does not hold of one prompt; the cache is cut back to what it holds of it.

        Read behind the cache, it gives what the whole prompt gives. Where the two do not begin alike, or the cache
        cannot be cut, it is emptied and the whole prompt returned.

        Args:
            images: the prompt's pictures, or `None`.
        """
        (prompt,), (images,) = as_batch([prompt], [images])
        inputs, pictures = self.encode([prompt], [images]), conversation(prompt, images)[1]
        keys = self._picture_keys(inputs, pictures)
        known = len(cache.pictures)
        rest = None
        if keys[:known] == cache.pictures and (shared := self._shared(inputs["input_ids"], cache)):
            rest = self._rest(inputs, shared, pictures[known:])
        if rest is None:
            cache.clear()
            cache.states = self.new_cache(cut=True).states
        else:
            cache.crop(shared)
        cache.pictures = keys
        return inputs if rest is None else rest

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

    def _picture_keys(self, inputs: BatchFeature, pictures: list[Any]) -> list[bytes]:
        """What tells each picture of a prompt, and how it was read, from others."""
        rgb = [to_rgb(picture) for picture in pictures]
        return [hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest() for image in rgb]

    # Reading

    @property
    def picture_parts(self) -> list[nn.Module | torch.Tensor]:
        """All that `picture_features` depends on; empty where a picture's features cannot be told from others'."""
        return []

    @property
    def body(self) -> nn.Module:
        """The model without its head."""
        return self.model.base_model

    def new_cache(self, cut: bool = False) -> ReaderCache:
        """An empty cache for a batch.

        Args:
            cut: whether it is to be cut back later, and so forgets nothing that fell out of a window.
        """
        return ReaderCache(DynamicCache() if cut and self._can_be_cut else DynamicCache(config=self.config))

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
        mask: torch.Tensor,
        cache: ReaderCache | None,
        embeds: torch.Tensor | None = None,
    ) -> States:
        """Read more tokens `(batch, width)`; rows that have none are masked.

        Args:
            embeds: what is read in place of the tokens' own embeddings, `(batch, width, hidden)`.
        """
        positions = (mask.cumsum(1) - 1).clamp(min=0) + (0 if cache is None else cache.next_positions())
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
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: ReaderCache | None,
        seen: dict[str, torch.Tensor],
        embeds: torch.Tensor | None = None,
    ) -> States:
        every = (ids, mask, positions) if cache is None else cache.after(ids, mask, positions)
        states, mask = behind_prefix(self.model, None if cache is None else cache.states, every[1])
        options = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}
        if seen:
            options |= seen | self._token_types(every[0])
        options[cache_argument(self.body)] = states
        output = self.body(
            attention_mask=mask,
            position_ids=positions,
            use_cache=states is not None,
            output_hidden_states=self.layers != (-1,),
            **options,
        )
        if cache is not None:
            cache.ids, cache.mask, cache.positions = every
        return self._states(output)

    def _states(self, output: Any) -> States:
        last = output.last_hidden_state
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


def cache_argument(body: nn.Module) -> str:
    """What a model's forward calls the cache, which transformers has renamed."""
    return "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"


def next_token_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Vocabulary logits of hidden states, in fp32, with what some language models do behind their head."""
    logits = model.get_output_embeddings()(hidden).float()
    config = model.config.get_text_config(decoder=True)
    if hasattr(config, "logit_scale"):  # Cohere
        logits = logits * config.logit_scale
    if hasattr(config, "logits_scaling"):  # Granite
        logits = logits / config.logits_scaling
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    return logits if cap is None else cap * torch.tanh(logits / cap)


def language_model_name(model: PreTrainedModel) -> str:
    """Under which name of a model the layers lie that predict the next token."""
    table = model.get_input_embeddings()
    return next(name for name, module in model.named_modules() if module is table).rpartition(".")[0]


def _split(item: list[Message] | Example) -> tuple[Prompt, list[Piece], list[Any]]:
    """What is to be learnt as a prompt, its reply in pieces and the pictures to be painted.

    Raises:
        ValueError: if the reply of an example paints fewer or more pictures than it has.
    """
    if isinstance(item, Example):
        reply = [piece for piece in item.target if piece is Mark.VOKENS or piece.strip() != "###"]
        if reply.count(Mark.VOKENS) != len(item.outputs):
            raise ValueError(f"the reply paints {reply.count(Mark.VOKENS)} picture(s) but has {len(item.outputs)}")
        return item, reply, list(item.outputs)
    *prompt, answer = check_messages(item)
    if answer["role"] != "assistant":
        raise ValueError(f"the last message is the reply to be learnt, the assistant's, got the {answer['role']}'s")
    painted = [part["image"] for part in answer["content"] if part["type"] == "image"]
    reply = [Mark.VOKENS if part["type"] == "image" else part["text"] for part in answer["content"]]
    return prompt, reply, painted


def _stack(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Tensors behind one another, smaller ones filled up with zeros, which stand for no picture."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    grown = []
    for tensor in tensors:
        missing = [most - size for most, size in zip(shape, tensor.shape[1:], strict=True)]
        grown.append(nn.functional.pad(tensor, [side for size in reversed(missing) for side in (0, size)]))
    return torch.cat(grown)
