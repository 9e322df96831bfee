"""docs/claims-plan.md, written from the plan: nothing that the page says stands anywhere else."""

from __future__ import annotations

from dataclasses import fields

from minigpt5.evaluation.claims import world
from minigpt5.evaluation.claims.flatness import GROWTH, MOST_ROUNDS
from minigpt5.evaluation.claims.plan import (
    CLAIMS,
    CLAMPED_TO,
    ENOUGH,
    FLOOR,
    GUIDANCE,
    GUIDANCE_SCALE,
    KINDS,
    LORA,
    PARTS,
    RESOLVES,
    SYSTEMS,
    TEXT_WEIGHT,
    Amounts,
    Part,
    System,
    count_of,
    tasks_of,
)
from minigpt5.evaluation.claims.report import Block, Heading, Paragraph, Table
from minigpt5.evaluation.claims.rows import FIGURES
from minigpt5.metrics.intervals import RESAMPLES

TITLE = "The plan by which the paper's claims are decided"
# Seconds of a picture and of a reply in words on one thread, and of all that is asked besides, measured.
SECONDS_A_PICTURE, SECONDS_A_START = 0.05, 15.0
_OF_SYSTEM = {
    "n_vokens": "vokens",
    "connector": "connector",
    "caption": "caption loss",
    "diffusion": "L_LDM",
    "guidance_dropout": "guidance dropout",
    "prefix": "prefix",
    "trains_painter": "painter trains",
    "captions": "captions",
}


def plan_blocks() -> list[Block]:
    """The page."""
    amounts = Amounts()
    return [
        Paragraph(
            "Which statements the claims of MiniGPT-5 (arXiv 2310.02239, section 4) come to, by which trainings, items "
            "and rule they are decided: settled before any of these trainings was run. This page is written from "
            "`minigpt5/evaluation/claims/plan.py` by `python evaluation/reproduce_claims.py --plan`, and a test holds "
            "the two together. The report names the commit of the plan that it was made by, and the program refuses "
            "to go on with trainings of another plan. Of this bench's figures only those were known that the paragraph "
            "on an earlier plan tells of."
        ),
        *_world(),
        *_rule(amounts),
        *_claims(),
        *_systems(),
        *_budget(amounts),
        *_left_out(),
    ]


def _world() -> list[Block]:
    states = len(world.KINDS) * len(world.COLOURS) * len(world.PLACES) * 3 * 2
    return [
        Heading("The world and the models"),
        Paragraph(
            f"StoryWorld cut down to one animal of {len(world.KINDS)} kinds and {len(world.COLOURS)} colours on three "
            f"sides of {len(world.PLACES)} places by day or night, {states} frames, in pictures of "
            f"{world.SIZE}×{world.SIZE}; drawing, language and truth are StoryWorld's own. The models have the "
            "miniature's shapes cut to that size: latents 8×8×4, a Llama of three layers 96 wide, text features "
            "32×64. The miniature itself, at 2 s a step, would have taken weeks for as many trainings; in this world a "
            "step takes a fraction of that, and one frame in 288 is right by chance, so that an effect has room."
        ),
        Paragraph(
            "A story has four steps: who is where; a change of side or time; a wish where to go; there it is. Where "
            "the last sentence **tells all**, it is a caption. Where it **leaves out**, it tells side and time alone: "
            "the place was named by the sentence before and is in no picture yet, the colour is in the pictures and "
            "was never named. Text alone and pictures alone each lack one thing, both together none. Stories are asked "
            f"with {', '.join(f'{share:g}' for share in world.SHARES)} of them leaving out; all systems learn from "
            f"stories of which {world.TRAINED_SHARE:g} do, under all four contexts. What is asked has looks that no "
            "training shows."
        ),
        Paragraph(
            "The frozen parts (VAE, judge, painter with its text encoder, reader) are trained once and shared. The "
            "reader learns to say plainly what a caption or a story's sentence asks for, as a large language model "
            "can that reads and does not paint. There "
            "is no naming head and no coach in the trainings that are compared. LoRA has rank "
            f"{LORA['rank']}; L_text has weight {TEXT_WEIGHT:g} beside pictures; the caption loss has weight 1 in the "
            "first stage (published: 0.1) and none in the second. Pictures take "
            f"{Amounts().steps_of_painting} steps at guidance {GUIDANCE_SCALE:g}, an "
            "item the same noise in every system."
        ),
    ]


