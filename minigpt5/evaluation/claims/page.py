"""The pages of the claims: verdicts, why, figures, curves, pictures, and the paper's tables beside ours."""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from minigpt5 import __version__
from minigpt5.evaluation.claims import plan, world
from minigpt5.evaluation.claims.flatness import is_flat
from minigpt5.evaluation.claims.plan import SYSTEMS, count_of, guided, tasks_of, vokens_system
from minigpt5.evaluation.claims.plots import plot_curves, plot_pictures, plot_trainings
from minigpt5.evaluation.claims.report import Block, Heading, Paragraph, Plot, Table, cell, html, markdown
from minigpt5.evaluation.claims.rows import FIGURES
from minigpt5.evaluation.claims.runner import SHOWN, ClaimsRun
from minigpt5.evaluation.claims.verdicts import (
    FAIL,
    PASS,
    UNDECIDED,
    DecidedClaim,
    Gate,
    Measured,
    decide,
    gates,
    interval_of,
    seeds_told,
)
from minigpt5.metrics.intervals import Interval
from minigpt5.utils.files import write_text
from minigpt5.utils.images import open_image

TITLE, PAPER_TITLE = "The paper's claims in a small world", "The paper's tables beside ours"
REPOSITORY_PATH = "minigpt5/evaluation/claims/plan.py"


def write_pages(run: ClaimsRun, out: Path) -> str:
    """Write `claims.md`, `claims.html`, `paper-tables.md` and `images/claims/`; returns the verdicts in words."""
    measured, draws, images = run.measured(), run.amounts.draws, out / "images" / "claims"
    claims, found = decide(measured, len(run.amounts.seeds), draws), gates(measured, draws)
    blocks = [
        *_verdicts(run, claims, found),
        *_statements(claims),
        *tables(measured, draws),
        *_plots(run, measured, images),
        *_trainings(run, images),
        *_how(run),
    ]
    write_text(out / "claims.md", markdown(TITLE, blocks, out))
    write_text(out / "claims.html", html(TITLE, blocks))
    write_text(out / "paper-tables.md", paper_tables(measured, draws))
    return counted(claims)


def counted(claims: Sequence[DecidedClaim]) -> str:
    """How many claims have which verdict, in words."""
    verdicts = [claim.verdict for claim in claims]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (PASS, FAIL, UNDECIDED))


def _verdicts(run: ClaimsRun, claims: Sequence[DecidedClaim], found: Sequence[Gate]) -> list[Block]:
    """What a reader of the first screen has to know."""
    commit = run.commit
    registered = f"commit `{commit}`" if commit else "no commit: the plan was not committed when the run began"
    blocks: list[Block] = [
        Paragraph(
            f"**{counted(claims)}**, of {len(claims)} claims: 1 to 9 are the paper's (arXiv 2310.02239, section 4), A "
            "to F ask beyond it. Each is decided by statements, margins and a rule that were settled before the "
            f"trainings, in [the plan](claims-plan.md) (`{REPOSITORY_PATH}`, {registered}). Every system that learns "
            f"is trained from {len(run.amounts.seeds)} seeds, until flat or for {run.amounts.rounds} rounds; "
            "intervals are over seeds and items. "
            "They are widened for the small number of seeds, to both sides alike, and so may pass a figure's own "
            "bounds where one training went another way than the others. A verdict says whether a claim shows in this "
            "world, not whether the paper is right about its own."
        )
    ]
    done = [job.done for job in run.jobs() if job.name not in plan.PARTS]
    if not all(done):
        blocks.append(
            Paragraph(
                f"**The run is not finished**: {sum(done)} of {len(done)} systems and seeds are measured. Nothing is "
                "decided before all seeds of a statement are. Until then its difference is of those that are, and of a "
                "single seed the interval is over items alone: another training may turn it."
            )
        )
    if any(gate.right and not gate.open for gate in found):
        blocks.append(
            Paragraph(
                f"**The bench does not resolve**: what should be right has to reach {plan.ENOUGH:g}, by shuffled "
                "truths "
                f"at most {plan.FLOOR:g}. Until it does the verdicts say nothing."
            )
        )
    rows = [[gate.told, cell(gate.right), cell(gate.shuffled), "yes" if gate.open else "no"] for gate in found]
    blocks.append(Table(["", "claim", "verdict", "why"], [[c.name, c.claim.title, c.verdict, c.why] for c in claims]))
    blocks.append(Table(["does the bench resolve", "frame accuracy", "by shuffled truths", ""], rows))
    return blocks


