"""What replies in words alone: the reader of a pipeline, or any vision-language model of transformers by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt5.loading import open_model as open_pipeline
from minigpt5.loading import revision
from minigpt5.output import MiniGPT5PipelineOutput
from minigpt5.readers import Reader, reader_of
from minigpt5.readers.opening import open_model
from minigpt5.readers.prompts import Prompt
from minigpt5.readers.vokens import with_vokens
from minigpt5.utils.processes import pick_device
from minigpt5.utils.programs import opening
from minigpt5.utils.settings import DTYPES, Settings, setting
from minigpt5.vokens.adapter_folder import RECORD
from minigpt5.vokens.decoding import decode_texts
from minigpt5.weights import check_model, is_pipeline


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


def reader_revision(model: str) -> str:
    """Which pipeline or vision-language model it is exactly; see `revision`.

    Raises:
        FileNotFoundError: if it is neither a folder nor in the hub's cache.
    """
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
    if config.adapter is not None or is_pipeline(config.model):
        return Speaker(open_pipeline(config.model, config.adapter, dtype).reader)
    with opening(f"the model {config.model}"):
        model, processor = open_model(config.model, dtype)
        # Replies without pictures never say it; readers have one by their making.
        processor = with_vokens(model, processor, n_vokens=1)
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
