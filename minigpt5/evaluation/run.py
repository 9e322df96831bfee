"""An evaluation from its settings to its report."""

from __future__ import annotations

from collections.abc import Sequence

from minigpt5.evaluation.generation import check_pictures, generate
from minigpt5.evaluation.items import Item
from minigpt5.evaluation.measure import Measurements
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.evaluation.report import write_report
from minigpt5.evaluation.storyworld import judged_bounds, read_truth, storyworld_columns
from minigpt5.evaluation.systems import EvaluationConfig, check_paths, load_system, metric_weights, settings_of
from minigpt5.utils.processes import is_main_process, process_state, shard


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
    columns = storyworld_columns(read_truth(config.data, str(config.split))) if config.judge else None
    replies = answer(config, items)
    if not is_main_process():
        return
    measurements = Measurements(items, replies, metric_weights(config), columns)
    measurements.measure()
    bounds = judged_bounds(measurements) if config.judge else None
    write_report(config.out, title, replies.settings, measurements, bounds)
    print(config.out / "results.md")


def answer(config: EvaluationConfig, items: Sequence[Item]) -> ReplyFolder:
    """Replies of the system that the settings name to all items; returns when every process is done.

    The model is loaded only by a process that has something left to ask. The processes part in the end: one alone takes
    the figures, and its metrics must not wait for those of the others.

    Raises:
        ValueError: if the output folder holds replies that were made otherwise, or too many items are passed over.
    """
    replies = ReplyFolder(config.out)
    settings = settings_of(config)
    check_pictures(items, config.max_bad_share)
    with process_state().main_process_first():
        replies.claim(settings)
    if any(item.id not in replies for item in shard(items)):
        options = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
        system = load_system(config)
        generate(system, items, replies, config.batch_size, config.seed, config.max_bad_share, **options)
    else:
        process_state().wait_for_everyone()
    process_state().destroy_process_group()
    return replies
