"""What is trained, asked and stated to decide the paper's claims: the one source of docs/claims-plan.md and of the run.

Committed before the trainings; the report names that commit. A system is trained from each seed; a statement compares
systems on the same items. See `register.py` for the page and `trainings.py` for how a training goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from minigpt5.evaluation.claims.flatness import MOST_ROUNDS
from minigpt5.evaluation.claims.world import CAPTIONS, EVERY, NEXT, SHARES, TURN, final


@dataclass(frozen=True)
class Amounts:
    """How much of everything.

    Args:
        seeds: of every system.
        validation: items that a training's curve is taken over.
        captions, stories, talks: that are asked at the end.
        guidance: captions at each guidance scale.
        scales: of guidance.
        pool_captions, pool_stories, pool_talks: to learn from.
        steps: in the place of every training's own; `None` for these.
        rounds: of a training, at most.
        steps_of_painting: of the sampler.
        draws: of a bootstrap.
        jobs_a_process: done one after the other, which spares many starts.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    validation: int = 120
    captions: int = 200
    stories: int = 200
    talks: int = 200
    guidance: int = 100
    scales: tuple[float, ...] = (1, 1.5, 2, 3, 4, 5, 7.5, 10, 12.5, 15, 20, 30)
    pool_captions: int = 8000
    pool_stories: int = 4000
    pool_talks: int = 4000
    steps: int | None = None
    rounds: int = MOST_ROUNDS
    steps_of_painting: int = 10
    draws: int = 2000
    jobs_a_process: int = 1


# For a run that only shows that everything runs.
FEW = Amounts((0, 1), 2, 3, 2, 2, 2, (1, 3, 10, 30), 40, 8, 8, 6, 2, 2, 20, 30)


@dataclass(frozen=True)
class Part:
    """A training's first budget.

    Args:
        steps: of the first round; a round more is half as much again, see `flatness.py`.
        seconds: of one step on one thread, measured.
    """

    steps: int
    batch_size: int
    rate: float
    seconds: float


# Of every training: the adapter of the language model, and the weight of L_text where pictures are learnt too.
LORA = {"rank": 16, "alpha": 32, "dropout": 0.0, "targets": ("q_proj", "k_proj", "v_proj", "o_proj")}
TEXT_WEIGHT = 0.3
# Of every picture but those of claim 8, in which latents of deviation 1 are clamped to so many.
GUIDANCE_SCALE, CLAMPED_TO = 2.0, 3.0
# The frozen parts, each trained once.
PARTS = {
    "vae": Part(1800, 16, 2e-3, 0.08),
    "judge": Part(1200, 32, 2e-3, 0.03),
    "painter": Part(3000, 32, 1e-3, 0.13),
    "reader": Part(3000, 32, 1e-3, 0.13),
}
# The systems' trainings, by kind.
KINDS = {
    "align": Part(1500, 16, 1e-3, 0.10),
    "interleave": Part(1500, 16, 1e-3, 0.13),
    "text": Part(1500, 16, 1e-3, 0.065),
    "words": Part(1500, 16, 1e-3, 0.07),
    "painter": Part(1500, 16, 3e-4, 0.06),
}


@dataclass(frozen=True)
class System:
    """A system, trained from each seed.

    Args:
        told: what it is, for tables.
        kind: what it learns, of `KINDS`; `None` where nothing is trained.
        answers: how it is asked: "vokens", "gill", "two-stage", "words" or "painter" (a sentence alone).
        tasks: what it is asked.
        start: the system of the same seed that it goes on from; `None` for the frozen parts.
        needs: others of the same seed that it is made of.
        n_vokens, connector, sizes: of what is joined, see `MiniGPT5Pipeline.join`.
        caption, diffusion, guidance_dropout: of the losses, see `LossWeights`.
        prefix: length of a prefix in LoRA's place.
        trains_painter: whether the UNet trains along.
        captions: of the pool that it learns from; `None` for all.
    """

    told: str
    kind: str | None
    answers: str
    tasks: tuple[str, ...]
    start: str | None = None
    needs: tuple[str, ...] = ()
    n_vokens: int = 8
    connector: str = "mapper"
    sizes: Mapping[str, Any] = field(default_factory=dict)
    caption: float = 1.0
    diffusion: float = 1.0
    guidance_dropout: float = 0.1
    prefix: int = 0
    trains_painter: bool = False
    captions: int | None = None