def _rule(amounts: Amounts) -> list[Block]:
    return [
        Heading("Trainings and verdicts"),
        Paragraph(
            f"**Flat.** A training's first budget is in the table below. It is marked on {amounts.validation} "
            "validation items at every sixth of it; a picture's mark is the share of its attributes that is right, "
            "above the same by the truths of the other items, which is chance. A training is flat if its last marks "
            "are above chance, and what the last third of its steps gained is not above 0, each by its 95 % interval "
            "over these items, or no item's mark is another than the time before; if it is not flat it goes on for "
            "half as many steps "
            f"again, ×{GROWTH:g}, at most {MOST_ROUNDS} rounds in all. The rule, the batch and, within a kind of "
            "training, the rate and first budget are the same for all. The rate is constant, and the average of the "
            "weights (decay 0.99) is what is marked and kept, at the end and not at the best mark. The report says "
            "which trainings were not flat in the end."
        ),
        Paragraph(
            "**An earlier plan** (commit 8da0f34) was begun and given up after nine systems of one seed: its rule "
            "called trainings flat at 900 steps that had not begun to learn (frame accuracy at most 0.03 in all that "
            "learn from captions), for it knew no chance, and its reader could not yet say what a caption asks for. "
            "Alignment in full was then tried from a seed of its own, which this plan does not use. Changed were the "
            "reader's lessons, the marks and the floor of the rule, and the first budgets; no statement, figure, "
            "margin, item or system. VAE, judge and painter are those that the earlier plan trained."
        ),
        Paragraph(
            f"**Seeds.** {len(amounts.seeds)} of every system, which set vokens, connector, LoRA, batches and noise. "
            "Zero-shot SD has nothing to train: its runs are noises."
        ),
        Paragraph(
            f"**Intervals.** 95 %, by a hierarchical bootstrap of {RESAMPLES} resamples over seeds and items together: "
            "items are drawn once for all systems, seeds for each, and what is owed to the draw of seeds is widened "
            "for their small number (`hierarchical_interval`, whose coverage a test simulates). Captions, stories and "
            "talks are items; questions of one story stay together."
        ),
        Paragraph(
            "**Verdict of a statement.** It is a signed sum of figures, above 0 in its favour. *Above*: PASS if the "
            "whole interval is above 0, FAIL if all of it is below. *No worse*: the same about minus the margin. *As*: "
            "PASS if the interval lies within the margin on both sides, FAIL if it lies outside. Otherwise UNDECIDED. "
            "**Of a claim**: FAIL if any statement failed, PASS if all passed, else UNDECIDED. Intervals are not "
            "corrected for the number of statements; a claim needs all of its own."
        ),
        Paragraph(
            "**Before any claim is read** the bench has to resolve: in "
            + " and in ".join(f"“{SYSTEMS[system].told}, {task}”" for system, task in RESOLVES)
            + f" frame accuracy has to be at least {ENOUGH:g}, and by another item's truth at most {FLOOR:g}. If not, "
            "the report says so above all verdicts, and these say nothing."
        ),
        Heading("Figures"),
        Table(
            ["figure", "stands for"],
            [[figure.label, figure.stands_for] for figure in FIGURES.values() if figure.stands_for],
        ),
        Paragraph(
            "All are taken by a judge that is trained on renders, of frame accuracy near 1 on these. Text and pictures "
            "meet in the space of what StoryWorld's language reads in the one and the judge in the other. MM-Relevance "
            "comes in both definitions, which cannot be compared."
        ),
    ]


def _claims() -> list[Block]:
    blocks: list[Block] = [Heading("Claims and statements")]
    for name, claim in CLAIMS.items():
        blocks.append(Paragraph(f"**{name}. {claim.title}.** {claim.because}"))
        rows = []
        for one in claim.statements:
            label = FIGURES[one.figure].label[:-2]
            margin = f"{one.margin:g}" if one.kind != "more" else ""
            count = count_of(one.terms[0][2], Amounts())
            rows.append([one.told, label, {"more": "above"}.get(one.kind, one.kind), margin, str(count)])
        blocks.append(Table(["statement", "figure", "rule", "margin", "items"], rows))
    return blocks


