"""What the claims need trained and asked, as data.

Folders of a run are written as `$work`, `$data`, `$captions`, `$base`, `$aligned`, `$shipped`. What lies under `$work`
is written by the job of its first name, for which whatever reads it waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minigpt5.evaluation.claims.paper import (
    CAPTIONS,
    DIVTER,
    EVERY,
    FINE_TUNED,
    FULL,
    GILL,
    LORA,
    NEXT,
    NO_CAPTION,
    NO_GUIDANCE,
    NO_LDM,
    NO_UAS,
    PREFIX,
    SHIPPED,
    TURN,
    TWO_STAGE,
    VOKENS,
    ZERO_SHOT,
    final,
    guidance_system,
    vokens_system,
)
from minigpt5.evaluation.items import CONTEXTS


@dataclass(frozen=True)
class Counts:
    """How much is asked: captions and talks, stories by task; and how many captions and talks are trained on."""

    captions: int = 64
    guidance: int = 40
    final: int = 60
    every: int = 24
    next: int = 24
    talks: int = 20
    training_captions: int = 20_000
    divter_talks: int = 2000
    scales: tuple[float, ...] = (1, 2.5, 5, 10, 15, 20)


# For a run that only shows that everything runs.
FEW = Counts(2, 2, 2, 2, 2, 2, 24, 4, (1, 2.5, 10, 20))


@dataclass(frozen=True)
class Training:
    """A run of a training program.

    Args:
        program: its name in `training/`.
        config: its settings file in `configs/storyworld-claims/`.
        options: what differs from that, and the folders.
    """

    program: str
    config: str
    options: Mapping[str, object]


def _align(n_vokens: int = 8, **options: object) -> Training:
    given = {"data": "$captions", "model": f"$work/base-{n_vokens}", "judge": "$judge"}
    return Training("miniature/align_coached", "align", given | options)


def _interleave(start: str, **options: object) -> Training:
    given = {"data": "$data", "model": start, "judge": "$judge"}
    return Training("miniature/interleave_coached", "interleaved", given | options)


def _text(data: str, **options: object) -> Training:
    return Training("train_interleaved", "text", {"data": data, "model": "$work/base-8"} | options)


TRAININGS = {
    "align-full": _align(),
    "interleaved-full": _interleave("$aligned"),
    "interleaved-no-uas": _interleave("$base"),
    "interleaved-prefix": _interleave("$aligned", lora="null", prefix_length=16, fuse="false"),
    "interleaved-gill": _interleave("$aligned", **{"weights.diffusion": 0}),
    "text": _text("$data"),
    "divter": _text("$work/divter-data", mix="{chat: 8}"),
    "finetuned-diffusion": Training(
        "finetune_diffusion", "finetune_diffusion", {"data": "$data", "model": "$work/base-8"}
    ),
    "align-no-guidance": _align(**{"weights.guidance_dropout": 0}),
    "align-no-ldm": _align(**{"weights.diffusion": 0}),
    # Without the caption loss there is nothing to wait for with the diffusion loss.
    "align-no-caption": _align(**{"weights.caption": 0, "caption_only_steps": 0}),
} | {f"align-{count}": _align(count) for count in VOKENS if count != 8}


@dataclass(frozen=True)
class SystemConfig:
    """What is asked: a pipeline's folder, and what is put around or into it.

    Args:
        kind: the pipeline itself ("minigpt5") or a baseline made of its parts.
    """

    model: str
    kind: str = "minigpt5"
    adapter: str | None = None
    unet: str | None = None
    guidance_scale: float | None = None


_UNET = "$work/finetuned-diffusion/model/unet"
SYSTEMS = {
    SHIPPED: SystemConfig("$shipped"),
    LORA: SystemConfig("$work/interleaved-full/model"),
    NO_UAS: SystemConfig("$work/interleaved-no-uas/model"),
    PREFIX: SystemConfig("$aligned", adapter="$work/interleaved-prefix/adapter"),
    ZERO_SHOT: SystemConfig("$base", "diffusion"),
    FINE_TUNED: SystemConfig("$base", "diffusion", unet=_UNET),
    TWO_STAGE: SystemConfig("$work/text/model", "two-stage", unet=_UNET),
    GILL: SystemConfig("$work/interleaved-gill/model", "gill"),
    DIVTER: SystemConfig("$work/divter/model", "divter"),
    FULL: SystemConfig("$work/align-full/model"),
    NO_GUIDANCE: SystemConfig("$work/align-no-guidance/model"),
    NO_LDM: SystemConfig("$work/align-no-ldm/model"),
    NO_CAPTION: SystemConfig("$work/align-no-caption/model"),
} | {vokens_system(count): SystemConfig(f"$work/align-{count}/model") for count in VOKENS if count != 8}


@dataclass(frozen=True)
class Evaluation:
    """A system and the tasks of one data set that it is asked, each of so many captions, stories or talks."""

    system: SystemConfig
    data: str
    tasks: Mapping[str, int]


_STORIES, _TALKS, _PAIRS, _CAPTIONS = "$data/vist", "$data/mmdialog", "$data/cc3m", "$captions/cc3m"


def evaluations(counts: Counts) -> dict[str, Evaluation]:
    """All that is asked, by the system's name and what it is asked of."""
    contexts = {final(name): counts.final for name in CONTEXTS}
    richest, none = final("image-text"), final("no")
    steps, told, turns = {EVERY: counts.every}, {NEXT: counts.next}, {TURN: counts.talks}
    asked: list[tuple[str, str, str, Mapping[str, int]]] = [(SHIPPED, "stories", _STORIES, contexts | steps | told)]
    asked += [(name, "stories", _STORIES, {richest: counts.final} | steps | told) for name in (LORA, NO_UAS, PREFIX)]
    asked += [(name, "stories", _STORIES, {none: counts.final} | steps) for name in (ZERO_SHOT, FINE_TUNED)]
    asked += [(TWO_STAGE, "stories", _STORIES, told)]
    asked += [(name, "dialogue", _TALKS, turns) for name in (SHIPPED, LORA, PREFIX, GILL, DIVTER)]
    ablations = (FULL, NO_GUIDANCE, NO_LDM, NO_CAPTION, ZERO_SHOT, *map(vokens_system, VOKENS))
    asked += [(name, "captions", _CAPTIONS, {CAPTIONS: counts.captions}) for name in dict.fromkeys(ablations)]
    found = {f"{name}: {of}": Evaluation(SYSTEMS[name], data, tasks) for name, of, data, tasks in asked}
    for scale in counts.scales:
        system = SystemConfig("$shipped", guidance_scale=scale)
        found[f"{guidance_system(scale)}: captions"] = Evaluation(system, _PAIRS, {CAPTIONS: counts.guidance})
    return found
