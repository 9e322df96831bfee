"""The page of the claims: verdicts, tables, plots, and what made the figures."""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
import yaml
from PIL import Image

from minigpt5 import __version__
from minigpt5.evaluation.claims.paper import (
    CAPTIONS,
    COMPARED,
    EVERY,
    FINE_TUNED,
    INTRODUCTION,
    LORA,
    NO_UAS,
    PREFIX,
    SHIPPED,
    STAND_INS,
    VOKENS,
    ZERO_SHOT,
    guidance_system,
    summary,
    tables,
    vokens_system,
)
from minigpt5.evaluation.claims.plots import plot_curves, plot_pictures
from minigpt5.evaluation.claims.report import Block, Heading, Paragraph, Plot, Table, html, markdown
from minigpt5.evaluation.claims.rows import Rows
from minigpt5.evaluation.claims.runner import ClaimsRun, open_items, slug
from minigpt5.evaluation.claims.verdicts import Claim
from minigpt5.evaluation.items import Item
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.metrics.intervals import Interval
from minigpt5.utils.files import write_text
from minigpt5.utils.images import open_image

# Items whose pictures are shown.
SHOWN = 8


def write_page(run: ClaimsRun, claims: Sequence[Claim], measured: Mapping[str, Mapping[str, Rows]], out: Path) -> None:
    """Write `claims.md`, `claims.html` and `images/claims/` into a folder."""
    images = out / "images" / "claims"
    plots = guidance_plots(run, measured, images) | vokens_plot(measured, images) | stories_plot(run, measured, images)
    blocks = [
        *(Paragraph(text) for text in (INTRODUCTION, STAND_INS, COMPARED)),
        *summary(claims),
        *tables(measured, plots, run.counts.scales),
        *_how_it_was_made(run),
    ]
    title = "The paper's claims on StoryWorld"
    write_text(out / "claims.md", markdown(title, blocks, out))
    write_text(out / "claims.html", html(title, blocks))


def guidance_plots(
    run: ClaimsRun, measured: Mapping[str, Mapping[str, Rows]], images: Path
) -> dict[str, Sequence[Plot]]:
    """Figure 6, and what is painted at each scale; nothing without rows."""
    taken = {scale: measured.get(guidance_system(scale), {}).get(CAPTIONS) for scale in run.counts.scales}
    scales = {scale: rows for scale, rows in taken.items() if rows}
    if not scales:
        return {}
    coherence = {"similarity": "similarity to the true picture", "agrees": "agreement with the caption"}
    curves = {
        label: {scale: rows.interval(figure) for scale, rows in scales.items()} for figure, label in coherence.items()
    }
    # Resampled, a distance of few pictures is too large: no band is drawn around it.
    bare = {scale: Interval(*[rows.estimate("frechet")] * 3) for scale, rows in scales.items()}
    panels = {"coherence": curves, "Fréchet distance (lower is better)": {"Fréchet distance": bare}}
    plot_curves(images / "guidance.png", "guidance scale", panels)
    shown = open_items(run.path("$data/cc3m"), CAPTIONS, min(SHOWN, run.counts.guidance))
    painted = {f"{scale:g}": _painted(run, f"{guidance_system(scale)}: captions", shown) for scale in scales}
    plot_pictures(images / "guidance-pictures.png", painted, _captions(shown))
    return {
        "guidance": [Plot(images / "guidance.png", "Coherence and Fréchet distance over the guidance scale")],
        "guidance-pictures": [
            Plot(images / "guidance-pictures.png", "The same captions painted at each guidance scale")
        ],
    }


def vokens_plot(measured: Mapping[str, Mapping[str, Rows]], images: Path) -> dict[str, Sequence[Plot]]:
    """Figure 7; nothing without rows."""
    taken = {count: measured.get(vokens_system(count), {}).get(CAPTIONS) for count in VOKENS}
    vokens: dict[float, Rows] = {count: rows for count, rows in taken.items() if rows}
    if not vokens:
        return {}
    panels = {
        label: {label: {count: rows.interval(figure) for count, rows in vokens.items()}}
        for figure, label in (("similarity", "similarity to the true picture"), ("attributes", "attributes"))
    }
    plot_curves(images / "vokens.png", "vokens", panels, log=True)
    return {"vokens": [Plot(images / "vokens.png", "Similarity and attributes over the number of vokens")]}


