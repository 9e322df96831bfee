"""What a batch is drawn from: so many conversations of each task, from the data sets that the tasks need.

A batch depends on its index alone. Every row of a data set comes once before any comes twice, in an order of its own
each time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from minigpt5.data.instructions import instruct_task, pair_example
from minigpt5.data.published import cc3m_examples, mmdialog_examples, vist_examples
from minigpt5.data.readers import open_dataset
from minigpt5.data.tasks import caption_task, dialogue_task, draw_task, story_tasks
from minigpt5.data.tolerant import tolerate
from minigpt5.readers.prompts import Example, Message
from minigpt5.utils.processes import shard


class Drawn(NamedTuple):
    """A conversation to learn from, and where the task knows it the caption of the picture to be painted."""

    item: list[Message] | Example
    caption: str | None = None

    @property
    def paints(self) -> bool:
        """Whether the reply to be learnt has a picture."""
        if isinstance(self.item, Example):
            return bool(self.item.outputs)
        reply = self.item[-1]["content"]
        return not isinstance(reply, str) and any(part["type"] == "image" for part in reply)


Row = dict[str, Any]


def _published(make: Callable) -> Callable[[Row, random.Random], Drawn]:
    """One of the published examples of a row; a row that gives none is told so."""

    def draw(row: Row, rng: random.Random) -> Drawn | None:
        examples = list(make([row], rng))
        if not examples:
            return None
        example = rng.choice(examples)
        return Drawn(example, example.caption)

    return draw


def _step(row: Row, rng: random.Random) -> Drawn:
    """A step of a story as a picture and its caption."""
    step = rng.randrange(len(row["texts"]))
    return Drawn(pair_example(row["texts"][step], row["images"][step]), row["texts"][step])


TASKS: dict[str, tuple[str, Callable[[Row, random.Random], Drawn | None]]] = {
    "pair": ("cc3m", lambda row, rng: Drawn(pair_example(row["caption"], row["image"]), row["caption"])),
    "story_pair": ("vist", _step),
    "instruct": ("cc3m", lambda row, rng: Drawn(instruct_task(row["caption"], row["image"], rng))),
    "draw": ("cc3m", lambda row, rng: Drawn(draw_task(row["caption"], row["image"], rng), row["caption"])),
    "caption": ("cc3m", lambda row, rng: Drawn(caption_task(row["caption"], row["image"], rng))),
    "story": ("vist", lambda row, rng: Drawn(story_tasks(row["texts"], row["images"], rng))),
    "story_text": ("vist", lambda row, rng: Drawn(story_tasks(row["texts"], row["images"], rng, paint=False))),
    "talk": ("mmdialog", lambda row, rng: Drawn(dialogue_task(row["texts"], row["images"], rng))),
    "talk_text": ("mmdialog", lambda row, rng: Drawn(dialogue_task(row["texts"], row["images"], rng, paint=False))),
    "chat": ("chat", lambda row, rng: Drawn(row["messages"])),
    "published_cc3m": ("cc3m", _published(cc3m_examples)),
    "published_vist": ("vist", _published(vist_examples)),
    "published_mmdialog": ("mmdialog", _published(lambda rows, rng: mmdialog_examples(rows))),
}

# Their replies paint nothing.
TEXT_TASKS = ("pair", "story_pair", "instruct", "caption", "story_text", "talk_text")
# Their replies paint a picture whose caption is known.
CAPTIONED_TASKS = ("draw", "published_cc3m")
# A picture is all that is asked, its caption all that is replied.
PAIR_TASKS = ("pair", "story_pair")


@lru_cache(maxsize=16)
def _order(length: int, seed: int) -> torch.Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))


class Mixture:
    """Draws batches of conversations.

    Args:
        root: folder with the data sets, each in a folder by its name (cc3m, vist, mmdialog, chat), laid out as the
            reader of that name, or of `layouts`, expects it.
        mix: conversations a batch, by task; see `TASKS`.
        split: of the data sets.
        layouts: another layout for a data set's folder, as `{"vist": "vist-raw"}`.
        max_bad_share: share of rows with bad pictures that stops the run.

    """

    def __init__(
        self,
        root: Path,
        mix: dict[str, int],
        split: str = "train",
        layouts: dict[str, str] | None = None,
        seed: int = 0,
        max_bad_share: float = 0.01,
    ):
        self.mix, self.seed = mix, seed
        kinds = sorted({TASKS[task][0] for task in mix})
        self.rows = {
            kind: tolerate(open_dataset((layouts or {}).get(kind, kind), root / kind, split), max_bad_share, seed)
            for kind in kinds
        }

    def __call__(self, index: int) -> list[Drawn]:
        """This process's share of a batch."""
        places = [(task, index * count + i) for task, count in self.mix.items() for i in range(count)]
        return [self._draw(*place) for place in shard(places)]

    def questions(self, count: int) -> list[list[Message] | Example]:
        """The first `count` prompts whose reply paints a picture; none where no task paints."""
        found: list[list[Message] | Example] = []
        paints = [task for task in self.mix if task not in TEXT_TASKS]
        for number in range(50 * count if paints else 0):
            drawn = self._draw(paints[number % len(paints)], number)
            if drawn.paints:
                found.append(drawn.item if isinstance(drawn.item, Example) else drawn.item[:-1])
            if len(found) == count:
                break
        return found

    def _draw(self, task: str, number: int) -> Drawn:
        kind, make = TASKS[task]
        rows = self.rows[kind]
        rng = random.Random(f"{self.seed}/{task}/{number}")
        # A talk may be too short to learn from; the next row takes its place.
        for further in range(len(rows)):
            epoch, place = divmod(number + further, len(rows))
            drawn = make(rows[int(_order(len(rows), self.seed * 1_000_003 + epoch)[place])], rng)
            if drawn is not None:
                return drawn
        raise ValueError(f"no row of {kind} gives anything to learn for the task {task}")