def guided(scale: float, clamped: bool) -> str:
    """The task of painting captions at a guidance scale, perhaps with latents clamped to what they can be."""
    return f"captions, guidance {scale:g}{', clamped' * clamped}"


def guidance_tasks(scales: tuple[float, ...]) -> tuple[str, ...]:
    """All of them."""
    return tuple(guided(scale, clamped) for clamped in (False, True) for scale in scales)


VOKENS = (1, 2, 4, 8, 16, 32)
SIZES = (125, 500, 2000)
ALIGN, FULL, NO_UAS, PREFIX, GILL, TEXT = "align", "full", "no-uas", "prefix", "gill", "text"
TWO_STAGE, DIVTER, SD, TUNED = "two-stage", "divter", "sd", "tuned-sd"
# Tasks of all guidance scales, in one word.
GUIDANCE = "guidance"


def _align(told: str, **options: Any) -> System:
    return System(told, "align", "vokens", options.pop("tasks", (CAPTIONS,)), **options)


def vokens_system(count: int) -> str:
    """The name of the system with so many vokens."""
    return ALIGN if count == 8 else f"vokens-{count}"


_RICHEST = tuple(final("image-text", share) for share in SHARES)
_CONTEXTS = tuple(final(context, share) for share in SHARES for context in ("no", "text", "image", "image-text"))
_STORIES, _ALL = (*_RICHEST, EVERY, NEXT), (*_CONTEXTS, EVERY, NEXT, TURN)
SYSTEMS: dict[str, System] = {
    SD: System("zero-shot SD", None, "painter", (CAPTIONS, EVERY, GUIDANCE)),
    ALIGN: _align("alignment in full, 8 vokens", tasks=(CAPTIONS, GUIDANCE)),
    "no-guidance": _align("alignment without guidance training", guidance_dropout=0.0),
    "no-ldm": _align("alignment without L_LDM (GILL's objective)", diffusion=0.0),
    "no-caption": _align("alignment without L_caption", caption=0.0),
    **{vokens_system(n): _align(f"{n} voken{'s' * (n > 1)}", n_vokens=n) for n in VOKENS if n != 8},
    "queries-8": _align("8 queries all at once", connector="queries", sizes={"head_dim": 16, "num_layers": 4}),
    "queries-32": _align(
        "32 queries all at once", connector="queries", n_vokens=32, sizes={"head_dim": 16, "num_layers": 4}
    ),
    "queries-layers": _align(
        "8 queries, states of all three layers",
        connector="queries",
        sizes={"head_dim": 16, "num_layers": 4, "width": 96, "reader_layers": (1, 2, 3)},
    ),
    "depth-1": _align("connector of 1 + 1 layers", sizes={"num_layers": 1}),
    "depth-12": _align("connector of 12 + 12 layers", sizes={"num_layers": 12}),
    "caption-0.1": _align("caption loss weight 0.1", caption=0.1),
    "caption-10": _align("caption loss weight 10", caption=10.0),
    "painter-along": _align("alignment with a painter that trains along", trains_painter=True),
    **{f"data-{n}": _align(f"alignment on {n} captions", captions=n) for n in SIZES},
    TUNED: System("fine-tuned SD", "painter", "painter", (EVERY,)),
    FULL: System("MiniGPT-5, LoRA", "interleave", "vokens", _ALL, start=ALIGN, caption=0.0),
    NO_UAS: System("MiniGPT-5 without UAS", "interleave", "vokens", _STORIES, caption=0.0),
    PREFIX: System(
        "MiniGPT-5, prefix tuning", "interleave", "vokens", (*_STORIES, TURN), start=ALIGN, caption=0.0, prefix=16
    ),
    GILL: System("GILL", "interleave", "gill", (*_STORIES, TURN), start=ALIGN, diffusion=0.0),
    TEXT: System("text alone", "text", "text", (NEXT,)),
    TWO_STAGE: System("two-stage", None, "two-stage", (NEXT,), start=TEXT, needs=(TUNED,)),
    DIVTER: System("Divter", "words", "words", (TURN,)),
}


def tasks_of(name: str, amounts: Amounts) -> tuple[str, ...]:
    """What a system is asked, guidance scales one by one."""
    return tuple(
        task
        for listed in SYSTEMS[name].tasks
        for task in (guidance_tasks(amounts.scales) if listed == GUIDANCE else (listed,))
    )


def count_of(task: str, amounts: Amounts) -> int:
    """Captions, stories or talks that a task is of."""
    if task == CAPTIONS:
        return amounts.captions
    if task == TURN:
        return amounts.talks
    return amounts.guidance if task.startswith("captions, guidance") else amounts.stories


