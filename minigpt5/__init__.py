"""MiniGPT-5: a pipeline that reads and makes interleaved text and pictures.

from minigpt5 import MiniGPT5Pipeline

pipe = MiniGPT5Pipeline.from_pretrained("storyworld-mini")
reply = pipe("Draw this: a red fox in the forest at night.")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from minigpt5.utils.imports import collector_paused
from minigpt5.utils.registry import lend

__version__ = "0.2.0"

# Names are imported when they are first used: `import minigpt5` alone loads neither torch nor diffusers.
_HOME = {
    "ComposedForConditionalGeneration": "minigpt5.readers.composed",
    "ComposedProcessor": "minigpt5.readers.composed_processor",
    "DecodingConfig": "minigpt5.vokens.decoding",
    "ImageEvent": "minigpt5.pipeline",
    "MiniGPT4ForConditionalGeneration": "minigpt5.readers.minigpt4",
    "MiniGPT5Pipeline": "minigpt5.pipeline",
    "MiniGPT5PipelineOutput": "minigpt5.output",
    "MiniGPT5Processor": "minigpt5.readers.processor",
    "QueryConnector": "minigpt5.vokens.query_connector",
    "TextEvent": "minigpt5.vokens.decoding",
    "VokenMapper": "minigpt5.vokens.mapper",
}

__all__ = [
    "ComposedForConditionalGeneration",
    "ComposedProcessor",
    "DecodingConfig",
    "ImageEvent",
    "MiniGPT4ForConditionalGeneration",
    "MiniGPT5Pipeline",
    "MiniGPT5PipelineOutput",
    "MiniGPT5Processor",
    "QueryConnector",
    "TextEvent",
    "VokenMapper",
    "__version__",
]

if TYPE_CHECKING:
    from minigpt5.output import MiniGPT5PipelineOutput
    from minigpt5.pipeline import ImageEvent, MiniGPT5Pipeline
    from minigpt5.readers.composed import ComposedForConditionalGeneration
    from minigpt5.readers.composed_processor import ComposedProcessor
    from minigpt5.readers.minigpt4 import MiniGPT4ForConditionalGeneration
    from minigpt5.readers.processor import MiniGPT5Processor
    from minigpt5.vokens.decoding import DecodingConfig, TextEvent
    from minigpt5.vokens.mapper import VokenMapper
    from minigpt5.vokens.query_connector import QueryConnector


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'minigpt5' has no attribute {name!r}")
    with collector_paused():
        return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


# So that `DiffusionPipeline` and `AutoProcessor` open our folders wherever this package is imported.
lend("diffusers", "MiniGPT5Pipeline", lambda: __getattr__("MiniGPT5Pipeline"))
# transformers executes itself a second time when its processors are imported.
lend(
    "transformers",
    "MiniGPT5Processor",
    lambda: __getattr__("MiniGPT5Processor"),
    after="transformers.processing_utils",
)
