"""Pictures a second of the evaluation's batched generation, against one call an item.

    python benchmarks/benchmark_evaluation.py [--model storyworld-mini] [--batch-size 32]

Both answer the same items, those of `evaluation/evaluate_stories.py` over a StoryWorld export that is made for it, into
folders of their own. The ratio is what compares between machines. On a CPU seconds are those of the processor, so that
other programs on the machine do not count.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.evaluation.generation import generate
from minigpt5.evaluation.items import story_items
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.storyworld.export import export_vist
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import pick_device


def main():
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="storyworld-mini", help="pipeline folder, or the name of a shipped model")
    parser.add_argument("--stories", type=int, default=3, help="13 items each (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")
    arguments = parser.parse_args()
    pipe = MiniGPT5Pipeline.from_pretrained(arguments.model).to(pick_device())
    pipe.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        export_vist(Path(folder, "data"), "test", arguments.stories)
        items = story_items(Path(folder, "data"), "test")

        clock = time.perf_counter if pipe.device.type == "cuda" else time.process_time

        def rate(batch_size, items):
            replies = ReplyFolder(Path(folder, f"{batch_size}-{len(items)}"))
            replies.claim({})
            start = clock()
            generate(pipe, items, replies, batch_size)
            return len(items) / (clock() - start)

        rate(2, items[:2])  # to warm up
        single, batched = rate(1, items), rate(arguments.batch_size, items)
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}, {pipe.device}"
    print(f"{len(items)} replies with a picture each, {threads}")
    print(f"one call an item:          {single:8.2f} pictures/s")
    print(f"batches of {arguments.batch_size:3}:            {batched:8.2f} pictures/s")
    print(f"ratio:                     {batched / single:8.2f}")


if __name__ == "__main__":
    main()