@dataclass(frozen=True)
class Statement:
    """A signed sum of figures of systems, and what is said of it.

    Args:
        told: in words, for above 0.
        figure: of `rows.FIGURES`; where lower is better its sign is turned, so that above 0 is always better.
        terms: weight, system and task of each.
        kind: "more": above 0. "no less": above minus the margin. "as": within the margin of 0.
        margin: what still counts as equal.
    """

    told: str
    figure: str
    terms: tuple[tuple[float, str, str], ...]
    kind: str = "more"
    margin: float = 0.0


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, or a question beyond it.

    Args:
        title: in words.
        because: what a pass would mean, and what a failure would.
        statements: all of which it stands with.
    """

    title: str
    because: str
    statements: tuple[Statement, ...]


MARGIN = 0.05
FIRST_SCALE, LOW_SCALE, MIDDLE_SCALE, LAST_SCALE = 1, 3, 10, 30


def _above(figure: str, one: str, other: str, *tasks: str, kind: str = "more") -> Iterator[Statement]:
    margin = 0.0 if kind == "more" else MARGIN
    word = {"more": "above", "no less": "no worse than", "as": "as"}[kind]
    for task in tasks:
        told = f"{SYSTEMS[one].told} {word} {SYSTEMS[other].told}, {task}"
        yield Statement(told, figure, ((1, one, task), (-1, other, task)), kind, margin)


def _contexts() -> Iterator[Statement]:
    for share in SHARES[1:]:
        for poorer, richer in (("no", "text"), ("no", "image"), ("text", "image-text"), ("image", "image-text")):
            terms = ((1, FULL, final(richer, share)), (-1, FULL, final(poorer, share)))
            yield Statement(f"{richer} context above {poorer}, share {share:g}", "frame", terms)
    none = ((1, FULL, final("image-text", 0.0)), (-1, FULL, final("no", 0.0)))
    yield Statement("image-text context as none where the last sentence tells all", "frame", none, "as", MARGIN)
    for low, high in pairwise(SHARES):
        grown = (
            (1, FULL, final("image-text", high)),
            (-1, FULL, final("no", high)),
            (-1, FULL, final("image-text", low)),
            (1, FULL, final("no", low)),
        )
        yield Statement(f"what context brings is more at share {high:g} than at {low:g}", "frame", grown)


def _guidance() -> Iterator[Statement]:
    for name in (SD, ALIGN):
        for clamped in (False, True):
            ends = f"{SYSTEMS[name].told}{', clamped' * clamped}"
            at = {s: (name, guided(s, clamped)) for s in (FIRST_SCALE, LOW_SCALE, MIDDLE_SCALE, LAST_SCALE)}
            terms = ((1, *at[LOW_SCALE]), (-1, *at[FIRST_SCALE]))
            yield Statement(f"guidance 3 above 1, {ends}", "similarity", terms)
            terms = ((1, *at[LAST_SCALE]), (-1, *at[MIDDLE_SCALE]))
            yield Statement(f"coherence at 30 as at 10, {ends}", "frame", terms, "as", MARGIN)
            terms = ((1, *at[MIDDLE_SCALE]), (-1, *at[LAST_SCALE]))
            yield Statement(f"quality at 10 above 30, {ends}", "frechet", terms)


def _vokens() -> Iterator[Statement]:
    for fewer, more in ((1, 2), (2, 4), (4, 8)):
        yield from _above("frame", vokens_system(more), vokens_system(fewer), CAPTIONS)
    for more in (16, 32):
        yield from _above("frame", vokens_system(more), ALIGN, CAPTIONS, kind="no less")
    terms = ((2, vokens_system(4), CAPTIONS), (-1, vokens_system(1), CAPTIONS), (-1, vokens_system(32), CAPTIONS))
    yield Statement("more is gained up to 4 vokens than from 4 to 32", "frame", terms)


CLAIMS: dict[str, Claim] = {
    "1": Claim(
        "The more context, the nearer the final picture is to the true one (Table 1)",
        "Text before the last sentence knows where the hero goes, pictures before it know its colour: only a model "
        "that uses both can be right where the last sentence leaves out. Text against pictures is not stated: which of "
        "them is above is how likely a guess of the other's secret is, which this world fixes.",
        tuple(_contexts()),
    ),
    "2": Claim(
        "Without the alignment stage everything is worse (Tables 1 and 2)",
        "Both have the same second stage; a pass says that it cannot make up for the first within its budget.",
        tuple(_above("frame", FULL, NO_UAS, final("image-text", 0.5), EVERY)),
    ),
    "3": Claim(
        "Multi-step pictures: MiniGPT-5 above fine-tuned SD above zero-shot SD (Table 2)",
        "Diffusion alone reads the sentence; what only earlier steps tell it must guess, however well it is trained.",
        tuple(s for pair in ((FULL, TUNED), (TUNED, SD)) for s in _above("frame", *pair, EVERY)),
    ),
    "4": Claim(
        "Its text is as good as that of the same stack fine-tuned for text alone (Table 3)",
        "Painting must not cost speech. Text alone has every lesson for words: the comparison favours it.",
        tuple(s for f in ("rouge_l", "text_accuracy") for s in _above(f, FULL, TEXT, NEXT, kind="no less")),
    ),
    "5": Claim(
        "Multimodal coherence above the two-stage baseline (Table 4)",
        "The two-stage baseline paints its own sentence, which calls the hero “it”; vokens can carry who that is.",
        tuple(s for figure in ("hero", "kept") for s in _above(figure, FULL, TWO_STAGE, NEXT)),
    ),
    "6": Claim(
        "It places and paints pictures better in dialogue (Table 5)",
        "Divter writes a description in words, whose form this world's captions fit: it may well be the better way.",
        tuple(
            s
            for other in (DIVTER, GILL)
            for figure in ("mm_turn", "mm_mmdialog", "picture_f1", "frame")
            for s in _above(figure, FULL, other, TURN)
        ),
    ),
    "7": Claim(
        "Every part of the alignment helps, and zero-shot SD is its upper bound (Table 6)",
        "All variants are trained until flat, so a part that only makes training faster does not pass.",
        (
            *_above("frame", SD, ALIGN, CAPTIONS, kind="no less"),
            *(s for other in ("no-guidance", "no-ldm", "no-caption") for s in _above("frame", ALIGN, other, CAPTIONS)),
        ),
    ),
    "8": Claim(
        "Guidance gains; past a scale of about 10 coherence is flat and quality falls (Figure 6)",
        "For the painter's own text and for vokens, and with latents clamped to their range, which tells whether it is "
        "guidance or overflow that spoils pictures at large scales. Where the peak lies is reported.",
        tuple(_guidance()),
    ),
    "9": Claim(
        "Vokens: 1 < 2 < 4 < 8 ≤ 16 ≤ 32, most of it gained by 4 (Figure 7)",
        "All are trained until flat, which takes the place of a fit of the mapper of its own.",
        tuple(_vokens()),
    ),
    "A": Claim(
        "Queries all at once are better than vokens through a mapper",
        "Beyond the paper: what today's connectors changed.",
        (*_above("frame", "queries-8", ALIGN, CAPTIONS), *_above("frame", "queries-32", "vokens-32", CAPTIONS)),
    ),
    "B": Claim(
        "A deeper connector is better: 1 < 4 ≤ 12 layers",
        "Beyond the paper.",
        (
            *_above("frame", ALIGN, "depth-1", CAPTIONS),
            *_above("frame", "depth-12", ALIGN, CAPTIONS, kind="no less"),
        ),
    ),
    "C": Claim(
        "States of all the reader's layers are better than the last one's",
        "Beyond the paper.",
        tuple(_above("frame", "queries-layers", "queries-8", CAPTIONS)),
    ),
    "D": Claim(
        "The caption loss wants weight: 0.1 < 1, and 10 is as 1",
        "Beyond the paper, which has 0.1 throughout.",
        (
            *_above("frame", ALIGN, "caption-0.1", CAPTIONS),
            *_above("frame", "caption-10", ALIGN, CAPTIONS, kind="as"),
        ),
    ),
    "E": Claim(
        "A painter that trains along is better than a frozen one",
        "Beyond the paper.",
        tuple(_above("frame", "painter-along", ALIGN, CAPTIONS)),
    ),
    "F": Claim(
        "More captions are better: 125 < 500 < 2000 < 8000",
        "Beyond the paper: how alignment scales with data.",
        tuple(
            s
            for less, more in pairwise((*(f"data-{n}" for n in SIZES), ALIGN))
            for s in _above("frame", more, less, CAPTIONS)
        ),
    ),
}

# Before any claim is read: whether the bench can tell a good system from a bad one.
ENOUGH, FLOOR = 0.9, 0.05
RESOLVES = ((FULL, _RICHEST[0]), (ALIGN, CAPTIONS))