def stories_plot(run: ClaimsRun, measured: Mapping[str, Mapping[str, Rows]], images: Path) -> dict[str, Sequence[Plot]]:
    """Steps of stories beside the true pictures, by system."""
    items = open_items(run.path("$data/vist"), EVERY, run.counts.every)
    # Another step of every story, from the second to the last.
    shown = [items[5 * story + 1 + story % 4] for story in range(min(SHOWN, run.counts.every))]
    rows = {"truth": [open_image(item.picture) for item in shown if item.picture]}
    systems = (SHIPPED, LORA, PREFIX, NO_UAS, FINE_TUNED, ZERO_SHOT)
    there = [name for name in systems if EVERY in measured.get(name, {})]
    rows |= {name: _painted(run, f"{name}: stories", shown) for name in there}
    plot_pictures(images / "stories.png", rows, _captions(shown))
    alt = "Steps of stories, painted by each system after the true steps before"
    return {"stories": [Plot(images / "stories.png", alt)]}


def _painted(run: ClaimsRun, name: str, items: Sequence[Item]) -> list[Image.Image]:
    folder = ReplyFolder(run.replies(name))
    return [folder.read(item.id).pictures[0] for item in items]


def _captions(items: Sequence[Item]) -> list[str]:
    return [textwrap.fill(item.sentence or "", 22) for item in items]


def _how_it_was_made(run: ClaimsRun) -> list[Block]:
    """Counts, budgets, time, versions."""
    configs = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(run.configs.glob("*.yaml"))}
    seconds = run.seconds()
    trained = {
        name: value
        for name, value in seconds.items()
        if (run.work / name / "adapter").exists() or name == "finetuned-diffusion"
    }
    asked = {slug(name) for name in run.evaluations}
    evaluated = sum(value for name, value in seconds.items() if name in asked)
    budgets = [
        [
            f"`{name}.yaml`",
            *(str(config[key]) for key in ("steps", "batch_size", "learning_rate")),
            f"`{config['mix']}`",
        ]
        for name, config in configs.items()
    ]
    versions = {"minigpt5": __version__, "Python": platform.python_version()}
    versions |= {name: version(name) for name in ("torch", "diffusers", "transformers", "peft")}
    counts = [
        ["captions: ablations and vokens (one character)", str(run.counts.captions)],
        ["captions: each guidance scale (one or two characters)", str(run.counts.guidance)],
        ["stories: final picture, under each context", str(run.counts.final)],
        ["stories: every step, five pictures each", str(run.counts.every)],
        ["stories: next step, four replies each", str(run.counts.next)],
        ["talks: four replies each", str(run.counts.talks)],
    ]
    minutes = ", ".join(f"`{name}` {value / 60:.1f} min" for name, value in trained.items())
    return [
        Heading("How the figures were made"),
        Paragraph(
            "All items are of StoryWorld's validation split, which no training saw; prompts are worded as in "
            "training. Replies are decoded greedily. Pictures take each model's own 20 steps and guidance of 2.5, "
            "unless a table says otherwise, and every item has the same noise in every system."
        ),
        Table(["items", "count"], counts),
        Paragraph("Budgets of training, in `configs/storyworld-claims/`:"),
        Table(["settings", "steps", "batch", "rate", "conversations a batch"], budgets),
        Paragraph(f"Wall time of the trainings that were timed whole, on a machine that had other work: {minutes}."),
        Paragraph(
            f"All evaluations together took {evaluated / 60:.0f} process-minutes. Machine: {platform.machine()}, "
            f"{os.cpu_count()} CPU cores, {torch.cuda.device_count()} GPUs, one thread a process. "
            + ", ".join(f"{name} {number}" for name, number in versions.items())
            + "."
        ),
    ]
