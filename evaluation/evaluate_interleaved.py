"""Replies in text and pictures to the wishes of OpenING, UEval or StoryWorld, by a judge's criteria.

    python evaluation/evaluate_interleaved.py --data runs/asked/change/validation.jsonl --out runs/changes
    python evaluation/evaluate_interleaved.py --layout opening --data test_data.jsonl --judge JUDGE --out runs/opening

The judge is StoryWorld's, for data that StoryWorld wrote, or any vision-language model by its name. Writes
`results.json` and `results.md`. A run that was stopped goes on where it was; the judge begins anew.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from minigpt5.evaluation.interleaved_items import INTERLEAVED
from minigpt5.evaluation.judges import ModelJudge
from minigpt5.evaluation.run import answer, report
from minigpt5.evaluation.speaker import ReaderSettings, load_reader, reader_revision
from minigpt5.evaluation.storyworld import StoryWorldJudge, read_truth
from minigpt5.evaluation.systems import (
    AskingSettings,
    MetricSettings,
    SystemSettings,
    check_paths,
    load_system,
    machine,
    metric_weights,
    system_record,
)
from minigpt5.utils.processes import is_main_process
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class InterleavedEvaluation(SystemSettings, MetricSettings, AskingSettings):
    """What is asked."""

    layout: str = setting("chat", choices=tuple(INTERLEAVED), help="of the file with wishes")
    data: Path = setting(help="that file")
    judge: str = setting(
        "storyworld", help="storyworld, or shipped model, folder or hub repository of a vision-language model"
    )
    max_images: int = setting(1, least=1, most=100, help="of a reply")
    max_new_tokens: int = setting(64, least=1, most=100_000, help="of a reply; a picture counts as one")

    def __post_init__(self):
        super().__post_init__()
        if self.judge == "storyworld" and self.layout != "chat":
            raise ValueError(f"judge: StoryWorld's knows nothing of {self.layout}; name a vision-language model")
        if self.judge != "storyworld":
            try:
                ReaderSettings(model=self.judge)
            except ValueError as error:
                raise ValueError(f"judge: {error}") from None


def main(config: InterleavedEvaluation):
    check_paths(config)
    items = INTERLEAVED[config.layout](config.data, config.count)
    of_storyworld = config.judge == "storyworld"
    # What the judge needs is looked for before anything is asked.
    truth = read_truth(config.data.parent, config.data.stem) if of_storyworld else {}
    judging = None if of_storyworld else f"{config.judge}, {reader_revision(config.judge)}"
    options = {name: getattr(config, name) for name in ("max_images", "max_new_tokens")}
    settings = {
        **system_record(config),
        "layout": config.layout,
        "data": str(config.data),
        "seed": config.seed,
        **options,
        **machine(config),
    }
    painting = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
    replies = answer(config, items, settings, partial(load_system, config), **options, **painting)
    if is_main_process():
        if judging is None:
            judge = StoryWorldJudge(truth)
        else:
            judge = ModelJudge(judging, load_reader(ReaderSettings(model=config.judge, dtype=config.dtype)))
        report(config.out, "Text and pictures", items, replies, metric_weights(config), judge=judge)


if __name__ == "__main__":
    run_program(main, InterleavedEvaluation, __doc__, many_processes=True)
