"""The evaluation of what reads, which replies in words: a pipeline's reader, or any vision-language model by itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minigpt5.evaluation.items import Item
from minigpt5.evaluation.measure import Weights
from minigpt5.evaluation.reading_items import (
    APART,
    WORDINGS,
    caption_items,
    chat_items,
    coco_items,
    llava_items,
    refcoco_items,
    vqa_items,
)
from minigpt5.evaluation.run import answer, report
from minigpt5.evaluation.speaker import ReaderSettings, load_reader, reader_revision
from minigpt5.evaluation.storyworld import check_marked, storyworld_columns
from minigpt5.evaluation.systems import AskingSettings, TextMetricSettings, check_paths, machine
from minigpt5.loading import revision
from minigpt5.utils.processes import is_main_process
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class ReadingConfig(ReaderSettings, TextMetricSettings, AskingSettings):
    """What is asked."""

    layout: str = setting("chat", choices=tuple(WORDINGS), help="of the file with questions")
    data: Path = setting(help="that file")
    annotations: Path | None = setting(None, help="file of the answers, for vqa")
    images: Path | None = setting(None, help=f"folder of the pictures, for {', '.join(APART)}; null for the file's")
    wording: str | None = setting(None, help="prompt in which {} is the question or phrase; null for the layout's own")

    def __post_init__(self):
        super().__post_init__()
        if (self.annotations is None) == (self.layout == "vqa"):
            raise ValueError(f"annotations: the layout vqa has such a file and no other, layout is {self.layout}")
        if self.images is not None and self.layout not in APART:
            raise ValueError(f"images: the layout {self.layout} names its pictures relative to its file")
        if self.judge is not None and self.layout not in ("chat", "cc3m"):
            raise ValueError(f"judge: StoryWorld writes the layouts chat and cc3m, and knows nothing of {self.layout}")
        asks = "{}" in WORDINGS[self.layout]
        if self.wording is not None and ("{}" in self.wording) != asks:
            told = "has {} for the question" if asks else "asks all pictures the same, without {}"
            raise ValueError(f"wording: a wording of the layout {self.layout} {told}")


def reading_items(config: ReadingConfig) -> list[Item]:
    """The questions that the settings name.

    Raises:
        FileNotFoundError, ValueError: see `minigpt5.evaluation.reading_items`.
    """
    wording = WORDINGS[config.layout] if config.wording is None else config.wording
    if config.layout == "vqa":
        assert config.annotations is not None, "the settings of vqa name them"
        return vqa_items(config.data, config.annotations, config.images, wording, config.count)
    if config.layout in APART:
        apart = {"chat-llava": llava_items, "coco": coco_items, "refcoco": refcoco_items}
        return apart[config.layout](config.data, config.images, wording, config.count)
    return {"chat": chat_items, "cc3m": caption_items}[config.layout](config.data, wording, config.count)


def evaluate_reading(config: ReadingConfig) -> None:
    """Have the reader that the settings name reply to all questions, take the figures and write the report.

    Raises:
        ProgramError, OSError: if something that the settings name is not there or cannot be opened or written.
        ValueError: if a file is not in its layout, the output folder holds replies that were made otherwise, or too
            many items are passed over.
    """
    check_paths(config)
    items = reading_items(config)
    if config.judge:
        check_marked(items, config.data)
    load, limit = partial(load_reader, config), config.max_new_tokens
    replies = answer(config, items, reading_settings(config), load, max_new_tokens=limit)
    if is_main_process():
        columns = storyworld_columns({}) if config.judge else None
        report(config.out, "Reading", items, replies, Weights(sentences=config.sentences), columns)


def reading_settings(config: ReadingConfig) -> dict[str, Any]:
    """All that replies depend on.

    Raises:
        FileNotFoundError: see `revision`.
    """
    adapter = config.adapter
    return {
        "model": {"name": config.model, "revision": reader_revision(config.model)},
        "adapter": adapter and {"name": str(adapter), "revision": revision(adapter)},
        "layout": config.layout,
        **{name: path and str(path) for name in ("data", "annotations", "images") if (path := getattr(config, name))},
        "wording": WORDINGS[config.layout] if config.wording is None else config.wording,
        "max_new_tokens": config.max_new_tokens,
        "dtype": config.dtype,
        **machine(config),
    }
