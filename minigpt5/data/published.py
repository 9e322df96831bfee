"""The prompts and replies that MiniGPT-5 was published with, built from the rows of the readers.

Rows are read as examples are asked for, so the pictures of one row at a time are open. Wordings are drawn from `rng` in
the order of the examples: `random.Random(seed)` gives those of the published code after `random.seed(seed)`.

`Draft`s are examples whose pictures are not made ready yet: who keeps one of a row's many calls that one alone.

The rules are worked out from recorded examples, the wordings are those of the published program. Only text that the
data sets hold varies, and it stays text: a caption that spells `[IMG0]` paints nothing. Each picture to be painted is
padded to a white square.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from minigpt5.readers.prompts import Example, Mark, Piece
from minigpt5.utils.images import pad_to_square

COMMAND = "You will be able to generate image according to command."
STORY = (
    "Give the following images in <Img>ImageContent</Img> format. You will be able to see the images once I provide it "
    "to you. Please understanding images and generate story."
)
DIALOGUE = (
    "Give the following images in <Img>ImageContent</Img> format. You will be able to see the images once I provide it "
    "to you. Please generate conversations with appropriate images. "
)

GENERATE = (
    "generate image with caption:",
    "can you give me the image with caption:",
    "help me to generate this image:",
    "generate image with according to caption:",
    "according to caption, generate image:",
    "an image with caption:",
    "can you visualize this caption:",
)
ILLUSTRATE = ("Generate an image with the scene description:", "the scene description:")
CONTINUE = ("Tell me the next scene with image.", "Generate the next scene with image.", "What should happen then?")
DESCRIBE = ("Tell me the next scene description by this image:", "What happen in the next scene image:")

PICTURE = ("<Img>", Mark.IMAGE, "</Img>")
ANSWER = " ###Assistant:"
END = " ###"
PAINT = (Mark.VOKENS, END)

Draft = Callable[[], Example]


def clean_caption(caption: str) -> str:
    """Lower case, without the characters `.!"()*#:;~`, and single spaces.

    White space that stands alone between two words stays as it is, a tab or a no-break space (published code).
    """
    words = re.sub(r'[.!"()*#:;~]', " ", caption.lower())
    return re.sub(r"\s\s+", " ", words).lstrip(" ").rstrip(" \n")


def _painting(
    source: Sequence[Piece], target: Sequence[Piece], seen: Sequence[Any], image: Any, **told: Any
) -> Example:
    """An example whose reply ends in a picture, padded to a white square."""
    return Example(source, target, seen, [pad_to_square(image)], **told)


def cc3m_examples(rows: Iterable[dict[str, Any]], rng: random.Random, test: bool = False) -> Iterator[Example]:
    """The examples of `cc3m_drafts`."""
    return (draft() for draft in cc3m_drafts(rows, rng, test))


def cc3m_drafts(
    rows: Iterable[dict[str, Any]], rng: random.Random, test: bool = False, first: int = 0
) -> Iterator[Draft]:
    """Paint a caption: the caption alone is the prompt; for every hundredth row it is said once more as a command.

    Args:
        rows: of `read_cc3m`.
        rng: draws the command's wording.
        test: no commands, and the caption is the target. The published code kept its list in a cache that did not know
            of `test`, so commands stayed in where training had come first; not so here.
        first: number of the first row.
    """
    for number, row in enumerate(rows, first):
        caption = clean_caption(row["caption"])
        prompts = [caption]
        if number % 100 == 0 and not test:
            prompts.append(f"{COMMAND}###Human: {rng.choice(GENERATE)} {caption}{ANSWER}")
        for prompt in prompts:
            target = (caption,) if test else PAINT
            yield partial(_painting, [prompt], target, (), row["image"], caption=caption)


def vist_examples(rows: Iterable[dict[str, Any]], rng: random.Random, test: bool = False) -> Iterator[Example]:
    """The examples of `vist_drafts`."""
    return (draft() for draft in vist_drafts(rows, rng, test))


def vist_drafts(rows: Iterable[dict[str, Any]], rng: random.Random, test: bool = False) -> Iterator[Draft]:
    """Three tasks for each step of a story after all steps before it, texts and pictures.

    The sentence is given and its picture painted; nothing is given and both are told; the picture is given and its
    sentence told. The first step and `test` have the first task alone.

    Args:
        rows: of `read_vist`.
        rng: draws the wording of each task, in that order.
    """
    for row in rows:
        seen: list[Any] = []
        for text, image in zip(row["texts"], row["images"], strict=True):
            ask = story_so_far(row["texts"][: len(seen)], seen)
            yield partial(_painting, [*ask, f"{rng.choice(ILLUSTRATE)} {text}", ANSWER], PAINT, tuple(seen), image)
            if seen and not test:
                question, answer = [*ask, rng.choice(CONTINUE), ANSWER], (f"{text} ", *PAINT)
                yield partial(_painting, question, answer, tuple(seen), image)
                question = [*ask, f"{rng.choice(DESCRIBE)} ", *PICTURE, ANSWER]
                yield partial(Example, question, (text, END), (*seen, image))
            seen.append(image)


def story_so_far(texts: Sequence[str | None], images: Sequence[Any]) -> list[Piece]:
    """What stands before the question for a story's next step; the published code has no step without a picture.

    Args:
        texts, images: of the steps so far; `None` where a step lacks one.
    """
    pieces: list[Piece] = [f"{STORY}###Human:"]
    for text, image in zip(texts, images, strict=True):
        pieces += [text] if text is not None else []
        pieces += PICTURE if image is not None else [" "]
    return [*pieces, "\n " if len(texts) else " "]


def mmdialog_examples(
    rows: Iterable[dict[str, Any]], tokenizer: PreTrainedTokenizerBase | None = None, max_tokens: int = 50
) -> Iterator[Example]:
    """The examples of `mmdialog_drafts`."""
    return (draft() for draft in mmdialog_drafts(rows, tokenizer, max_tokens))


def mmdialog_drafts(
    rows: Iterable[dict[str, Any]], tokenizer: PreTrainedTokenizerBase | None = None, max_tokens: int = 50
) -> Iterator[Draft]:
    """Each turn of a talk but the first, after the two or three turns before it, of which a human's is the first.

    A talk ends before the first turn without text, or whose text ends in ".jpg", which the published code mistook for
    a picture. It also knew one picture (-3872362534310063124) as bad and ended there: leave that file out.

    Args:
        rows: of `read_mmdialog`; `cut_at_missing` is the published code's way.
        tokenizer: given for training, where a talk also ends before the first turn of more than `max_tokens` tokens.
    """

    def usable(turn: tuple[str, Any]) -> bool:
        text = turn[0]
        if not text.strip() or text.endswith(".jpg"):
            return False
        return tokenizer is None or len(tokenizer.encode(text, add_special_tokens=False)) <= max_tokens

    for row in rows:
        turns = list(takewhile(usable, zip(row["texts"], row["images"], strict=True)))
        for last in range(1, len(turns)):
            source, seen = talk_so_far(turns[:last])
            text, image = turns[last]
            if image is None:
                yield partial(Example, source, (text, END), seen)
            else:
                yield partial(_painting, source, (f"{text} ", *PAINT), seen, image)


def talk_so_far(turns: Sequence[tuple[str, Any]]) -> tuple[list[Piece], list[Any]]:
    """The prompt for the turn after `turns`, and its pictures: the last two or three turns, a human's first."""
    first = max(0, (len(turns) - 2) // 2 * 2)
    speakers = ("###Human:", ANSWER.strip())
    source, seen = [DIALOGUE], []
    for number, (text, image) in enumerate(turns[first:]):
        source.append(f"{speakers[number % 2]} {text} ")
        if image is not None:
            source += [*PICTURE, " "]
            seen.append(image)
    return [*source, speakers[len(turns) % 2]], seen
