"""From prompts and pictures to the ids and pixels that the comprehension stack reads.

Every prompt becomes a list of *pieces*: text, `IMAGE` (a picture that is read) and `VOKENS` (a picture that is
painted). Only pieces turn into special ids; text that happens to spell a voken or a mark is encoded as the plain
characters it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from tokenizers import AddedToken
from transformers import AutoImageProcessor, BatchFeature, ProcessorMixin

from minigpt5.readers.prompts import (
    IMAGE_MARK,
    Example,
    Mark,
    Message,
    Piece,
    Prompt,
    as_batch,
    check_messages,
    is_conversation,
    open_pictures,
    split_marks,
)
from minigpt5.readers.styles import MINIGPT4, PromptStyle
from minigpt5.readers.subwords import dropped_merges
from minigpt5.readers.text_options import TextOptions
from minigpt5.utils.checks import shown, some_text, whole_number
from minigpt5.utils.images import Picture, to_rgb, trim_strip
from minigpt5.utils.integrity import loading, without_code

IGNORE_INDEX = -100
# That one picture may take.
MOST_TOKENS = 2**16
# Of a picture that a model reads, in pixels.
LONGEST_SIDE = 2**12

_TEXT_OPTIONS = TextOptions.__dataclass_fields__.keys()
_style = lru_cache(PromptStyle)


class MiniGPT5Processor(ProcessorMixin):
    """Tokenizer and image processor of MiniGPT-5 as one.

    Each picture stands for `num_query_tokens` embeddings (arXiv 2304.10592, section 3; arXiv 2310.02239, section 3.1).

    Args:
        image_processor: any image processor of transformers.
        tokenizer: the language model's; the vokens and the image mark are added to it.
        num_query_tokens: embeddings a picture takes, the Q-Former's queries.
        n_vokens: vokens that make one picture.
        system: what every chat begins with, unless its messages bring a system message.
        chat_template: how chats are written, see `PromptStyle`; MiniGPT-4's by default.

    Raises:
        TypeError, ValueError: for a number that is none or out of all measure, or text that is none.
    """

    def __init__(
        self,
        image_processor,
        tokenizer,
        num_query_tokens: int = 32,
        n_vokens: int = 8,
        system: str = "",
        chat_template: str | None = None,
    ):
        self.num_query_tokens = whole_number("num_query_tokens", num_query_tokens, 1, MOST_TOKENS)
        self.n_vokens = whole_number("n_vokens", n_vokens, 1, MOST_TOKENS)
        self.system = some_text("system", system)
        template = MINIGPT4.chat_template if chat_template is None else some_text("chat_template", chat_template)
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token_id is None:
                raise ValueError("the tokenizer has no token to pad with: give it a pad_token or an eos_token")
            # What pads is masked, so any will do (published: the end of a text).
            tokenizer.pad_token = tokenizer.eos_token
        super().__init__(image_processor, tokenizer, chat_template=template)
        specials = [f"[IMG{i}]" for i in range(n_vokens)] + [IMAGE_MARK]
        # White space beside a special goes, as `encode` does it (published code, tokenizer of transformers 4.31).
        tokenizer.add_tokens(
            [AddedToken(token, special=True, normalized=False, lstrip=True, rstrip=True) for token in specials]
        )
        *self.voken_ids, self.image_token_id = tokenizer.convert_tokens_to_ids(specials)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> MiniGPT5Processor:
        """Open a saved processor. Pictures are read with PIL, as in the published code, not with torchvision.

        Raises:
            OSError: if there is none, or a file of it is missing or cannot be read.
            ValueError: if a file is broken, or the folder's own code is asked for.
        """
        options = without_code(kwargs)
        with loading(cls, pretrained_model_name_or_path):
            processor = super().from_pretrained(pretrained_model_name_or_path, **options)
            # A `backend` given above would reach the tokenizer too, and be saved with it.
            processor.image_processor = AutoImageProcessor.from_pretrained(
                pretrained_model_name_or_path, **options, backend="pil"
            )
        return processor

    @property
    def model_input_names(self) -> list[str]:
        """What a model is given of its output."""
        return ["input_ids", "attention_mask", "pixel_values"]

    @property
    def prompt_style(self) -> PromptStyle:
        """How chats are written."""
        return _style(cast(str | None, self.chat_template))

    def render(self, messages: list[Message], reply: bool = True) -> tuple[list[Piece], list[Picture | None]]:
        """Chat messages as pieces, and their pictures in order (`None` for a picture that comes separately).

        Args:
            messages: see `check_messages`.
            reply: whether the assistant is to speak next.

        Raises:
            TypeError, ValueError: for messages of another form.
        """
        return self._render(check_messages(messages), reply)

    def _render(
        self, messages: list[Message], reply: bool = True, style: PromptStyle | None = None
    ) -> tuple[list[Piece], list[Picture | None]]:
        if self.system and (not messages or messages[0]["role"] != "system"):
            messages = [{"role": "system", "content": [{"type": "text", "text": self.system}]}, *messages]
        pictures = [part.get("image") for message in messages for part in message["content"] if part["type"] == "image"]
        return (style or self.prompt_style).write(messages, reply), pictures

    def user_turn(self, text: str) -> list[Message]:
        """A string with `<ImageHere>` marks as the chat message of a user."""
        content: list[dict] = []
        for piece in split_marks(text):
            if piece is Mark.IMAGE:
                content.append({"type": "image"})
            elif isinstance(piece, str) and piece.strip():
                content.append({"type": "text", "text": piece.strip()})
        return [{"role": "user", "content": content}]

    def encode(self, pieces: Sequence[Piece], bos: bool = True) -> list[int]:
        """The ids of pieces: neighbouring texts are joined, each run is stripped and encoded on its own."""
        ids = [self.tokenizer.bos_token_id] if bos and self.tokenizer.bos_token_id is not None else []
        text = ""
        for piece in [*pieces, None]:
            if isinstance(piece, str):
                text += piece
                continue
            if text.strip():
                # Not verbose: whoever knows the model's context says what is too long.
                ids += self.tokenizer.encode(
                    text.strip(), add_special_tokens=False, split_special_tokens=True, verbose=False
                )
            text = ""
            if piece is Mark.IMAGE:
                ids += [self.image_token_id] * self.num_query_tokens
            elif piece is Mark.VOKENS:
                ids += self.voken_ids
        return ids

    def __call__(
        self, text: Prompt | Sequence[Prompt] | None = None, images: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Encode one prompt or a batch of them.

        Args:
            text: a string with `<ImageHere>` marks, which is a user's turn unless it has turns written out already, as
                `apply_chat_template` writes them; chat messages; an example, of which only the source is read; or a
                list of these.
            images: for one prompt a picture or a list of them; for a batch a list with one such entry (or `None`) a
                prompt. Pictures that stand inside messages are not given again here; those of a string without marks
                are put in front of it.
            kwargs: `TextOptions`, by default padded on the left and as tensors of PyTorch, and the options of the image
                processor; also apart, as `text_kwargs` and `images_kwargs`.

        Returns:
            `input_ids` and `attention_mask` (batch, length); `pixel_values` (pictures, 3, height, width) of all
            pictures in order, left out where there are none.

        Raises:
            TypeError, ValueError: for what is no prompt, picture or option, and where a prompt has fewer or more
                pictures than marks.
        """
        if text is None:
            raise ValueError("text is None; give at least one prompt")
        options, image_options = self._options(kwargs)
        rows, pictures = [], []
        for prompt, given in zip(*as_batch(text, images), strict=True):
            if isinstance(prompt, Example):
                pieces, inline, given = prompt.source, None, [*prompt.images, *given]
            elif isinstance(prompt, list):
                pieces, inline = self._render(prompt)
            elif self.prompt_style.is_written(prompt):
                pieces, inline = split_marks(prompt), None
            else:
                pieces, inline = self._render(self.user_turn(prompt))
            rows.append(self.encode(pieces, options.add_special_tokens))
            pictures += self._match(pieces, inline, given)
        return self._batch(rows, pictures, options, image_options)

    def apply_chat_template(
        self,
        conversation: list[Message] | list[list[Message]],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Write a conversation, or a batch of them, as the model reads it.

        Args:
            conversation: chat messages; their pictures may also be named by `url`, `path` or `base64`.
            chat_template: another than the processor's own.
            add_generation_prompt: whether the assistant is to speak next.
            continue_final_message: whether the last message is open, for the model to go on with.
            tokenize: whether to encode what is written, with the pictures.
            return_dict: whether to return all inputs of the model, not the ids alone.
            processor_kwargs, kwargs: those of the call.

        Returns:
            The text, in which `<ImageHere>` stands for a picture, or a list of texts; with `tokenize` what the call
            returns, or its `input_ids`.

        Raises:
            TypeError, ValueError: as the call does.
        """
        options, image_options = self._options({**(processor_kwargs or {}), **kwargs})
        if add_generation_prompt and continue_final_message:
            raise ValueError("add_generation_prompt and continue_final_message exclude each other")
        style = None if chat_template is None else PromptStyle(some_text("chat_template", chat_template))
        single = is_conversation(conversation)
        if not single and (not isinstance(conversation, (list, tuple)) or not conversation):
            kind = type(conversation).__name__
            raise TypeError(f"conversation is a list of chat messages or a list of such lists, got {kind}")
        texts, rows, pictures = [], [], []
        for number, messages in enumerate([conversation] if single else conversation, 1):
            messages = check_messages(open_pictures(messages), f"conversation {number}")
            pieces, own = self._render(messages, add_generation_prompt, style)
            if continue_final_message:
                pieces = _open_end(pieces, messages[-1])
            texts.append("".join(IMAGE_MARK if isinstance(piece, Mark) else piece for piece in pieces))
            if tokenize:
                rows.append(self.encode(pieces, options.add_special_tokens))
                pictures += self._match(pieces, own, [])
        if not tokenize:
            return texts[0] if single else texts
        batch = self._batch(rows, pictures, options, image_options)
        return batch if return_dict else batch["input_ids"]

    def _options(self, given: dict[str, Any]) -> tuple[TextOptions, dict[str, Any]]:
        """The options of the text, and those of the image processor."""
        given = dict(given)
        apart = {}
        for group in ("text_kwargs", "images_kwargs"):
            apart[group] = given.pop(group, None) or {}
            if not isinstance(apart[group], dict):
                raise TypeError(f"{group} is a dictionary of options, got {type(apart[group]).__name__}")
            twice = apart[group].keys() & given.keys()
            if twice:
                raise ValueError(f"{twice.pop()} is given twice, in {group} and by itself")
        text = apart["text_kwargs"] | {name: value for name, value in given.items() if name in _TEXT_OPTIONS}
        image = apart["images_kwargs"] | {name: value for name, value in given.items() if name not in _TEXT_OPTIONS}
        known = getattr(self.image_processor.valid_kwargs, "__annotations__", {}).keys()
        unknown = [name for name in text if name not in _TEXT_OPTIONS] + [name for name in image if name not in known]
        if unknown:
            raise TypeError(f"{unknown[0]!r} is no argument of the processor; there are {', '.join(_TEXT_OPTIONS)}")
        for name in ("size", "crop_size", "pad_size"):
            _check_sides(name, image.get(name))
        return TextOptions(**text), image

    def example(self, messages: list[Message]) -> Example:
        """A conversation whose last message is the reply to be learnt; its pictures are to be painted.

        Raises:
            TypeError, ValueError: for messages of another form, or whose last is not the assistant's.
        """
        *asked, answer = check_messages(messages)
        if answer["role"] != "assistant":
            raise ValueError(f"the last message is the reply to be learnt, the assistant's, got the {answer['role']}'s")
        source, read = self._render(asked)
        target: list[Piece] = []
        for part in answer["content"]:
            target += [part["text"], " "] if part["type"] == "text" else [Mark.VOKENS]
        painted = [part.get("image") for part in answer["content"] if part["type"] == "image"]
        return Example(source, [*target, " ###"], [picture for picture in read if picture is not None], painted)

    def training_pair(
        self, source: Sequence[Piece], target: Sequence[Piece], subword_dropout: float = 0.0
    ) -> tuple[list[int], list[int]]:
        """Ids and labels of a prompt and its reply, encoded apart.

        Scored are the reply's text, the first and the last voken of a block, and the closing `###`; what lies between
        the two vokens follows by itself in decoding (published code, labels of its data sets).
        """
        with dropped_merges(self.tokenizer, subword_dropout):
            prompt = self.encode(source)
        reply = self.encode(target, bos=False)
        between = set(self.voken_ids[1:-1])
        labels = [IGNORE_INDEX] * len(prompt) + [IGNORE_INDEX if i in between else i for i in reply]
        return prompt + reply, labels

    def training_batch(self, items: Sequence[list[Message] | Example], subword_dropout: float = 0.0) -> BatchFeature:
        """Encode what is to be learnt: conversations that end in the reply, or ready-made examples.

        Pictures of the reply are to be painted: they become vokens, and their own pixels are not read.

        Args:
            subword_dropout: of the prompts, see `dropped_merges`.

        Returns:
            `input_ids`, `attention_mask`, `labels` (batch, length), padded on the right; `pixel_values` of the pictures
            read; `targets`, the list of pictures to be painted, in order.

        Raises:
            ValueError: where an item has fewer or more pictures than marks; or see `dropped_merges`.
        """
        rows, labels, pictures, targets = [], [], [], []
        for item in items:
            example = item if isinstance(item, Example) else self.example(item)
            blocks = list(example.target).count(Mark.VOKENS)
            if blocks != len(example.outputs):
                raise ValueError(f"the reply paints {blocks} picture(s) but has {len(example.outputs)}")
            ids, scored = self.training_pair(example.source, example.target, subword_dropout)
            rows.append(ids)
            labels.append(scored)
            pictures += self._match(example.source, None, list(example.images))
            targets += [to_rgb(picture) for picture in example.outputs]
        batch = self._batch(rows, pictures, TextOptions(padding_side="right"))
        length = batch["input_ids"].shape[1]
        batch["labels"] = torch.tensor([row + [IGNORE_INDEX] * (length - len(row)) for row in labels])
        batch["targets"] = targets
        return batch

    def _match(self, pieces: Sequence[Piece], inline: list | None, given: list) -> list[Picture]:
        """The pictures of a prompt in order, checked against its marks."""
        marks = sum(piece is Mark.IMAGE for piece in pieces)
        inline = [None] * marks if inline is None else inline
        missing = sum(picture is None for picture in inline)
        if missing != len(given):
            raise ValueError(
                f"the prompt has {missing} image mark(s) but {len(given)} image(s) were given; "
                f"write {IMAGE_MARK} once for each image"
            )
        rest = iter(given)
        return [next(rest) if picture is None else picture for picture in inline]

    def _batch(
        self,
        rows: list[list[int]],
        pictures: list[Picture],
        options: TextOptions,
        image_options: dict[str, Any] | None = None,
    ) -> BatchFeature:
        rows = options.truncate(rows, self.tokenizer, self.image_token_id)
        padded = self.tokenizer.pad(
            {"input_ids": rows},
            padding=options.padding,
            max_length=options.max_length,
            pad_to_multiple_of=options.pad_to_multiple_of,
            padding_side=options.padding_side,
        )
        if options.return_tensors and len({len(row) for row in padded["input_ids"]}) > 1:
            raise ValueError(
                "the prompts differ in length, so they make no tensor; set padding=True or return_tensors=None"
            )
        names = ["input_ids", "attention_mask"][: 1 + options.return_attention_mask]
        batch = BatchFeature({name: padded[name] for name in names}, tensor_type=options.return_tensors)
        if pictures:
            rgb = [trim_strip(to_rgb(picture)) for picture in pictures]
            try:
                pixels = self.image_processor(rgb, return_tensors=options.return_tensors, **(image_options or {}))
            except Exception as error:  # the options are the image processor's own to judge
                said = " ".join(str(error).split())
                raise ValueError(f"the image processor does not take these pictures and options: {said}") from error
            batch["pixel_values"] = pixels["pixel_values"]
            if not all(torch.as_tensor(one).isfinite().all() for one in pixels["pixel_values"]):
                raise ValueError("the options of the image processor make pixels that are not finite")
        return batch


def _check_sides(name: str, value: Any) -> None:
    """Pictures are resized before anything else could find them too large."""
    if isinstance(value, Mapping):
        for side, length in value.items():
            _check_sides(f"{name}[{shown(side)}]", length)
    elif isinstance(value, (list, tuple)):
        for length in value:
            _check_sides(name, length)
    elif value is not None:
        whole_number(name, value, 1, LONGEST_SIDE**2 if "pixels" in name else LONGEST_SIDE)


def _open_end(pieces: list[Piece], message: Message) -> list[Piece]:
    """Pieces without what the template puts behind the last message, which has to end in text."""
    last = message["content"][-1]["text"].strip() if message["content"][-1]["type"] == "text" else ""
    *before, end = pieces
    if not last or not isinstance(end, str) or last not in end:
        raise ValueError("continue_final_message needs a last message that ends in text")
    return [*before, end[: end.rindex(last) + len(last)]]
