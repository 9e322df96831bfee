"""What starting costs: imports over the import of torch, and `minigpt5 story` by its parts.

    python benchmarks/benchmark_start.py [--runs 3]

User seconds are the processor's in user mode, each run a process of its own, so that other programs on the machine
count little; wall seconds are what one waits. Of several runs the median, the kinds in turn. What compares between
machines are the ratios. The last kind asks a `minigpt5 serve` that runs beside and has told a story before.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path

from minigpt5.utils.imports import collector_paused
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import Settings, setting

OPENING = "A red fox wakes up in the forest."
STORY = ["-m", "minigpt5", "story", OPENING, "--image-mode", "always", "--out", "story"]
# What a process of each kind runs.
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "DiffusionPipeline": ["-c", "from diffusers import DiffusionPipeline"],
    "MiniGPT5Pipeline": ["-c", "from minigpt5 import MiniGPT5Pipeline"],
    "minigpt5 --help": ["-m", "minigpt5", "--help"],
    "minigpt5 story": STORY,
}
# In this order each brings what those before it have not: diffusers needs all that stands above it.
IMPORTS = ("torch", "torch._dynamo", "scipy.stats", "scipy.optimize", "torchvision", "transformers.modeling_utils")
IMPORTS += ("peft", "diffusers.pipelines.pipeline_utils", "minigpt5.pipeline")
NETWORKS = ("comprehension.vision_model", "comprehension.qformer", "reader.language_model")
NETWORKS += ("mapper", "unet", "vae.decoder")


def user_seconds():
    """Of this process so far."""
    return os.times().user


def memory():
    """MiB of this process: all that is resident, and what of it is no page of a file."""
    status = Path("/proc/self/status").read_text()
    return tuple(int(status.split(f"{name}:")[1].split()[0]) // 1024 for name in ("VmHWM", "RssAnon"))


class Parts:
    """A table of seconds and memory, part by part."""

    def __init__(self):
        self.last = user_seconds()

    def add(self, name, seconds=None):
        """A part that ends now, or of which the seconds are known."""
        now = user_seconds()
        taken = now - self.last if seconds is None else seconds
        print(f"{name:36} {taken:7.2f} s   {memory()[0]:5d} MiB, of which {memory()[1]:4d} its own")
        self.last = now


def import_parts():
    """Import one after another, in this process."""
    parts = Parts()
    with collector_paused():
        for name in IMPORTS:
            before = len(sys.modules)
            try:
                import_module(name)
            except ImportError:
                continue
            parts.add(f"{name} ({len(sys.modules) - before} modules)")


def story_parts():
    """Tell a story of five steps in this process, network by network."""
    with collector_paused():
        from minigpt5.loading import open_model
        from minigpt5.story import tell_story, write_story
        from minigpt5.utils.logs import quiet_libraries

    quiet_libraries()
    parts = Parts()
    pipe = open_model("storyworld-mini")
    parts.add("load")
    spent, begun = Counter(), {}
    for name in NETWORKS:

        def enter(*_, name=name):
            begun[name] = user_seconds()

        def leave(*_, name=name):
            spent[name] += user_seconds() - begun[name]

        network = attrgetter(name)(pipe)
        network.register_forward_pre_hook(enter)
        network.register_forward_hook(leave)
    steps = list(tell_story(pipe, OPENING, image_mode="always"))
    told = user_seconds() - parts.last
    for name in NETWORKS:
        parts.add(f"  {name}", spent[name])
    parts.add("tell, all of it", told)
    with tempfile.TemporaryDirectory() as folder:
        write_story(Path(folder, "story"), OPENING, "storyworld-mini", 0, steps)
    parts.add("write")


def cost(command):
    """User and wall seconds of a process, its end among them."""
    before, began = os.times().children_user, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return os.times().children_user - before, time.perf_counter() - began


@dataclass(kw_only=True)
class StartBenchmark(Settings):
    """What is measured."""

    runs: int = setting(3, least=1, help="of each kind")


def main(config: StartBenchmark):
    # Here, since it brings numpy, which is to be counted with what imports it.
    from minigpt5.service.load import started

    with started("storyworld-mini") as service:
        commands = COMMANDS | {"minigpt5 story --server": [*STORY, "--server", service.url]}
        cost(commands["minigpt5 story --server"])
        costs = {name: [] for name in commands}
        for _ in range(config.runs):
            for name, command in commands.items():
                costs[name].append(cost(command))
    medians = {
        name: [statistics.median(kind) for kind in zip(*several, strict=True)] for name, several in costs.items()
    }
    print(f"{'':36}{'user s':>9}{'over torch':>12}{'wall s':>9}")
    for name, (user, wall) in medians.items():
        print(f"{name:36}{user:>9.2f}{user / medians['import torch'][0]:>12.2f}{wall:>9.2f}")
    for parts in (import_parts, story_parts):
        print(f"\n{parts.__doc__.partition(',')[0]}:", flush=True)
        # This process has imported all already.
        code = f"from {Path(__file__).stem} import {parts.__name__}; {parts.__name__}()"
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)


if __name__ == "__main__":
    run_program(main, StartBenchmark, __doc__)
