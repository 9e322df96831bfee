"""Carries out the plan: data, trainings and evaluations of the claims under one folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from minigpt5.evaluation.baselines import GILL, Divter, TwoStage, ZeroShotDiffusion
from minigpt5.evaluation.claims.divter import write_divter_chats
from minigpt5.evaluation.claims.jobs import Job, run_jobs
from minigpt5.evaluation.claims.paper import CAPTIONS, TURN, VOKENS
from minigpt5.evaluation.claims.plan import TRAININGS, Counts, Evaluation, SystemConfig, Training, evaluations
from minigpt5.evaluation.claims.rows import Rows, measure
from minigpt5.evaluation.generation import System, generate
from minigpt5.evaluation.items import Item, alignment_items, dialogue_items, story_items
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.evaluation.storyworld import read_truth
from minigpt5.loading import open_model, revision
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.readers.vokens import replace_vokens
from minigpt5.storyworld.export import export_cc3m, export_mmdialog, export_vist
from minigpt5.storyworld.judge import load_judge
from minigpt5.training.results import save_result
from minigpt5.utils.files import write_json
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.json_files import read_json
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import pick_device
from minigpt5.utils.programs import ProgramError, is_told, one_line


@dataclass(frozen=True)
class Timed:
    """A function to call with arguments, and the file where its seconds are noted; it can go to another process."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]
    note: Path

    def __call__(self) -> None:
        """Call it and note its time.

        Raises:
            ProgramError: for what the user can put right; where it was raised, which tells, another process cannot see.
        """
        start = time.monotonic()
        try:
            self.function(*self.arguments)
        except Exception as error:
            if is_told(error):
                raise ProgramError(one_line(error)) from error
            raise
        write_json(self.note, {"seconds": round(time.monotonic() - start, 1)})


