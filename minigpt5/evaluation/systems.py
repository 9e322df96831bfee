"""What evaluation programs are told, and the systems that they then ask."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from diffusers import UNet2DConditionModel

from minigpt5 import __version__
from minigpt5.data.splits import choose_split
from minigpt5.evaluation.baselines import GILL, Divter, TwoStage, ZeroShotDiffusion
from minigpt5.evaluation.generation import System
from minigpt5.evaluation.items import PROMPTS
from minigpt5.evaluation.measure import Weights
from minigpt5.loading import ModelSettings, open_model, revision
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.utils.actors import ActorSettings
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.processes import pick_device, process_state
from minigpt5.utils.programs import ProgramError, opening
from minigpt5.utils.settings import DTYPES, Settings, setting
from minigpt5.vokens.mapper import VokenMapper
from minigpt5.weights import shipped_model

BASELINES = ("diffusion", "two-stage", "gill", "divter")
# Which baselines take which part.
_TAKES = {"unet": ("diffusion", "two-stage", "divter"), "mapper": ("gill",), "mark": ("divter",)}
Config = TypeVar("Config", bound="EvaluationConfig")


@dataclass(kw_only=True)
class SystemSettings(ModelSettings):
    """The system."""

    baseline: str | None = setting(None, choices=BASELINES, help="evaluate this baseline, made of the model's parts")
    unet: Path | None = setting(None, help="folder of a fine-tuned UNet that paints in a baseline")
    mapper: Path | None = setting(None, help="folder of GILL's mapper")
    mark: str | None = setting(None, help="what Divter says before a description; null for [DST]")
    dtype: str = setting("float32", choices=DTYPES, help="of all weights")
    num_inference_steps: int | None = setting(None, least=1, most=1000, help="null for the model's own")
    guidance_scale: float | None = setting(None, least=0, most=100, help="null for the model's own")

    def __post_init__(self):
        super().__post_init__()
        for name, takers in _TAKES.items():
            if getattr(self, name) is not None and self.baseline not in takers:
                raise ValueError(f"{name} goes with baseline {' or '.join(takers)}, not with {self.baseline}")


@dataclass(kw_only=True)
class TextMetricSettings(Settings):
    """Metrics of words and their weights, which are never downloaded."""

    sentences: Path | None = setting(None, help="folder of a sentence encoder, for S-BERT similarity")
    judge: str | None = setting(
        None, choices=("storyworld",), help="add the judge's figures, for data that StoryWorld wrote"
    )


@dataclass(kw_only=True)
class MetricSettings(TextMetricSettings):
    """Metrics and their weights, which are never downloaded."""

    clip: str = setting("ViT-L/14", help="name, file or folder of a CLIP model")
    inception: Path | None = setting(None, help="file of Inception v3's weights, for FID, KID and Inception Score")
    hps: Path | None = setting(None, help="file of HPSv2's weights, to compute it")
    pick_score: Path | None = setting(None, help="folder of PickScore's model, to compute it")


@dataclass(kw_only=True)
class AskingSettings(ActorSettings):
    """How items are asked."""

    count: int | None = setting(None, least=1, help="only the first captions, stories, talks or questions")
    out: Path = setting(help="folder for replies and results; what is there is kept")
    batch_size: int = setting(32, least=1, help="items asked at a time, over all processes or by an actor")
    seed: int = setting(0, least=0, most=2**32 - 1, help="of the noise that pictures are made of")
    max_bad_share: float = setting(
        0.01, least=0, below=1, help="share of the items that may be passed over, as they cannot be asked"
    )

    def __post_init__(self):
        super().__post_init__()
        processes = process_state().num_processes
        if self.batch_size < processes:
            raise ValueError(f"batch_size is {self.batch_size}, of which {processes} processes cannot have one each")
        if self.ray and processes > 1:
            raise ValueError(f"ray: one process shares the work among actors, and there are {processes} processes")


@dataclass(kw_only=True)
class EvaluationConfig(SystemSettings, MetricSettings, AskingSettings):
    """What is asked."""

    layout: ClassVar[str]

    data: Path = setting(help="the data set's folder")
    split: str | None = setting(None, help="null for the one whose name says it: validation, val, …")
    prompts: str = setting("chat", choices=PROMPTS, help="how they are worded")


def with_split(config: Config) -> Config:
    """The settings with the split that is meant.

    Raises:
        FileNotFoundError, ValueError: see `choose_split`.
    """
    return replace(config, split=choose_split(config.data, config.layout, "validation", config.split, "split"))


def metric_weights(config: MetricSettings) -> Weights:
    """Where the settings say that the metrics' weights are."""
    return Weights(config.clip, config.inception, config.sentences, config.hps, config.pick_score)


