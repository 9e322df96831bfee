"""The model that a program asks: named in the same settings everywhere, and opened for this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.utils.processes import pick_device
from minigpt5.utils.programs import opening
from minigpt5.utils.settings import Settings, setting
from minigpt5.vokens.adapter_folder import RECORD
from minigpt5.weights import check_model


@dataclass(kw_only=True)
class ModelSettings(Settings):
    """The model."""

    model: str = setting("storyworld-mini", help="shipped model, pipeline folder or hub repository")
    adapter: Path | None = setting(None, help="folder of what training made beside that model")

    def __post_init__(self):
        super().__post_init__()
        check_model(self.model)
        if self.adapter is not None and not (self.adapter / RECORD).is_file():
            raise ValueError(f"adapter: {self.adapter} is not the folder of one: it has no {RECORD}")


def open_model(
    model: str | Path, adapter: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> MiniGPT5Pipeline:
    """A pipeline, with its adapter if there is one, on this process's device and without progress bars.

    Raises:
        ProgramError: if one of them cannot be opened; names it.
    """
    with opening(f"the model {model}"):
        pipe = MiniGPT5Pipeline.from_pretrained(str(model), dtype=dtype)
    if adapter is not None:
        with opening(f"the adapter {adapter}"):
            pipe.load_adapter(adapter)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(pick_device())