class ClaimsRun:
    """A run of the plan.

    Args:
        folders: by the names that the plan has for them, with `$work` and `$judge`; `$data` under `$work` is exported,
            and an `$adapter` is the finished model's.
        programs: folder of the training programs.
        configs: folder of their settings.
        counts: how much is asked.
        quick: two steps of every training.
    """

    def __init__(self, folders: Mapping[str, Path], programs: Path, configs: Path, counts: Counts, quick: bool = False):
        self.work = folders["work"]
        self.folders = {"captions": self.work / "captions"} | dict(folders)
        self.programs, self.configs, self.counts, self.quick = programs, configs, counts, quick
        self.evaluations = evaluations(counts)

    def path(self, written: str) -> Path:
        """A folder as the plan writes it."""
        return Path(Template(written).substitute({name: str(path) for name, path in self.folders.items()}))

    def jobs(self) -> list[Job]:
        """Every job, behind those that it needs."""
        jobs = self._data_jobs()
        for name, training in TRAININGS.items():
            result = "adapter/adapter.json" if "prefix_length" in training.options else "model/model_index.json"
            read = [option for option in training.options.values() if isinstance(option, str) and option[0] == "$"]
            train = self._timed(name, train_in_process, self.command(name, training), self.work / f"logs/{name}.log")
            jobs.append(Job(name, train, (self.work / name / result).exists, self._needs(jobs, *read)))
        for name, evaluation in self.evaluations.items():
            file, system = self.measured(name), evaluation.system
            read = filter(None, (system.model, system.adapter, system.unet, evaluation.data))
            arguments = (self._opened(evaluation), self.replies(name), file, self.folders["judge"])
            ask = self._timed(slug(name), ask_and_measure, *arguments)
            done = partial(is_measured, file, self._opened(evaluation))
            jobs.append(Job(slug(name), ask, done, self._needs(jobs, *read), apart=True))
        return jobs

    def run(self) -> None:
        """Do what is not done.

        Raises:
            ProgramError: if a training fails; what others have done is kept.
        """
        run_jobs(self.jobs())

    def command(self, name: str, training: Training) -> list[str]:
        """The words that start a training."""
        settings = {"config": self.configs / f"{training.config}.yaml", "out": self.work / name}
        few: dict[str, object] = {"steps": 2, "warmup_steps": 1} if self.quick else {}
        if self.quick and training.config != "text":
            few["judged"] = 1
        if self.quick and training.config in ("align", "interleaved"):
            few["caption_only_steps"] = 1
        options = {
            option: self.path(value) if isinstance(value, str) and value.startswith("$") else value
            for option, value in training.options.items()
        }
        words = [f"--{option}={value}" for option, value in (settings | few | options).items()]
        return [sys.executable, str(self.programs / f"{training.program}.py"), *words]

    def replies(self, name: str) -> Path:
        """The folder of an evaluation's replies."""
        return self.work / "replies" / slug(name)

    def measured(self, name: str) -> Path:
        """The file of an evaluation's rows."""
        return self.work / "measured" / f"{slug(name)}.json"

    def seconds(self) -> dict[str, float]:
        """How long each job took; what was done before the program came to it has no time."""
        notes = {file.stem: read_json(file)["seconds"] for file in sorted((self.work / "jobs").glob("*.json"))}
        return {name: value for name, value in notes.items() if value is not None}

    def read(self) -> dict[str, dict[str, Rows]]:
        """Rows by system and task, of what is measured."""
        found: dict[str, dict[str, Rows]] = {}
        for name in self.evaluations:
            if self.measured(name).exists():
                rows = read_json(self.measured(name))["rows"]
                system = found.setdefault(name.rpartition(":")[0], {})
                system |= {task: Rows.read(plain) for task, plain in rows.items()}
        return found

    def _data_jobs(self) -> list[Job]:
        counts, data, captions = self.counts, self.folders["data"], self.folders["captions"]
        sizes = {"train": counts.training_captions, "validation": counts.captions}
        chats = (data / "mmdialog", self.work / "divter-data" / "chat", "[DST]", counts.divter_talks)
        planned: list[tuple[str, Callable[..., None], tuple[Any, ...], tuple[str, ...]]] = [
            ("captions", export_captions, (captions / "cc3m", sizes), ()),
            ("divter-data", write_divter_chats, chats, ("$data",)),
        ]
        base = self.folders["base"]
        planned += [(f"base-{n}", write_base, (base, n, self.work / f"base-{n}"), ()) for n in VOKENS]
        if data.is_relative_to(self.work):
            planned.insert(0, ("data", export_small, (data,), ()))
        jobs: list[Job] = []
        for name, function, arguments, read in planned:
            work = self._timed(name, function, *arguments)
            jobs.append(Job(name, work, work.note.exists, self._needs(jobs, *read), apart=True))
        return jobs

    def _timed(self, name: str, function: Callable[..., None], *arguments: Any) -> Timed:
        return Timed(function, arguments, self.work / "jobs" / f"{name}.json")

    def _needs(self, jobs: Sequence[Job], *written: str) -> tuple[str, ...]:
        """Which jobs write what is read."""
        paths = [path.relative_to(self.work) for path in map(self.path, written) if path.is_relative_to(self.work)]
        return tuple(sorted({path.parts[0] for path in paths} & {job.name for job in jobs}))

    def _opened(self, evaluation: Evaluation) -> Evaluation:
        """With folders in the place of their names."""
        system = evaluation.system
        if system.model == "$shipped" and "adapter" in self.folders:
            system = replace(system, adapter="$adapter")
        written = astuple(system)
        parts: list[Any] = [str(self.path(part)) if isinstance(part, str) and "$" in part else part for part in written]
        return Evaluation(SystemConfig(*parts), str(self.path(evaluation.data)), dict(evaluation.tasks))


def slug(name: str) -> str:
    """A name as a file can have it."""
    return "".join(letter if letter.isalnum() or letter == "." else "-" for letter in name.lower()).strip("-")


