"""Train storyworld-mini from nothing: every stage in its order, what can run side by side side by side.

    python training/make_miniature.py --configs configs/storyworld-mini --out runs/storyworld-mini [--install]

Each stage is a program of this folder and goes on where it was stopped; a finished one is not run again. `--install`
puts the result into the package. Two one-thread processes are faster on two cores than one with two threads.
"""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from minigpt5.hub import SHIPPED

PROGRAMS = Path(__file__).parent


def run(program: str, result: Path, *arguments: object, threads: int) -> None:
    """Run a program unless its result is there."""
    if result.exists():
        print(f"{program}: {result} is there", flush=True)
        return
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(PROGRAMS / f"{program}.py"), *map(str, arguments)]
    subprocess.run(command, env=environment, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", type=Path, required=True, help="folder with a YAML file a stage")
    parser.add_argument("--out", type=Path, required=True, help="folder for all stages' data, checkpoints and results")
    parser.add_argument("--install", action="store_true", help="replace the model and the judge of the package")
    arguments = parser.parse_args()
    out, data = arguments.out, arguments.out / "data"
    out.mkdir(parents=True, exist_ok=True)
    cores = os.cpu_count() or 1

    def stage(program: str, name: str, result: str, threads: int, *more: object) -> None:
        settings = ("--config", arguments.configs / f"{name}.yaml", "--data", data, "--out", out / name)
        run(program, out / name / result, *settings, *more, threads=threads)

    run("export_storyworld", data / "done", "--config", arguments.configs / "data.yaml", "--out", data, threads=cores)
    half = max(1, cores // 2)
    judge = ("--judge", out / "judge/model")

    def painter() -> None:
        stage("train_vae", "vae", "model", half)
        stage("train_judge", "judge", "model", half)
        stage("train_diffusion", "diffusion", "scheduler", half, "--vae", out / "vae/model", *judge)

    def reader() -> None:
        stage("pretrain_comprehension", "comprehension", "model", half)

    with ThreadPoolExecutor(2) as pool:
        for track in (pool.submit(painter), pool.submit(reader)):
            track.result()

    parts = ("--comprehension", out / "comprehension", "--diffusion", out / "diffusion", "--vae", out / "vae/model")
    run("assemble_pipeline", out / "base/model_index.json", *parts, "--out", out / "base", threads=cores)
    stage("align_vokens", "align", "model", cores, "--model", out / "base", *judge)
    stage("fit_mapper", "mapper", "model", cores, "--model", out / "align/model", *judge)
    stage("train_interleaved", "interleaved", "model", cores, "--model", out / "mapper/model", *judge)

    if arguments.install:
        from minigpt5.storyworld.judge import WEIGHTS

        for source, target in (("interleaved/model", SHIPPED / "storyworld-mini"), ("judge/model", WEIGHTS)):
            # The package's model card tells more than the one written with every saved pipeline.
            shutil.copytree(out / source, target, ignore=shutil.ignore_patterns("README.md"), dirs_exist_ok=True)
            print(f"{target}: replaced")


if __name__ == "__main__":
    main()
