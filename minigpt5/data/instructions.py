"""What MiniGPT-4's two stages learn from pictures and their descriptions (arXiv 2304.10592, section 3)."""

from __future__ import annotations

import random

from minigpt5.readers.prompts import Example, Mark, Message
from minigpt5.utils.images import Picture

# prompts/alignment.txt of the published code.
INSTRUCTIONS = (
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)


def pair_example(caption: str, image: Picture) -> Example:
    """A picture, without a word or a turn around it, is the prompt for its caption (section 3.1).

    The reply ends with `###` as all of this library's do; the published code ends it with a line break.
    """
    return Example([Mark.IMAGE], [caption, " ###"], [image], caption=caption)


def instruct_task(caption: str, image: Picture, rng: random.Random) -> list[Message]:
    """An instruction of the list about a picture, and its description.

    The processor makes `###Human: <Img>…</Img> {instruction} ###Assistant: {caption} ###` of it (section 3.2), without
    the words that it puts before other chats.
    """
    question = [{"type": "image", "image": image}, {"type": "text", "text": rng.choice(INSTRUCTIONS)}]
    return [
        {"role": "system", "content": ""},
        {"role": "user", "content": question},
        {"role": "assistant", "content": caption},
    ]
