"""Jobs that wait for one another, several at a time; what is done is not done again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Args:
        run: does it; called in a thread of its own.
        done: whether it was done before.
        needs: names of the jobs that it waits for.
        apart: whether `run` is called in a process of its own instead: models must not be opened by two threads of one.
    """

    name: str
    run: Callable[[], None]
    done: Callable[[], bool]
    needs: tuple[str, ...] = ()
    apart: bool = False


def run_jobs(jobs: Sequence[Job]) -> None:
    """Do what is not done, as many at a time as there are GPUs, else cores (at most four); each runs one thread.

    Args:
        jobs: each behind those that it needs.

    Raises:
        Exception: of the first that fails; what others have done is kept.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    workers = torch.cuda.device_count() or min(os.cpu_count() or 1, 4)
    futures: dict[str, Future] = {}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool, ThreadPoolExecutor(workers) as threads:

        def work(job: Job) -> None:
            for need in job.needs:
                futures[need].result()
            if job.done():
                return
            start = time.monotonic()
            print(f"{job.name}: started", flush=True)
            if job.apart:
                pool.submit(job.run).result()
            else:
                job.run()
            print(f"{job.name}: done after {time.monotonic() - start:.0f} s", flush=True)

        for job in jobs:
            futures[job.name] = threads.submit(work, job)
        try:
            for future in futures.values():
                future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
