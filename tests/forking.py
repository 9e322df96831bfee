"""Programs in processes of their own, forked off one that has imported the libraries, which alone takes 10 s."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

import pytest

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["minigpt5.training.objective", "minigpt5.vokens.adapter_folder"])
# No library may start threads before the fork.
_ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it said."""

    returncode: int | None
    stdout: str
    stderr: str


def run_forked(program: Path, *arguments: object, processes: int = 1, timeout: float = 300) -> list[Ended]:
    """Run a program in one process, or in several that find each other as those of `torchrun` do."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ALONE.items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(_free_port())}
    running = []
    for rank in range(processes):
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        said = str(program.with_suffix(f".{rank}"))
        words = [str(program), *map(str, arguments)]
        running.append((_CONTEXT.Process(target=_become, args=(words, environment, said)), said))
        running[-1][0].start()
    ended = []
    for process, said in running:
        process.join(timeout)
        process.kill()
        process.join()
        ended.append(Ended(process.exitcode, *(Path(f"{said}.{name}").read_text() for name in ("out", "err"))))
    return ended


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _become(words: list[str], environment: dict[str, str], said: str) -> None:
    import torch

    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.update(environment)
    sys.argv = words
    torch.set_num_threads(1)
    runpy.run_path(words[0], run_name="__main__")
