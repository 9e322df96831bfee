"""Carries out the plan under one folder: each training with its questions is a process that can be stopped at any time.

A part or a system of a seed is one job. What is done is not done again; what was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DDIMScheduler

from minigpt5.evaluation.claims import plan, world
from minigpt5.evaluation.claims.asking import ask
from minigpt5.evaluation.claims.plan import PARTS, SYSTEMS, Amounts, count_of, guided, tasks_of
from minigpt5.evaluation.claims.rows import Rows, from_plain, measure, plain
from minigpt5.evaluation.claims.trainings import Curve, answering, open_judge, train_part, train_system, user_seconds
from minigpt5.training.fit import noticed
from minigpt5.training.results import save_result
from minigpt5.utils.files import write_json, write_picture
from minigpt5.utils.json_files import read_json
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.programs import ProgramError

# Items whose pictures are kept for the report.
SHOWN = 6
# Of these the model is kept, for others are made of it.
KEPT = {one.start for one in SYSTEMS.values() if one.start}
NEEDED_PARTS = {"vae": (), "judge": (), "painter": ("vae", "judge"), "reader": ()}


@dataclass(frozen=True)
class Job:
    """One part, or one system of one seed.

    Args:
        name: of its folder.
        result: the file that is written last.
        needs: names of the jobs that it waits for.
    """

    name: str
    result: Path
    needs: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return self.result.exists()


class ClaimsRun:
    """A run of the plan under a folder.

    Args:
        work: for models, curves, rows; kept and gone on with.
        program: the file that is started for jobs with `--work`, `--job` and perhaps `--quick`.
    """

    def __init__(self, work: Path, program: Path, amounts: Amounts):
        self.work, self.program, self.amounts = work, program, amounts

    def jobs(self) -> list[Job]:
        """Every job, seed by seed, behind those that it needs."""
        jobs = [Job(name, self.work / "parts" / name / "model/.done", needs) for name, needs in NEEDED_PARTS.items()]
        for seed in self.amounts.seeds:
            for name, system in SYSTEMS.items():
                needs = [f"{other}-{seed}" for other in (system.start, *system.needs) if other]
                own = f"{name}-{seed}"
                jobs.append(Job(own, self.work / own / "rows.json", (*PARTS, *needs)))
        return jobs

    def begin(self) -> None:
        """Note the plan, and the commit that holds it.

        Raises:
            ProgramError: if the folder was begun with another plan.
        """
        self.check_plan()
        file = self.work / "plan.json"
        if not file.exists():
            write_json(file, {"plan": fingerprint(self.amounts), "commit": plan_commit()})

    def check_plan(self) -> None:
        """See that what is in the folder, if anything is, was made by this plan.

        Raises:
            ProgramError: if the folder was begun with another plan.
        """
        file = self.work / "plan.json"
        if file.exists() and read_json(file)["plan"] != fingerprint(self.amounts):
            raise ProgramError(f"{self.work} was begun with another plan; give another folder as work")

    @property
    def commit(self) -> str | None:
        """Of the plan, as it was when the run began."""
        file = self.work / "plan.json"
        return read_json(file)["commit"] if file.exists() else None

    def run(self, minutes: float | None = None) -> bool:
        """Do what is not done, as many jobs at a time as there are cores, one thread each.

        Args:
            minutes: after which whatever runs is stopped where it is and kept, as it is at SIGTERM.

        Returns:
            Whether all is done.

        Raises:
            ProgramError: if a job fails; has its last line. What others have done is kept.
        """
        self.begin()
        most = self.amounts.jobs_a_process
        ends = None if minutes is None else time.monotonic() + 60 * minutes
        running: dict[tuple[str, ...], subprocess.Popen] = {}
        try:
            with noticed(signal.SIGTERM) as stop:
                while True:
                    # Looked at first: what has ended by then has its results.
                    ended = [names for names, process in running.items() if process.poll() is not None]
                    done = {job.name for job in self.jobs() if job.done}
                    for names in ended:
                        self._ended(names, running.pop(names), done)
                    taken = {name for names in running for name in names}
                    waiting = [job for job in self.jobs() if job.name not in done | taken]
                    if not waiting and not running:
                        return True
                    if stop or (ends is not None and time.monotonic() >= ends):
                        return False
                    ready = [job.name for job in waiting if set(job.needs) <= done]
                    for _ in range((os.cpu_count() or 1) - len(running)):
                        names, ready = tuple(ready[:most]), ready[most:]
                        if names:
                            running[names] = self._start(names)
                    time.sleep(0.2)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()

    def _start(self, names: Sequence[str]) -> subprocess.Popen:
        words = [sys.executable, "-W", "ignore", str(self.program), f"--work={self.work}", f"--job={','.join(names)}"]
        words += ["--quick"] if self.amounts == plan.FEW else []
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
        log = self._log(names)
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{', '.join(names)}: started", flush=True)
        with open(log, "a", encoding="utf-8") as file:
            return subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment)

    def _log(self, names: Sequence[str]) -> Path:
        """Named after the first of them."""
        return self.work / "logs" / f"{names[0]}.log"

    def _ended(self, names: Sequence[str], process: subprocess.Popen, done: Collection[str]) -> None:
        missing = [name for name in names if name not in done]
        if missing:
            log = self._log(names)
            last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise ProgramError(f"{missing[0]} ended with exit code {process.returncode}, see {log}: {last}")
        print(f"{', '.join(names)}: done", flush=True)

    def do(self, names: Sequence[str]) -> None:
        """Do some jobs, in this process.

        Raises:
            ProgramError: for a job that there is not.
        """
        jobs = {job.name: job for job in self.jobs()}
        for name in names:
            if name not in jobs:
                raise ProgramError(f"there is no job {name}; there are {', '.join(jobs)}")
        quiet_libraries()
        torch.set_num_threads(1)
        for name in names:
            wall, user = time.monotonic(), user_seconds()
            try:
                if name in PARTS:
                    train_part(name, self.work / "parts", self.amounts)
                    jobs[name].result.write_text("")
                else:
                    system, _, seed = name.rpartition("-")
                    self._train_and_ask(system, int(seed), jobs[name].result)
            finally:
                self._note_time(name, time.monotonic() - wall, user_seconds() - user)

    def _note_time(self, name: str, wall: float, user: float) -> None:
        """Add to the seconds that the job took before it was stopped."""
        file = self.work / "seconds" / f"{name}.json"
        before = read_json(file) if file.exists() else {"wall": 0.0, "user": 0.0}
        write_json(file, {"wall": before["wall"] + wall, "user": before["user"] + user})

    def _train_and_ask(self, name: str, seed: int, result: Path) -> None:
        system, folder, judge = SYSTEMS[name], result.parent, open_judge(self.work / "parts")
        pipe = train_system(name, seed, self.work, self.amounts)
        if system.kind == "painter":
            save_result(cast(Any, pipe).unet, folder / "unet")
            cast(Any, pipe).to("cpu", torch.float32)
        tuned = self.work / f"{plan.TUNED}-{seed}" / "unet" if plan.TUNED in system.needs else None
        rows: dict[str, Any] = {}
        own = pipe.scheduler
        for task in tasks_of(name, self.amounts):
            options = _guidance(task, self.amounts)
            clamped = options.pop("clamped", False)
            scheduler = DDIMScheduler.from_config(own.config, clip_sample=True, clip_sample_range=plan.CLAMPED_TO)
            pipe.register_modules(scheduler=scheduler if clamped else own)
            asked = world.CAPTIONS if options else task
            questions = world.questions(asked, "test", count_of(task, self.amounts))
            if system.answers == "text":
                options["image_mode"] = "never"
            replies = ask(answering(system, pipe, tuned), questions, seed, **options)
            rows[task] = plain(measure(questions, replies, judge))
            for i, (_, image) in enumerate(replies[:SHOWN]):
                if image is not None:
                    write_picture(self.sample(name, seed, task, i), image)
        pipe.register_modules(scheduler=own)
        if name in KEPT:
            pipe.fuse_adapter()
            save_result(pipe, folder / "model")
        write_json(result, {"rows": rows})

    def sample(self, name: str, seed: int, task: str, item: int) -> Path:
        """The file of a picture that is kept."""
        slug = "".join(letter if letter.isalnum() or letter == "." else "-" for letter in task)
        return self.work / f"{name}-{seed}" / "samples" / slug / f"{item}.png"

    def measured(self) -> dict[str, list[dict[str, Rows]]]:
        """Rows by task of every system's seeds, as far as these are measured one after the other."""
        found: dict[str, list[dict[str, Rows]]] = {}
        for name in SYSTEMS:
            files = [self.work / f"{name}-{seed}" / "rows.json" for seed in self.amounts.seeds]
            for file in takewhile(Path.exists, files):
                rows = read_json(file)["rows"]
                found.setdefault(name, []).append({task: from_plain(one) for task, one in rows.items()})
        return found

    def curves(self) -> dict[str, Curve]:
        """Of every training that has begun."""
        places = {name: self.work / "parts" / name for name in PARTS}
        places |= {job.name: job.result.parent for job in self.jobs() if job.name not in PARTS}
        return {name: Curve(place / "curve.json") for name, place in places.items() if (place / "curve.json").exists()}

    def seconds(self) -> dict[str, dict[str, float]]:
        """What each job took, wall and user time."""
        return {file.stem: read_json(file) for file in sorted((self.work / "seconds").glob("*.json"))}


def _guidance(task: str, amounts: Amounts) -> dict[str, Any]:
    """The call's options of a guidance task."""
    for clamped in (False, True):
        for scale in amounts.scales:
            if task == guided(scale, clamped):
                return {"guidance_scale": float(scale), "clamped": clamped}
    return {}


def fingerprint(amounts: Amounts) -> str:
    """What tells one plan from another."""
    shared = (plan.LORA, plan.TEXT_WEIGHT, plan.GUIDANCE_SCALE, plan.CLAMPED_TO)
    told = repr((amounts, PARTS, plan.KINDS, SYSTEMS, plan.CLAIMS, shared))
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def plan_commit() -> str | None:
    """The last commit that changed the plan's page; `None` if there is no repository or the page is not committed."""
    page = Path(plan.__file__).parents[3] / "docs/claims-plan.md"
    if not page.exists():
        return None

    def git(*words: str) -> Sequence[str]:
        told = subprocess.run(["git", *words, "--", page.name], cwd=page.parent, capture_output=True, text=True)
        return told.stdout.split() if told.returncode == 0 else ["unknown"]

    if git("status", "--porcelain"):
        return None
    return next(iter(git("log", "-1", "--format=%H")), None)
