"""What a batch is drawn from: so many conversations of each task, from the data sets that the tasks need.

A batch depends on its index alone. Every row of a data set comes once before any comes twice, in an order of its own
each time.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from datasets import Dataset
from transformers import BatchFeature, PreTrainedTokenizerBase

from minigpt5.data.instructions import instruct_task, pair_example
from minigpt5.data.published import Draft, cc3m_drafts, mmdialog_drafts, vist_drafts
from minigpt5.data.readers import open_dataset
from minigpt5.data.tasks import NothingToLearn, caption_task, dialogue_task, draw_task, story_tasks
from minigpt5.data.tolerant import TolerantDataset, usable
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
Tokenizer = PreTrainedTokenizerBase | None
Make = Callable[[Row, random.Random, Tokenizer], Drawn]


def _published(drafts: Callable[[list[Row], random.Random, Tokenizer], Iterator[Draft]]) -> Make:
    """One of the published examples of a row."""

    def draw(row: Row, rng: random.Random, tokenizer: Tokenizer) -> Drawn:
        made = list(drafts([row], rng, tokenizer))
        if not made:
            raise NothingToLearn("no published example can be made of it")
        example = rng.choice(made)()
        return Drawn(example, example.caption)

    return draw


def _caption_drafts(rows: list[Row], rng: random.Random, _: Tokenizer) -> Iterator[Draft]:
    """Of a row with a command half of the draws take it: as many have one that 1 of 101 examples is a command."""
    return cc3m_drafts(rows, rng, first=0 if rng.random() < 2 / 101 else 1)


def _step(row: Row, rng: random.Random, _: Tokenizer) -> Drawn:
    """A step of a story as a picture and its caption."""
    if not row["texts"]:
        raise NothingToLearn("a story without a step")
    step = rng.randrange(len(row["texts"]))
    return Drawn(pair_example(row["texts"][step], row["images"][step]), row["texts"][step])


def _chat(row: Row, *_: Any) -> Drawn:
    return Drawn(row["messages"])


# Data sets in the layout of chats: one's own, and what StoryWorld asks, each in a folder by its name.
ASKED_TASKS = ("question", "ground", "refer", "outside", "ending")
WISHED_TASKS = ("change", "paint", "turns")
CHATS = ("chat", *ASKED_TASKS, *WISHED_TASKS)

TASKS: dict[str, tuple[str, Make]] = {
    "pair": ("cc3m", lambda row, rng, _: Drawn(pair_example(row["caption"], row["image"]), row["caption"])),
    "story_pair": ("vist", _step),
    "instruct": ("cc3m", lambda row, rng, _: Drawn(instruct_task(row["caption"], row["image"], rng))),
    "draw": ("cc3m", lambda row, rng, _: Drawn(draw_task(row["caption"], row["image"], rng), row["caption"])),
    "caption": ("cc3m", lambda row, rng, _: Drawn(caption_task(row["caption"], row["image"], rng))),
    "story": ("vist", lambda row, rng, _: Drawn(story_tasks(row["texts"], row["images"], rng))),
    "story_text": ("vist", lambda row, rng, _: Drawn(story_tasks(row["texts"], row["images"], rng, paint=False))),
    "talk": ("mmdialog", lambda row, rng, _: Drawn(dialogue_task(row["texts"], row["images"], rng))),
    "talk_text": ("mmdialog", lambda row, rng, _: Drawn(dialogue_task(row["texts"], row["images"], rng, paint=False))),
    "published_cc3m": ("cc3m", _published(_caption_drafts)),
    "published_vist": ("vist", _published(lambda rows, rng, _: vist_drafts(rows, rng))),
    "published_mmdialog": ("mmdialog", _published(lambda rows, rng, tokenizer: mmdialog_drafts(rows, tokenizer))),
    **{name: (name, _chat) for name in CHATS},
}

# Their replies paint nothing.
TEXT_TASKS = ("pair", "story_pair", "instruct", "caption", "story_text", "talk_text", *ASKED_TASKS)
# Their replies paint a picture whose caption is known.
CAPTIONED_TASKS = ("draw", "published_cc3m")
# A picture is all that is asked, its caption all that is replied.
PAIR_TASKS = ("pair", "story_pair")


def layout_of(kind: str, layouts: Mapping[str, str] | None = None) -> str:
    """The layout of a data set's folder: the one given for it, or its own."""
    return (layouts or {}).get(kind, "chat" if kind in CHATS else kind)


def _texts(row: Row) -> list[str]:
    """All texts of a row of any data set."""
    if "messages" in row:
        return [part["text"] or "" for message in row["messages"] for part in message["content"]]
    return row["texts"] if "texts" in row else [row["caption"]]


def _learnt(make: Make, row: Row, rng: random.Random, tokenizer: Tokenizer) -> Drawn:
    """What a task makes of a row, if there is a reply in it."""
    if not any(text.strip() for text in _texts(row)):
        raise NothingToLearn("there is no word in it")
    drawn = make(row, rng, tokenizer)
    if isinstance(drawn.item, Example):
        said = "".join(piece for piece in drawn.item.target if isinstance(piece, str)).strip(" #")
    else:
        reply = drawn.item[-1]["content"]
        said = reply if isinstance(reply, str) else "".join(part.get("text") or "" for part in reply)
    if not said.strip() and not drawn.paints:
        raise NothingToLearn("the reply is empty")
    return drawn