def _statements(claims: Sequence[DecidedClaim]) -> list[Block]:
    rows = []
    for claim in claims:
        for one in claim.statements:
            margin = ""
            if one.statement.margin:
                exact = one.statement.kind == "as"
                margin = f" ± {one.statement.margin:g}" if exact else f" (by at most {one.statement.margin:g})"
            label = FIGURES[one.statement.figure].label[:-2]
            told = cell(one.interval) or "not measured"
            rows.append([claim.name, f"{one.statement.told}{margin}", label, told, seeds_told(one), one.verdict])
    return [Heading("Statements"), Table(["claim", "statement", "figure", "difference", "by seed", "verdict"], rows)]


def table(measured: Measured, task: str, systems: Sequence[str], figures: Sequence[str], draws: int | None) -> Table:
    """Figures of systems in one task; empty where nothing is measured."""
    rows = []
    for name in systems:
        found = {figure: _figure(figure, name, task, measured, draws) for figure in figures}
        told = [f"{one.estimate:.3f}" if one and figure == "frechet" else cell(one) for figure, one in found.items()]
        rows.append([SYSTEMS[name].told, *told])
    return Table(["", *(FIGURES[figure].label for figure in figures)], rows)


def _figure(figure: str, system: str, task: str, measured: Measured, draws: int | None) -> Interval | None:
    """A figure of a system; a Fréchet distance without its interval, for it is resampled too large."""
    if figure != "frechet":
        return interval_of(figure, ((1, system, task),), measured, draws)
    found = interval_of(figure, ((1, system, task),), measured, draws=1)
    return found and Interval(*[found.estimate] * 3)


_STORIES = (plan.FULL, plan.PREFIX, plan.NO_UAS, plan.GILL)
_PICTURES = ("frame", "similarity", "frechet")


def numbered(measured: Measured, draws: int | None) -> dict[str, list[Block]]:
    """Our side of the paper's tables 1 to 6."""
    contexts = [
        [
            f"{share:g}",
            *(cell(_figure("frame", plan.FULL, world.final(name, share), measured, draws)) for name in world.CONTEXTS),
        ]
        for share in world.SHARES
    ]
    return {
        "Table 1: the final picture under no, text, image and image-text context": [
            Table(["frame accuracy ↑ of MiniGPT-5, LoRA, by the share that leaves out", *world.CONTEXTS], contexts),
            table(measured, world.final("image-text", 0.5), _STORIES, _PICTURES, draws),
        ],
        "Table 2: a picture for every step after the true steps before it": [
            table(measured, world.EVERY, (*_STORIES, plan.TUNED, plan.SD), (*_PICTURES, "hero"), draws)
        ],
        "Table 3: the text of the next step": [
            table(measured, world.NEXT, (*_STORIES, plan.TEXT), ("rouge_l", "text_accuracy"), draws)
        ],
        "Table 4: coherence of the next step's text and picture": [
            table(measured, world.NEXT, (*_STORIES, plan.TWO_STAGE), ("hero", "kept", "agrees"), draws)
        ],
        "Table 5: replies in dialogue": [
            table(
                measured,
                world.TURN,
                (plan.FULL, plan.PREFIX, plan.GILL, plan.DIVTER),
                ("mm_turn", "mm_mmdialog", "picture_f1", "frame", "rouge_l"),
                draws,
            )
        ],
        "Table 6: ablations of the alignment stage": [
            table(
                measured,
                world.CAPTIONS,
                (plan.SD, plan.ALIGN, "no-guidance", "no-ldm", "no-caption"),
                (*_PICTURES, "agrees"),
                draws,
            )
        ],
    }


