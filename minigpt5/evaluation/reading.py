"""The evaluation of what reads, which replies in words: a pipeline's reader, or any vision-language model by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

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
from minigpt5.evaluation.storyworld import storyworld_columns
from minigpt5.evaluation.systems import AskingSettings, TextMetricSettings, machine, revision
from minigpt5.joining import open_reader
from minigpt5.loading import open_model
from minigpt5.output import MiniGPT5PipelineOutput
from minigpt5.readers import Reader, add_vokens, reader_of
from minigpt5.readers.prompts import Prompt
from minigpt5.readers.vokens import voken_ids
from minigpt5.utils.processes import is_main_process, pick_device
from minigpt5.utils.programs import ProgramError, opening
from minigpt5.utils.settings import DTYPES, Settings, setting
from minigpt5.vokens.adapter_folder import RECORD
from minigpt5.vokens.decoding import decode_texts
from minigpt5.weights import check_model, shipped_model


@dataclass(kw_only=True)
class ReaderSettings(Settings):
    """The model."""

    model: str = setting(
        "storyworld-mini", help="shipped model, folder or hub repository of a pipeline or a vision-language model"
    )
    adapter: Path | None = setting(None, help="folder of what training made beside that model, a pipeline")
    dtype: str = setting("float32", choices=DTYPES, help="of all weights")
    max_new_tokens: int = setting(64, least=1, most=100_000, help="of a reply")

    def __post_init__(self):
        super().__post_init__()
        if not (Path(self.model) / "config.json").is_file():
            check_model(self.model)
        if self.adapter is not None and not (self.adapter / RECORD).is_file():
            raise ValueError(f"adapter: {self.adapter} is not the folder of one: it has no {RECORD}")


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
    for name in ("images", "sentences"):
        path = getattr(config, name)
        if path is not None and not path.exists():
            raise ProgramError(f"{name}: there is no {path}")
    items = reading_items(config)
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
        "model": {"name": config.model, "revision": _revision(config.model)},
        "adapter": adapter and {"name": str(adapter), "revision": revision(adapter)},
        "layout": config.layout,
        **{name: path and str(path) for name in ("data", "annotations", "images") if (path := getattr(config, name))},
        "wording": WORDINGS[config.layout] if config.wording is None else config.wording,
        "max_new_tokens": config.max_new_tokens,
        "dtype": config.dtype,
        **machine(),
    }


def _revision(model: str) -> str:
    try:
        return revision(model)
    except FileNotFoundError:
        return revision(model, "config.json")


def load_reader(config: ReaderSettings) -> Speaker:
    """The reader that the settings name, on this process's device.

    Raises:
        ProgramError: if it cannot be opened; names it.
    """
    dtype = getattr(torch, config.dtype)
    if config.adapter is not None or (Path(shipped_model(config.model)) / "model_index.json").exists():
        return Speaker(open_model(config.model, config.adapter, dtype).reader)
    with opening(f"the model {config.model}"):
        model, processor = open_reader(config.model, dtype)
        if not voken_ids(getattr(processor, "tokenizer", processor)):
            # Replies without pictures never say it; readers have one by their making.
            processor = add_vokens(model, processor, n_vokens=1)
        return Speaker(reader_of(model.to(pick_device()), processor))  # pyright: ignore[reportArgumentType]


class Speaker:
    """A reader that is called as a pipeline is, and replies in words alone, greedily."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def __call__(
        self, prompt: Sequence[Prompt], *, image_mode: str = "never", generator: Any = None, max_new_tokens: int = 64
    ) -> MiniGPT5PipelineOutput:
        """A text for each prompt; there is nothing for a generator to draw.

        Raises:
            ValueError: if pictures are asked for, or the reader refuses a prompt.
        """
        if image_mode != "never":
            raise ValueError(f"a reader by itself paints nothing, image_mode is {image_mode}")
        texts = decode_texts(self.reader, prompt, len(prompt), max_new_tokens=max_new_tokens)
        return MiniGPT5PipelineOutput(
            text=texts, images=[[] for _ in texts], segments=[[text] if text else [] for text in texts]
        )