def _systems() -> list[Block]:
    rows = []
    for name, system in SYSTEMS.items():
        rows.append(
            [f"`{name}`", system.told, system.kind or "nothing", system.start or "frozen parts", _differs(system)]
        )
    return [
        Heading("Systems"),
        Table(["name", "system", "learns", "starts from", "differs in"], rows),
        Paragraph(
            "`interleave`, `text` and `words` learn from the same stories and talks, five of eight lessons stories. "
            "Half of the stories' lessons ask for what happens next, half for a picture of a sentence; for words "
            "alone all ask "
            "for what happens next. Divter (`words`) has a mark and a plain description in the picture's place, and "
            "the same steps. Fine-tuned SD learns the sentences of all steps of stories. The two-stage baseline is "
            "text alone and fine-tuned SD of the same seed. In the second stage all of the mapper trains, so that the "
            "system without a first stage is not held back by a part that was never trained. GILL's second stage has "
            "the caption loss, towards plain "
            "descriptions, in the place of L_LDM."
        ),
    ]


def _differs(system: System) -> str:
    """What is not as it is by default."""
    own = {one.name: one.default for one in fields(System)}
    told = [
        f"{label} {getattr(system, name)}" for name, label in _OF_SYSTEM.items() if getattr(system, name) != own[name]
    ]
    return ", ".join([*told, *(f"{name} {value}" for name, value in system.sizes.items())])


def pictures(name: str, amounts: Amounts) -> int:
    """How many replies a system of one seed gives, taken as pictures."""
    each = {world.EVERY: 4, world.NEXT: 3, world.TURN: 3}
    return sum(count_of(task, amounts) * each.get(task, 1) for task in tasks_of(name, amounts))


def hours(amounts: Amounts) -> tuple[list[list[str]], float]:
    """The budget by kind of training as rows of a table, and its sum in hours of one core, first rounds alone."""
    rows, total = [], 0.0
    for told, kinds, runs in (("parts", PARTS, 1), ("systems", KINDS, len(amounts.seeds))):
        for kind, part in kinds.items():
            count = 1 if told == "parts" else sum(system.kind == kind for system in SYSTEMS.values())
            spent = count * runs * part.steps * part.seconds / 3600
            rows.append(_row(kind if told == "systems" else f"{kind}, once", count, runs, part, spent))
            total += spent
    asked = sum(pictures(name, amounts) for name in SYSTEMS) * len(amounts.seeds)
    asking = (asked * SECONDS_A_PICTURE + len(SYSTEMS) * len(amounts.seeds) * SECONDS_A_START) / 3600
    rows.append(["asking, and starting", f"{asked} replies", "", "", "", "", f"{asking:.1f}"])
    return rows, total + asking


def _row(kind: str, count: int, runs: int, part: Part, spent: float) -> list[str]:
    cells = (count, runs, part.steps, part.batch_size, f"{part.seconds:.2f}", f"{spent:.1f}")
    return [kind, *map(str, cells)]


def _budget(amounts: Amounts) -> list[Block]:
    rows, total = hours(amounts)
    most = 1.5 ** (MOST_ROUNDS - 1)
    return [
        Heading("Budget"),
        Table(["training", "systems", "seeds", "steps", "batch", "s a step", "core-hours"], rows),
        Paragraph(
            f"{total:.1f} core-hours where every training is flat after its first budget, {total / 2:.1f} hours on two "
            f"cores; a training that never gets flat takes {most:.1f} times as long. Seconds are user time of one "
            "thread, estimated from runs of six steps beside other work, and no part of what is registered: the run "
            "notes its own. `make claims` does it all and goes on where it was stopped; `--minutes` does a piece."
        ),
        Paragraph(
            f"Guidance has the scales {', '.join(f'{scale:g}' for scale in amounts.scales)}, each plain and with "
            f"predicted latents clamped to {CLAMPED_TO:g} deviations (tasks `{GUIDANCE}`)."
        ),
    ]


def _left_out() -> list[Block]:
    return [
        Heading("Left out"),
        Paragraph(
            "People's judgements (`evaluation/human_study.py` is there for them). S-BERT and METEOR, which say little "
            "of sentences this short. A separate fit of the mapper, as trainings go on until they are flat. Prefix "
            "tuning is "
            "trained and reported, and no statement is about it, as the paper's are not. "
            "Data sizes of the second stage, and depths and weights crossed with each other: each is varied alone. "
            "Composition (kinds in colours never seen): all pairs are trained."
        ),
    ]