def tables(measured: Measured, draws: int | None) -> list[Block]:
    """Ours alone, and what is beyond the paper."""
    blocks: list[Block] = []
    for title, own in numbered(measured, draws).items():
        blocks += [Heading(title), *own]
    aligned = [name for name, system in SYSTEMS.items() if system.kind == "align"]
    beyond = table(measured, world.CAPTIONS, aligned, (*_PICTURES, "agrees"), draws)
    return [*blocks, Heading("Every alignment"), beyond]


def _plots(run: ClaimsRun, measured: Measured, images: Path) -> list[Block]:
    """Guidance, vokens and data as curves, and pictures of each system on the same items."""
    blocks: list[Block] = []
    draws, amounts = run.amounts.draws, run.amounts
    guidance: dict[str, dict[str, dict[float, Interval]]] = {}
    for figure in ("frame", "similarity", "frechet"):
        for name in (plan.SD, plan.ALIGN):
            for clamped in (False, True):
                points = {
                    scale: _figure(figure, name, guided(scale, clamped), measured, draws) for scale in amounts.scales
                }
                kept = {scale: one for scale, one in points.items() if one}
                if kept:
                    label = f"{SYSTEMS[name].told}{', clamped' * clamped}"
                    guidance.setdefault(FIGURES[figure].label[:-2], {})[label] = kept
    if guidance:
        plot_curves(images / "guidance.png", "guidance scale", guidance)
        blocks += [Heading("Figure 6: guidance scale"), Plot(images / "guidance.png", "Figures over guidance")]
        blocks.append(Paragraph(_peaks(guidance)))
    for title, file, label, points in (
        ("Figure 7: number of vokens", "vokens.png", "vokens", {n: vokens_system(n) for n in plan.VOKENS}),
        (
            "Captions to learn from",
            "data.png",
            "captions",
            {n: f"data-{n}" for n in plan.SIZES} | {amounts.pool_captions: plan.ALIGN},
        ),
    ):
        panels = {}
        for figure in ("frame", "similarity"):
            found = {n: _figure(figure, name, world.CAPTIONS, measured, draws) for n, name in points.items()}
            panels[FIGURES[figure].label[:-2]] = {"": {n: one for n, one in found.items() if one}}
        if all(curves[""] for curves in panels.values()):
            plot_curves(images / file, label, panels, log=True)
            blocks += [Heading(title), Plot(images / file, f"Figures over the number of {label}")]
    return [*blocks, *_painted(run, measured, images)]


def _peaks(guidance: Mapping[str, Mapping[str, Mapping[float, Interval]]]) -> str:
    """Where the estimates are best."""
    told = []
    for figure, curves in guidance.items():
        best = min if figure.startswith("Fréchet") else max
        peaks = [f"{name} at {best(points, key=lambda s: points[s].estimate):g}" for name, points in curves.items()]
        told.append(f"{figure}: {', '.join(peaks)}")
    return f"Best by estimate: {'; '.join(told)}."


def _painted(run: ClaimsRun, measured: Measured, images: Path) -> list[Block]:
    """What every system of a task painted of the same items, its first seed."""
    blocks: list[Block] = []
    for task, file in (
        (world.final("image-text", 1.0), "final.png"),
        (world.EVERY, "steps.png"),
        (world.CAPTIONS, "captions.png"),
    ):
        names = [name for name in SYSTEMS if name in measured and task in tasks_of(name, run.amounts)]
        asked = world.questions(task, "test", count_of(task, run.amounts))[:SHOWN]
        rows: dict[str, list[Image.Image]] = {"truth": [world.picture(q.scene) for q in asked if q.scene]}
        for name in names:
            files = [run.sample(name, run.amounts.seeds[0], task, item) for item in range(len(asked))]
            blank = Image.new("RGB", (world.SIZE, world.SIZE), "white")
            rows[SYSTEMS[name].told] = [open_image(one) if one.exists() else blank for one in files]
        if names:
            plot_pictures(images / file, rows, [textwrap.fill(question.sentence or "", 22) for question in asked])
            blocks.append(Plot(images / file, f"The same items painted by every system: {task}"))
    return [Heading("Pictures"), *blocks] if blocks else []


