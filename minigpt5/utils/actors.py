"""Work that is shared among the actors of a Ray cluster, or done in this process where Ray is not asked for."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from minigpt5.utils.memory import keep_freed_memory
from minigpt5.utils.programs import ProgramError, is_told, one_line
from minigpt5.utils.settings import Settings, setting

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(kw_only=True)
class ActorSettings(Settings):
    """Ray."""

    ray: bool = setting(
        False, help="share the work among actors of the Ray cluster that RAY_ADDRESS names, or of this machine"
    )
    actors: int = setting(1, least=1, most=10**5, help="actors, each with a model of its own")
    gpus_per_actor: float = setting(0.0, least=0, most=64, help="of each actor; half a GPU leaves room for another")


def map_in_actors(work: Callable[[Task], Result], tasks: Sequence[Task], settings: ActorSettings) -> Iterator[Result]:
    """The results of all tasks, as they come: with Ray in any order.

    A task whose actor died is done again by another, so what `work` leaves behind must be the same after two times.

    Args:
        work: opens what it needs when it is first called; like tasks and results it can be pickled.

    Raises:
        ImportError: if Ray is asked for and not installed.
        ProgramError: if the cluster cannot hold one actor, or an actor raised what `is_told`.
        Exception: any other of `work`, with Ray in Ray's words.
    """
    if not settings.ray or not tasks:
        yield from map(work, tasks)
        return
    try:
        ray: Any = import_module("ray")
        import_module("ray.data")
    except ImportError:
        raise ImportError("Ray is not installed: pip install 'minigpt5[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
    has = ray.cluster_resources()
    if has.get("GPU", 0) < settings.gpus_per_actor:
        raise ProgramError(f"gpus_per_actor is {settings.gpus_per_actor}, and the cluster has {has.get('GPU', 0):g}")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks])
    results = rows.map_batches(
        _Actor,
        fn_constructor_args=(work, os.getcwd()),
        batch_size=1,
        num_cpus=1,
        num_gpus=settings.gpus_per_actor,
        compute=ray.data.ActorPoolStrategy(size=settings.actors),
    )
    for row in results.iter_rows():
        result, problem = pickle.loads(row["done"])
        if problem is not None:
            raise ProgramError(problem)
        yield result


class _Actor:
    """One of the pool: keeps the work, and with it what that has opened.

    It works in the folder of who asks, as paths may be relative.
    """

    def __init__(self, work: Callable, folder: str):
        keep_freed_memory()
        self.work, self.folder = work, folder

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"done": [pickle.dumps(self._do(pickle.loads(task))) for task in rows["task"]]}

    def _do(self, task: Any) -> tuple[Any, str | None]:
        """The result, or what the user is told: Ray's own errors wrap it in pages."""
        try:
            os.chdir(self.folder)
            return self.work(task), None
        except Exception as error:
            if not is_told(error):
                raise
            return None, one_line(error)
