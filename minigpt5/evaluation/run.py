"""An evaluation from its settings to its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from minigpt5.evaluation.generation import System, check_pictures, generate
from minigpt5.evaluation.items import Item
from minigpt5.evaluation.judges import Judge, judge_replies
from minigpt5.evaluation.measure import Column, Measurements, Weights
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.evaluation.report import write_report
from minigpt5.evaluation.storyworld import judged_bounds, read_truth, storyworld_columns
from minigpt5.evaluation.systems import (
    AskingSettings,
    EvaluationConfig,
    check_paths,
    load_system,
    metric_weights,
    settings_of,
)
from minigpt5.utils.processes import is_main_process, process_state
from minigpt5.utils.programs import ProgramError


def evaluate(config: EvaluationConfig, title: str, items: Sequence[Item]) -> None:
    """Have the system that the settings name reply to all items, take the figures and write the report.

    Args:
        config: with the split that the items are of.
        title: of the report.

    Raises:
        ProgramError, OSError: if something that the settings name is not there or cannot be opened or written.
        ValueError: if the output folder holds replies that were made otherwise, or too many items are passed over.
    """
    check_paths(config)
    if config.baseline == "diffusion":
        items = _with_caption(items)
    columns = storyworld_columns(read_truth(config.data, str(config.split))) if config.judge else None
    options = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
    replies = answer(config, items, settings_of(config), partial(load_system, config), **options)
    if is_main_process():
        report(config.out, title, items, replies, metric_weights(config), columns, bounded=columns is not None)


def _with_caption(items: Sequence[Item]) -> list[Item]:
    """What can be asked of who paints captions alone.

    Raises:
        ProgramError: if that is nothing.
    """
    captioned = [item for item in items if item.sentence is not None]
    if not captioned:
        raise ProgramError("the baseline diffusion paints captions, and nothing that is asked here has one")
    if len(captioned) < len(items) and is_main_process():
        print(f"{len(items) - len(captioned)} of {len(items)} items have no caption to paint and are left out")
    return captioned


def answer(
    config: AskingSettings,
    items: Sequence[Item],
    settings: Mapping[str, Any],
    load: Callable[[], System],
    **options: Any,
) -> ReplyFolder:
    """Replies of a system to all items; returns when every process is done.

    The processes part in the end: one alone takes the figures, and its metrics must not wait for those of the others.

    Args:
        settings: all that replies depend on.
        load: opens the system on this process's device, where it has something left to ask.
        options: of the system's call.

    Raises:
        ValueError: if the output folder holds replies that were made otherwise or to other questions, or too many
            items are passed over.
    """
    replies = ReplyFolder(config.out)
    check_pictures(items, config.max_bad_share)
    with process_state().main_process_first():
        replies.claim(settings)
        replies.note(items)
    generate(load, items, replies, config.batch_size, config.seed, config.max_bad_share, config, **options)
    process_state().destroy_process_group()
    return replies


def report(
    out: Path,
    title: str,
    items: Sequence[Item],
    replies: ReplyFolder,
    weights: Weights,
    columns: Mapping[str, Column] | None = None,
    bounded: bool = False,
    judge: Judge | None = None,
) -> None:
    """Take the figures of replies and write them down; prints where.

    Args:
        title: of the report.
        weights: where the metrics' weights are.
        columns: further ones, of data that more is known of.
        bounded: whether what the figures of StoryWorld's pictures lie between is told.
        judge: whose scores are added.
    """
    measurements = Measurements(items, replies, weights, columns)
    measurements.measure()
    if judge is not None:
        judge_replies(measurements, judge)
    bounds = judged_bounds(measurements) if bounded else None
    write_report(out, title, replies.settings, measurements, bounds)
    print(out / "results.md")