def open_items(data: Path | str, task: str, count: int) -> list[Item]:
    """The items of a task among the first captions, stories or talks that are held back from training."""
    if task == CAPTIONS:
        return alignment_items(data, "validation", count)
    if task == TURN:
        return dialogue_items(data, "validation", count)
    return story_items(data, "validation", count, tasks=[task])


def open_system(config: SystemConfig) -> System:
    """What the configuration names, ready to be asked."""
    pipe = open_model(config.model, config.adapter)
    unet = None
    if config.unet:
        unet = load_whole(UNet2DConditionModel, config.unet, torch_dtype=torch.float32).to(pick_device())
    makers: dict[str, Callable[[], System]] = {
        "minigpt5": lambda: pipe,
        "diffusion": lambda: ZeroShotDiffusion(pipe, unet),
        "two-stage": lambda: TwoStage(pipe, ZeroShotDiffusion(pipe, unet)),
        "divter": lambda: Divter(pipe, ZeroShotDiffusion(pipe, unet)),
        "gill": lambda: GILL.around(pipe),
    }
    return makers[config.kind]()


def ask_and_measure(evaluation: Evaluation, replies: Path, measured: Path, judge: Path) -> None:
    """Have a system reply to what it has not replied to, and keep the rows of its figures."""
    quiet_libraries()
    system, folder = evaluation.system, ReplyFolder(replies)
    record = system_record(system)
    folder.claim(record)
    truth, rows = read_truth(evaluation.data, "validation"), {}
    asked = open_system(system)
    options: dict[str, Any] = {} if system.guidance_scale is None else {"guidance_scale": system.guidance_scale}
    for task, count in evaluation.tasks.items():
        items = open_items(evaluation.data, task, count)
        generate(lambda: asked, items, folder, max_bad_share=0, **options)
        rows[task] = measure(items, folder, truth, load_judge(judge)).plain()
    write_json(measured, {"tasks": dict(evaluation.tasks), "system": record, "rows": rows})


def train_in_process(command: Sequence[str], log: Path) -> None:
    """Run a training program, its output in a log.

    Raises:
        ProgramError: if it fails; has its last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise ProgramError(f"{os.path.basename(command[1])} ended with exit code {done.returncode}, see {log}: {last}")


def export_small(data: Path) -> None:
    """A little of every data set, for a run that only shows that the program runs."""
    for split in ("train", "validation"):
        for name, export in (("vist", export_vist), ("mmdialog", export_mmdialog), ("cc3m", export_cc3m)):
            export(data / name, split, 6)


def export_captions(root: Path, sizes: Mapping[str, int]) -> None:
    """Captions of one character: two take the miniature far longer to learn than these budgets have."""
    for split, count in sizes.items():
        export_cc3m(root, split, count, companion_share=0.0)


def write_base(base: Path, n_vokens: int, out: Path) -> None:
    """The base with so many untrained vokens."""
    quiet_libraries()
    pipe = MiniGPT5Pipeline.from_pretrained(base)
    pipe.register_modules(processor=replace_vokens(pipe.comprehension, pipe.processor, n_vokens))
    save_result(pipe, out)


def system_record(system: SystemConfig) -> dict[str, Any]:
    """What tells one system from another: its parts with their revisions."""
    parts = {name: path for name in ("model", "adapter", "unet") if (path := getattr(system, name))}
    told = {"kind": system.kind, "guidance_scale": system.guidance_scale}
    return told | {name: [str(path), revision(path)] for name, path in parts.items()}


def is_measured(file: Path, evaluation: Evaluation) -> bool:
    """Whether a file has the rows of these tasks, of the system as it is now."""
    if not file.exists():
        return False
    written = read_json(file)
    if written["tasks"] != dict(evaluation.tasks):
        return False
    try:
        return written.get("system") == system_record(evaluation.system)
    except FileNotFoundError:
        # A model that was taken away cannot be measured again, nor has it changed.
        return True