def check_paths(config: Settings) -> None:
    """Look for what the settings name, before anything is opened.

    Raises:
        ProgramError: if it is not there; names the setting.
    """
    for name in ("unet", "mapper", "inception", "sentences", "hps", "pick_score", "images"):
        path = getattr(config, name, None)
        if path is not None and not path.exists():
            raise ProgramError(f"{name}: there is no {path}")


def load_system(config: SystemSettings) -> System:
    """The system that the settings name, on this process's device.

    Raises:
        ProgramError: if a part of it cannot be opened; names it.
    """
    dtype = getattr(torch, config.dtype)
    pipe = open_model(config.model, config.adapter, dtype)
    if config.baseline is None:
        return pipe
    if config.baseline == "gill":
        mapper = None
        if config.mapper:
            with opening(f"the mapper {config.mapper}"):
                mapper = load_whole(VokenMapper, config.mapper, torch_dtype=dtype).to(pick_device())
        return GILL.around(pipe, mapper)
    unet = None
    if config.unet:
        with opening(f"the UNet {config.unet}"):
            unet = load_whole(UNet2DConditionModel, config.unet, torch_dtype=dtype).to(pick_device())
    painter = ZeroShotDiffusion(pipe, unet)
    if config.baseline == "diffusion":
        return painter
    if config.baseline == "two-stage":
        return TwoStage(pipe, painter)
    return Divter(pipe, painter, **({"mark": config.mark} if config.mark else {}))


def settings_of(config: EvaluationConfig) -> dict[str, Any]:
    """All that replies depend on.

    Raises:
        ProgramError: if the model cannot be opened.
        FileNotFoundError: see `revision`.
    """
    return {
        **system_record(config),
        "layout": config.layout,
        "data": str(config.data),
        "split": config.split,
        "prompts": config.prompts,
        "seed": config.seed,
        **machine(config),
    }


def system_record(config: SystemSettings) -> dict[str, Any]:
    """Which system it is exactly, and how it paints.

    Raises:
        ProgramError: if the model cannot be opened.
        FileNotFoundError: see `revision`.
    """
    with opening(f"the model {config.model}"):
        own: Any = MiniGPT5Pipeline.load_config(shipped_model(config.model))
    steps, guidance = config.num_inference_steps, config.guidance_scale
    return {
        "model": {"name": config.model, "revision": revision(config.model)},
        "baseline": config.baseline,
        **{
            name: path and {"name": str(path), "revision": revision(path)}
            for name, path in (("adapter", config.adapter), ("unet", config.unet), ("mapper", config.mapper))
        },
        "mark": config.mark,
        "num_inference_steps": own["num_inference_steps"] if steps is None else steps,
        "guidance_scale": own["guidance_scale"] if guidance is None else guidance,
        "dtype": config.dtype,
    }


def machine(actors: ActorSettings) -> dict[str, Any]:
    """What replies depend on beside settings: the kind of device, and the versions of what makes them."""
    of_actors = "cuda" if actors.gpus_per_actor else "cpu"
    return {
        "device": of_actors if actors.ray else pick_device().type,
        "versions": {
            "minigpt5": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers", "transformers")},
        },
    }
