"""Train storyworld-mini from nothing: every stage in its order, what can run side by side side by side.

    python training/miniature/make_miniature.py --configs configs/storyworld-mini --out runs/storyworld-mini [--install]

Each stage is a program of `training/` and goes on where it was stopped; a finished one is not run again. `--install`
puts the result into the package. Every core gets a process of its own: in models this small a second thread gains
nothing.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from minigpt5 import MiniGPT5Pipeline
from minigpt5.training.results import save_result
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.programs import ProgramError, run_program
from minigpt5.utils.settings import Settings, setting
from minigpt5.weights import SHIPPED

PROGRAMS = Path(__file__).parents[1]


def run(program: str, result: Path, *arguments: object, processes: int = 1) -> None:
    """Run a program, in as many one-thread processes as given, unless its result is there."""
    if result.exists():
        print(f"{program}: {result} is there", flush=True)
        return
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    command = [str(PROGRAMS / f"{program}.py"), *map(str, arguments)]
    if processes > 1:
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), *command]
    ended = subprocess.run([sys.executable, *command], env=environment, check=False)
    if ended.returncode:
        raise ProgramError(f"{program} ended with exit code {ended.returncode}; what it said stands above")
    if not result.exists():
        raise ProgramError(f"{program} was stopped; the same command goes on there")


@dataclass(kw_only=True)
class MiniatureConfig(Settings):
    """All stages."""

    configs: Path = setting(help="folder with a YAML file a stage")
    out: Path = setting(help="folder for all stages' data, checkpoints and results")
    install: bool = setting(False, help="replace the model and the judge of the package")


def main(config: MiniatureConfig):
    out, data = config.out, config.out / "data"
    out.mkdir(parents=True, exist_ok=True)
    processes = torch.cuda.device_count() or min(os.cpu_count() or 1, 4)

    def stage(program: str, name: str, result: str, *more: object, processes: int = 1) -> None:
        settings = ("--config", config.configs / f"{name}.yaml", "--out", out / name)
        run(program, out / name / result, *settings, *more, processes=processes)

    exported, judge = ("--data", data), ("--judge", out / "judge/model")

    with ThreadPoolExecutor(2) as pool:
        judged = pool.submit(stage, "miniature/train_judge", "judge", "model")
        run("export_storyworld", data / "done", "--config", config.configs / "data.yaml", "--out", data)
        reader = pool.submit(stage, "miniature/pretrain_comprehension", "comprehension", "model", *exported)
        judged.result()
        pool.submit(stage, "miniature/train_vae", "vae", "model", *exported).result()
        painter = pool.submit(
            stage, "miniature/train_diffusion", "diffusion", "scheduler", *exported, "--vae", out / "vae/model", *judge
        )
        # Whenever a core is free.
        larger = pool.submit(stage, "miniature/enlarge_vae", "enlarged", "model", "--vae", out / "vae/model")
        painter.result()
        reader.result()

        parts = ("--comprehension", out / "comprehension", "--diffusion", out / "diffusion", "--vae", out / "vae/model")
        run("miniature/assemble_pipeline", out / "base/model_index.json", *parts, "--out", out / "base")
        for program, name, start, *more in (
            ("tune_instructions", "questions", "base", *exported),
            ("miniature/align_coached", "align", "questions/model", *exported, *judge),
            ("miniature/fit_mapper", "mapper", "align/model", *exported, *judge),
            ("miniature/interleave_coached", "interleaved", "mapper/model", *exported, *judge),
        ):
            stage(program, name, "model", "--model", out / start, *more, processes=processes)
        larger.result()
    if not (out / "model").exists():
        vae = load_whole(AutoencoderKL, out / "enlarged/model")
        save_result(MiniGPT5Pipeline.from_pretrained(out / "interleaved/model", vae=vae), out / "model")

    if config.install:
        from minigpt5.storyworld.judge import WEIGHTS

        for source, target in (("model", SHIPPED / "storyworld-mini"), ("judge/model", WEIGHTS)):
            # The package's model card tells more than the one written with every saved pipeline.
            shutil.copytree(out / source, target, ignore=shutil.ignore_patterns("README.md"), dirs_exist_ok=True)
            print(f"{target}: replaced")


if __name__ == "__main__":
    run_program(main, MiniatureConfig, __doc__)
