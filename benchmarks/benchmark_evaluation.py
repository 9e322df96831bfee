"""Pictures a second of the evaluation's batched generation, against one call an item.

    python benchmarks/benchmark_evaluation.py [--model storyworld-mini] [--batch-size 32]

Both answer the same items, those of `evaluation/evaluate_stories.py` over a StoryWorld export that is made for it, into
folders of their own. The ratio is what compares between machines. On a CPU seconds are those of the processor, so that
other programs on the machine do not count.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5.evaluation.generation import generate
from minigpt5.evaluation.items import story_items
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.loading import ModelSettings, open_model
from minigpt5.storyworld.export import export_vist
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class EvaluationBenchmark(ModelSettings):
    """What is measured."""

    stories: int = setting(3, least=1, help="of 13 items each")
    batch_size: int = setting(32, least=2, help="items of a batch")


def main(config: EvaluationBenchmark):
    pipe = open_model(config.model, config.adapter)
    with tempfile.TemporaryDirectory() as folder:
        export_vist(Path(folder, "data"), "test", config.stories)
        items = story_items(Path(folder, "data"), "test")

        clock = time.perf_counter if pipe.device.type == "cuda" else time.process_time

        def rate(batch_size, items):
            replies = ReplyFolder(Path(folder, f"{batch_size}-{len(items)}"))
            replies.claim({})
            start = clock()
            generate(lambda: pipe, items, replies, batch_size)
            return len(items) / (clock() - start)

        rate(2, items[:2])  # to warm up
        single, batched = rate(1, items), rate(config.batch_size, items)
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}, {pipe.device}"
    print(f"{len(items)} replies with a picture each, {threads}")
    print(f"one call an item:          {single:8.2f} pictures/s")
    print(f"batches of {config.batch_size:3}:            {batched:8.2f} pictures/s")
    print(f"ratio:                     {batched / single:8.2f}")


if __name__ == "__main__":
    run_program(main, EvaluationBenchmark, __doc__)