class Mixture:
    """Draws batches of conversations.

    A row that gives a task nothing to learn, or that cannot be encoded or is longer than the model's context, is passed
    over and counted as one with a broken picture is; the next row takes its place.

    Args:
        root: folder with the data sets, each in a folder by its name (cc3m, vist, mmdialog, any of `CHATS`), laid out
            as `layout_of` says.
        mix: conversations a batch, by task; see `TASKS`.
        split: of the data sets, or of each by its name.
        layouts: another layout for a data set's folder, as `{"vist": "vist-raw"}`.
        max_bad_share: share of the rows read that cannot be used that stops the run.
        encode: makes a batch of conversations, as `training_batch` of a processor or reader; for `batch`.
        context: tokens of a conversation that the model has positions for.
        tokenizer: by which the published MMDialog ends talks before a long turn, as `mmdialog_drafts` says.

    Raises:
        FileNotFoundError, ValueError: see `open_dataset`; or if there are no rows.
    """

    def __init__(
        self,
        root: Path,
        mix: Mapping[str, int],
        split: str | Mapping[str, str] = "train",
        layouts: Mapping[str, str] | None = None,
        seed: int = 0,
        max_bad_share: float = 0.01,
        encode: Callable[[Sequence[list[Message] | Example]], BatchFeature] | None = None,
        context: int = sys.maxsize,
        tokenizer: Tokenizer = None,
    ):
        self.mix, self.seed, self.encode, self.context, self.tokenizer = mix, seed, encode, context, tokenizer
        self.rows: dict[str, TolerantDataset] = {}
        for kind in sorted({TASKS[task][0] for task in mix}):
            name = split if isinstance(split, str) else split[kind]
            rows = cast(Dataset, open_dataset(layout_of(kind, layouts), root / kind, name))
            if not len(rows):
                raise ValueError(f"{root / kind}: there are no rows in the split {name}")
            self.rows[kind] = TolerantDataset(rows, max_bad_share, seed)

    @property
    def sizes(self) -> dict[str, int]:
        """How many rows each data set has."""
        return {kind: len(rows) for kind, rows in self.rows.items()}

    def __call__(self, index: int) -> list[Drawn]:
        """This process's share of a batch."""
        return self._usable(self._places(index))[0]

    def batch(self, index: int) -> tuple[list[Drawn], BatchFeature]:
        """This process's share of a batch, and the same encoded."""
        return self._usable(self._places(index))

    def questions(self, count: int) -> list[list[Message] | Example]:
        """The first `count` prompts whose reply paints a picture; none where no task paints."""
        found: list[list[Message] | Example] = []
        paints = [task for task in self.mix if task not in TEXT_TASKS]
        for number in range(50 * count if paints else 0):
            ((drawn,), _) = self._usable([(paints[number % len(paints)], number)])
            if drawn.paints:
                found.append(drawn.item if isinstance(drawn.item, Example) else drawn.item[:-1])
            if len(found) == count:
                break
        return found

    def _places(self, index: int) -> Sequence[tuple[str, int]]:
        return shard([(task, index * count + i) for task, count in self.mix.items() for i in range(count)])

    def _usable(self, places: Sequence[tuple[str, int]]) -> tuple[list[Drawn], Any]:
        """One conversation a place, and all of them encoded."""
        rows, encode = [self._rows(*place) for place in places], self.encode
        if encode is None:
            return [next(candidates)[0] for candidates in rows], None

        def encoded(taken: Sequence[tuple[Drawn, Row]]) -> BatchFeature:
            return encode([drawn.item for drawn, _ in taken])

        def pass_over(place: int, taken: tuple[Drawn, Row], problem: str) -> None:
            self._pass_over(places[place][0], taken[1], problem)

        taken, batch = usable(rows, encoded, self.context, pass_over)
        return [drawn for drawn, _ in taken], batch

    def _rows(self, task: str, number: int) -> Iterator[tuple[Drawn, Row]]:
        """What a task makes of a row, and of those after it."""
        kind, make = TASKS[task]
        rows = self.rows[kind]
        rng = random.Random(f"{self.seed}/{task}/{number}")
        # In so many there is each row once, wherever in an order the first one stands.
        for further in range(2 * len(rows)):
            row = rows.drawn(number + further)
            try:
                yield _learnt(make, row, rng, self.tokenizer), row
            except NothingToLearn as error:
                self._pass_over(task, row, str(error))
        raise ValueError(f"no row of {kind} gives anything to learn for the task {task}")

    def _pass_over(self, task: str, row: Row, problem: str) -> None:
        kind = TASKS[task][0]
        beginning = next((text for text in _texts(row) if text.strip()), "")
        self.rows[kind].count.add(f"{kind}, the row that begins {beginning[:40]!r}: {problem}")
