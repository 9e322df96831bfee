"""From prompts and pictures to the ids and pixels that the comprehension stack reads.

A prompt is a string with `<ImageHere>` marks, or chat messages. Both become a list of *pieces*: text, `IMAGE` (a
picture that is read) and `VOKENS` (a picture that is painted). Only pieces turn into special ids; text that happens to
spell a voken or a mark is encoded as the plain characters it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import AutoImageProcessor, BatchFeature, ProcessorMixin

from minigpt5.utils.images import Picture, to_rgb, trim_strip

IMAGE_MARK = "<ImageHere>"
IGNORE_INDEX = -100

Message = dict[str, Any]


class Mark(Enum):
    """What stands in a prompt beside text."""

    IMAGE = "a picture to be read"
    VOKENS = "a picture to be painted"


Piece = str | Mark


@dataclass(frozen=True)
class Example:
    """A prompt and the reply to be learnt, in pieces: what no chat message can say, such as a prompt without a turn.

    Args:
        source: the prompt.
        target: the reply, its closing `###` included.
        images: the pictures read, one for each `Mark.IMAGE` of the source.
        outputs: the pictures painted, one for each `Mark.VOKENS` of the target.
        caption: what the output shows, for the caption loss, where the data set tells.
    """

    source: Sequence[Piece]
    target: Sequence[Piece]
    images: Sequence[Picture] = ()
    outputs: Sequence[Picture] = ()
    caption: str | None = None


Prompt = str | list[Message] | Example


def as_list(images: Any) -> list:
    """`None` as no pictures, one picture as a list of one."""
    if images is None:
        return []
    return list(images) if isinstance(images, (list, tuple)) else [images]


class MiniGPT5Processor(ProcessorMixin):
    """Tokenizer and image processor of MiniGPT-5 as one.

    The chat template is MiniGPT-4's: `###Human: … ###Assistant: …`, pictures as `<Img><ImageHere></Img>`, each standing
    for `num_query_tokens` embeddings (arXiv 2304.10592, section 3; arXiv 2310.02239, section 3.1).

    Args:
        image_processor: any image processor of transformers.
        tokenizer: the language model's; the vokens and the image mark are added to it.
        num_query_tokens: embeddings a picture takes, the Q-Former's queries.
        n_vokens: vokens that make one picture.
        system: what every chat begins with, unless its messages bring a system message.
    """

    def __init__(self, image_processor, tokenizer, num_query_tokens: int = 32, n_vokens: int = 8, system: str = ""):
        self.num_query_tokens = num_query_tokens
        self.n_vokens = n_vokens
        self.system = system
        super().__init__(image_processor, tokenizer)
        specials = [f"[IMG{i}]" for i in range(n_vokens)] + [IMAGE_MARK]
        # White space beside a special goes, as `encode` does it (published code, tokenizer of transformers 4.31).
        tokenizer.add_tokens(
            [AddedToken(token, special=True, normalized=False, lstrip=True, rstrip=True) for token in specials]
        )
        *self.voken_ids, self.image_token_id = tokenizer.convert_tokens_to_ids(specials)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> MiniGPT5Processor:
        """Open a saved processor. Pictures are read with PIL, as in the published code, not with torchvision."""
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        # A `backend` given above would reach the tokenizer too, and be saved with it.
        processor.image_processor = AutoImageProcessor.from_pretrained(
            pretrained_model_name_or_path, **kwargs, backend="pil"
        )
        return processor

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values"]

    def split_marks(self, text: str) -> list[Piece]:
        """A string with `<ImageHere>` marks as pieces."""
        pieces: list[Piece] = []
        for part in text.split(IMAGE_MARK):
            pieces += [part, Mark.IMAGE]
        return pieces[:-1]

    def render(self, messages: list[Message], reply: bool = True) -> tuple[list[Piece], list[Picture | None]]:
        """Chat messages as pieces, and their pictures in order (`None` for a picture that comes separately).

        Args:
            messages: dictionaries with `role` (system, user or assistant) and `content`: a string, or a list of
                `{"type": "text", "text": …}` and `{"type": "image"[, "image": …]}`.
            reply: whether the assistant is to speak next.

        Raises:
            ValueError: for an unknown role or kind of content.
        """
        speakers = {"user": "###Human: ", "assistant": "###Assistant: "}
        messages = list(messages)
        system = self.system
        if messages and messages[0].get("role") == "system":
            system = messages.pop(0)["content"]
            if not isinstance(system, str):
                system = " ".join(part["text"] for part in system)
        pieces: list[Piece] = [system]
        pictures: list[Picture | None] = []
        for message in messages:
            if message.get("role") not in speakers:
                role = message.get("role")
                raise ValueError(f"a message's role is system (first only), user or assistant, got {role!r}")
            pieces.append(speakers[message["role"]])
            content = message["content"]
            for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                if part.get("type") == "text":
                    pieces += [part["text"], " "]
                elif part.get("type") == "image":
                    pieces += ["<Img>", Mark.IMAGE, "</Img> "]
                    pictures.append(part.get("image"))
                else:
                    raise ValueError(f"a message's content has type text or image, got {part.get('type')!r}")
        return pieces + ["###Assistant:"] * reply, pictures

    def user_turn(self, text: str) -> list[Message]:
        """A string with `<ImageHere>` marks as the chat message of a user."""
        content: list[dict] = []
        for piece in self.split_marks(text):
            if piece is Mark.IMAGE:
                content.append({"type": "image"})
            elif piece.strip():
                content.append({"type": "text", "text": piece.strip()})
        return [{"role": "user", "content": content}]

    def encode(self, pieces: Sequence[Piece], bos: bool = True) -> list[int]:
        """The ids of pieces: neighbouring texts are joined, each run is stripped and encoded on its own."""
        ids = [self.tokenizer.bos_token_id] if bos else []
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
        self,
        text: Prompt | Sequence[Prompt],
        images: Any = None,
        padding_side: str = "left",
    ) -> BatchFeature:
        """Encode one prompt or a batch of them.

        Args:
            text: a string with `<ImageHere>` marks, taken as it is; chat messages; an example, of which only the source
                is read; or a list of these.
            images: for one prompt a picture or a list of them; for a batch a list with one such entry (or `None`) a
                prompt. Pictures that stand inside messages are not given again here.
            padding_side: left for generation, right for training.

        Returns:
            `input_ids` and `attention_mask` (batch, length); `pixel_values` (pictures, 3, height, width) of all
            pictures in order, left out where there are none.

        Raises:
            ValueError: where a prompt has fewer or more pictures than marks.
        """
        single = isinstance(text, (str, Example)) or (bool(text) and isinstance(text[0], dict))
        prompts = [text] if single else list(text)
        given = [images] if single else ([None] * len(prompts) if images is None else list(images))
        if len(given) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need {len(prompts)} lists of images, got {len(given)}")
        rows, pictures = [], []
        for prompt, own in zip(prompts, given, strict=True):
            own = as_list(own)
            if isinstance(prompt, Example):
                pieces, inline, own = prompt.source, None, [*prompt.images, *own]
            else:
                pieces, inline = (self.split_marks(prompt), None) if isinstance(prompt, str) else self.render(prompt)
            pictures += self._match(pieces, inline, own)
            rows.append(self.encode(pieces))
        return self._batch(rows, pictures, padding_side)

    def example(self, messages: list[Message]) -> Example:
        """A conversation whose last message is the reply to be learnt; its pictures are to be painted."""
        source, read = self.render(messages[:-1])
        reply, painted = self.render([{"role": "system", "content": ""}, messages[-1]], reply=False)
        target = [
            Mark.VOKENS if piece is Mark.IMAGE else piece for piece in reply[2:] if piece not in ("<Img>", "</Img> ")
        ]
        return Example(source, [*target, " ###"], [picture for picture in read if picture is not None], painted)

    def training_pair(self, source: Sequence[Piece], target: Sequence[Piece]) -> tuple[list[int], list[int]]:
        """Ids and labels of a prompt and its reply, encoded apart.

        Scored are the reply's text, the first and the last voken of a block, and the closing `###`; what lies between
        the two vokens follows by itself in decoding (published code, labels of its data sets).
        """
        prompt, reply = self.encode(source), self.encode(target, bos=False)
        between = set(self.voken_ids[1:-1])
        labels = [IGNORE_INDEX] * len(prompt) + [IGNORE_INDEX if i in between else i for i in reply]
        return prompt + reply, labels

    def training_batch(self, items: Sequence[list[Message] | Example]) -> BatchFeature:
        """Encode what is to be learnt: conversations that end in the reply, or ready-made examples.

        Pictures of the reply are to be painted: they become vokens, and their own pixels are not read.

        Returns:
            `input_ids`, `attention_mask`, `labels` (batch, length), padded on the right; `pixel_values` of the pictures
            read; `targets`, the list of pictures to be painted, in order.

        Raises:
            ValueError: where an item has fewer or more pictures than marks.
        """
        rows, labels, pictures, targets = [], [], [], []
        for item in items:
            example = item if isinstance(item, Example) else self.example(item)
            blocks = list(example.target).count(Mark.VOKENS)
            if blocks != len(example.outputs):
                raise ValueError(f"the reply paints {blocks} picture(s) but has {len(example.outputs)}")
            ids, scored = self.training_pair(example.source, example.target)
            rows.append(ids)
            labels.append(scored)
            pictures += self._match(example.source, None, list(example.images))
            targets += [to_rgb(picture) for picture in example.outputs]
        batch = self._batch(rows, pictures, "right")
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

    def _batch(self, rows: list[list[int]], pictures: list[Picture], padding_side: str) -> BatchFeature:
        padded = self.tokenizer.pad({"input_ids": rows}, padding_side=padding_side, return_tensors="pt")
        batch = BatchFeature({"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]})
        if pictures:
            pixels = self.image_processor([trim_strip(to_rgb(picture)) for picture in pictures], return_tensors="pt")
            batch["pixel_values"] = pixels["pixel_values"]
        return batch
