"""What a reader reads and says as tokens: prompts with their pictures, what is to be learnt, and where a reply ends."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from minigpt5.readers.conversation import ChatTemplate, conversation
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.readers.prompts import Example, Mark, Message, Piece, Prompt, as_batch, check_messages
from minigpt5.readers.subwords import dropped_merges
from minigpt5.readers.vokens import voken_ids
from minigpt5.utils.images import to_rgb, trim_strip


class PromptEncoder:
    """A processor and what its model asks of it.

    Args:
        model: a vision-language model or a causal language model.
        processor: its processor, or its tokenizer, to which `add_vokens` has added the vokens.

    Raises:
        ValueError: if the tokenizer has no vokens.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin | PreTrainedTokenizerBase):
        # Of unknown type, as what all families share is more than what transformers declares.
        self.model: Any = model
        self.processor: Any = processor
        self.tokenizer: Any = getattr(processor, "tokenizer", processor)
        self.voken_ids = voken_ids(self.tokenizer)
        if not self.voken_ids:
            raise ValueError("the tokenizer has no vokens; add them with minigpt5.readers.add_vokens")

    @property
    def n_vokens(self) -> int:
        """Vokens that make one picture."""
        return len(self.voken_ids)

    @property
    def image_token_id(self) -> int | None:
        """Of the token that stands where a picture's features are read, if it reads pictures."""
        if self.processor is self.tokenizer:
            return None
        # Processors may name by it what stands for the picture in a text.
        return getattr(self.model.config, "image_token_id", None) or getattr(self.processor, "image_token_id", None)

    @cached_property
    def chat(self) -> ChatTemplate:
        """How a conversation is written."""
        return ChatTemplate(self.processor)

    @property
    def body(self) -> Any:
        """The model without its head."""
        return self.model.base_model

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
        """Texts that end a reply: what a template without a special token writes behind it, or the dialogue's mark."""
        if self.chat.template is None:
            return ("###",)
        _, end = self.chat.frame
        return (end.strip(),) if end.strip() and not self._specials.intersection(self._written(end)) else ()

    @cached_property
    def never_said(self) -> list[int]:
        """Tokens that no reply is made of: marks of what is read, and vokens that follow from the first."""
        names = [f"{kind}_token_id" for kind in ("image", "video", "audio")]
        told: set[Any] = {getattr(whose, name, None) for whose in (self.model.config, self.processor) for name in names}
        return [*self.voken_ids[1:], *sorted(told.intersection(range(len(self.tokenizer))))]

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

    def training_batch(self, items: Sequence[list[Message] | Example], subword_dropout: float = 0.0) -> BatchFeature:
        """What is to be learnt, conversations that end in the reply or ready-made examples, padded on the right.

        Pictures of the reply are to be painted: they become vokens, and their own pixels are not read. Scored are the
        reply's text, the first and the last voken of a block, and the reply's end.

        Args:
            subword_dropout: of the prompts, see `dropped_merges`.

        Returns:
            `input_ids`, `attention_mask`, `labels` (batch, length), what the pictures read became, and `targets`, the
            list of pictures to be painted, in order.

        Raises:
            ValueError: where an item has fewer or more pictures than marks; or see `dropped_merges`.
        """
        rows, targets = [], []
        for item in items:
            prompt, reply, painted = _split(item)
            with dropped_merges(self.tokenizer, subword_dropout):
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
        text, looks = self.chat.render(messages), [trim_strip(to_rgb(picture)) for picture in pictures]
        try:
            row = self._process(text, looks)
        except Exception as error:  # each processor has its own
            raise ValueError(f"the processor does not take this prompt and its pictures: {error}") from error
        places = row["input_ids"].count(self.image_token_id)
        if places < len(pictures):
            raise ValueError(
                f"the chat template leaves places for {places} of {len(pictures)} picture(s): it has to write "
                f"{self.tokenizer.convert_ids_to_tokens(self.image_token_id)} for each"
            )
        return row

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
        block = "".join(self.tokenizer.convert_ids_to_tokens(self.voken_ids))
        text = ""
        for piece in reply:
            if not isinstance(piece, str):
                text += block
            elif piece.strip():
                text += " " * bool(text) + self.chat.plain(piece.strip())
        if lead.strip() or not text.startswith(block):
            text = lead + text
        return [*self._behind_opening(text), *self._end]

    @cached_property
    def _end(self) -> list[int]:
        """The tokens that end a reply: up to the template's first special token, its words, or the tokenizer's own."""
        ids = self._written(self.chat.frame[1])
        for length, number in enumerate(ids, 1):
            if number in self._specials:
                return ids[:length]
        if self.stop_strings or self.tokenizer.eos_token_id is None:
            return ids
        return [self.tokenizer.eos_token_id]

    def _written(self, end: str) -> list[int]:
        """The tokens of what is written behind a reply."""
        return self._behind_opening(f"a{end}")[len(self._behind_opening("a")) :]

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
            missing = [[fill] * (length - len(row)) for row in values]
            pairs = zip(missing, values, strict=True)
            return torch.tensor([[*none, *row] if side == "left" else [*row, *none] for none, row in pairs])

        ids = [row["input_ids"] for row in rows]
        batch = BatchFeature({"input_ids": padded(ids, self.pad_token_id)})
        batch["attention_mask"] = padded([[1] * len(row) for row in ids], 0)
        for name, fill in (("labels", IGNORE_INDEX), ("token_type_ids", 0)):
            if name in rows[0]:
                batch[name] = padded([row[name] for row in rows], fill)
        for name in sorted({name for row in rows for name in row if isinstance(row[name], torch.Tensor)}):
            batch[name] = _stack([row[name] for row in rows if name in row])
        return batch


def _split(item: list[Message] | Example) -> tuple[Prompt, list[Piece], list[Any]]:
    """What is to be learnt as a prompt, its reply in pieces and the pictures to be painted.

    Raises:
        ValueError: if the reply of an example paints fewer or more pictures than it has.
    """
    if isinstance(item, Example):
        reply = [piece for piece in item.target if isinstance(piece, Mark) or piece.strip() != "###"]
        if reply.count(Mark.VOKENS) != len(item.outputs):
            raise ValueError(f"the reply paints {reply.count(Mark.VOKENS)} picture(s) but has {len(item.outputs)}")
        return item, reply, list(item.outputs)
    *prompt, answer = check_messages(item)
    if answer["role"] != "assistant":
        raise ValueError(f"the last message is the reply to be learnt, the assistant's, got the {answer['role']}'s")
    painted = [part.get("image") for part in answer["content"] if part["type"] == "image"]
    reply = [Mark.VOKENS if part["type"] == "image" else part["text"] for part in answer["content"]]
    return prompt, reply, painted


def _stack(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Tensors behind one another, smaller ones filled up with zeros, which stand for no picture."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    grown = []
    for tensor in tensors:
        missing = [most - size for most, size in zip(shape, tensor.shape[1:], strict=True)]
        grown.append(pad(tensor, [side for size in reversed(missing) for side in (0, size)]))
    return torch.cat(grown)