def _trainings(run: ClaimsRun, images: Path) -> list[Block]:
    """Curves of all trainings, and which were not flat in the end."""
    curves = run.curves()
    if not curves:
        return []
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for name, curve in curves.items():
        system = name.rpartition("-")[0]
        title = system if system in SYSTEMS else name
        panels.setdefault(title, {})[name] = {step: float(np.mean(marks)) for step, marks in curve.marks.items()}
    plot_trainings(images / "trainings.png", panels)
    ended = [job.name for job in run.jobs() if job.done and job.name in curves]
    steep = [name for name in ended if not is_flat(curves[name].marks)]
    longest = max((max(curve.marks) for curve in curves.values() if curve.marks), default=0)
    told = f"Not flat in the end: {', '.join(steep)}." if steep else "All that ended were flat in the end."
    return [
        Heading("Curves of all trainings"),
        Plot(images / "trainings.png", "Validation marks over steps, each run a line"),
        Paragraph(
            "Of systems that paint the share of attributes that is right above chance, which is about two thirds where "
            "all are right; of what is trained for words ROUGE-L; of painter, judge and the reader's descriptions the "
            f"share that is right; dB of the VAE. The longest had {longest} steps. {told}"
        ),
    ]


def _how(run: ClaimsRun) -> list[Block]:
    seconds, versions = run.seconds(), {"minigpt5": __version__, "Python": platform.python_version()}
    versions |= {name: version(name) for name in ("torch", "diffusers", "transformers", "peft")}
    curves = run.curves()
    rows = []
    for name, one in seconds.items():
        step = curves[name].seconds if name in curves else None
        told = [f"{one[kind] / 60:.1f}" for kind in ("wall", "user")]
        rows.append([f"`{name}`", *told, "" if step is None else f"{step:.2f}"])
    wall, user = (sum(one[kind] for one in seconds.values()) / 3600 for kind in ("wall", "user"))
    return [
        Heading("How the figures were made"),
        Paragraph(
            "`make claims`, or `python evaluation/reproduce_claims.py --work runs/claims`, remakes this page. Seeds: "
            f"{', '.join(map(str, run.amounts.seeds))}. All jobs together took {wall:.1f} hours of wall time and "
            f"{user:.1f} of user time. Machine: {platform.machine()}, {os.cpu_count()} CPU cores, one thread a job. "
            + ", ".join(f"{name} {number}" for name, number in versions.items())
            + "."
        ),
        Table(["job", "wall, min", "user, min", "user, s a step"], rows),
    ]


def paper_tables(measured: Measured, draws: int | None) -> str:
    """docs/paper-tables.md: the paper's tables beside ours, which are empty until they are measured."""
    blocks: list[Block] = [
        Paragraph(
            "What each table of MiniGPT-5 (arXiv 2310.02239, section 4) becomes in [the small world](claims-plan.md). "
            "The numbers cannot be compared with the paper's, which are of VIST, MMDialog and CC3M, of CLIP and "
            "Inception; their order can. The paper's own numbers stand in the paper; what is not repeated here is "
            "left out so that nothing is misquoted. This page is written by `evaluation/reproduce_claims.py`; empty "
            "cells are not measured yet."
        ),
        Heading("What stands for what"),
        Table(
            ["here", "there"], [[figure.label, figure.stands_for] for figure in FIGURES.values() if figure.stands_for]
        ),
    ]
    for title, own in numbered(measured, draws).items():
        blocks += [Heading(title), *own]
    return markdown(PAPER_TITLE, blocks, Path())
