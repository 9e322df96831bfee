r"""Put the paper's nine claims to the test on StoryWorld: train what is missing, measure, write docs/claims.md.

    python evaluation/reproduce_claims.py --work runs/claims --data runs/mini/data --base runs/mini/base \
        --aligned runs/mini/mapper/model --judge runs/mini/judge/model
    python evaluation/reproduce_claims.py --quick --work /tmp/claims --out /tmp/claims/report

Systems that are compared have the same number of training steps, see configs/storyworld-claims/. Whatever was trained
or measured under `--work` is not done again. `--quick` trains two steps of everything on data of its own: its figures
mean nothing, it shows that the program runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import torch
import yaml
from diffusers import UNet2DConditionModel

from minigpt5 import MiniGPT5Pipeline, __version__
from minigpt5.evaluation.baselines import GILL as GILLPipeline
from minigpt5.evaluation.baselines import Divter, TwoStage, ZeroShotDiffusion
from minigpt5.evaluation.claims.divter import write_divter_chats
from minigpt5.evaluation.claims.figures import Rows, measure
from minigpt5.evaluation.claims.paper import (
    CAPTIONS,
    COMPARED,
    DIVTER,
    EVERY,
    FINE_TUNED,
    FULL,
    GILL,
    INTRODUCTION,
    LORA,
    NEXT,
    NO_CAPTION,
    NO_GUIDANCE,
    NO_LDM,
    NO_UAS,
    PREFIX,
    SHIPPED,
    STAND_INS,
    TURN,
    TWO_STAGE,
    VOKENS,
    ZERO_SHOT,
    check_claims,
    final,
    guidance_system,
    summary,
    tables,
    vokens_system,
)
from minigpt5.evaluation.claims.plots import plot_curves, plot_pictures
from minigpt5.evaluation.claims.report import Block, Heading, Paragraph, Plot, Table, html, markdown
from minigpt5.evaluation.claims.verdicts import counts
from minigpt5.evaluation.claims.vokens import with_fresh_vokens
from minigpt5.evaluation.generation import generate
from minigpt5.evaluation.items import CONTEXTS, Item, alignment_items, dialogue_items, story_items
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.evaluation.storyworld import read_truth
from minigpt5.evaluation.systems import revision
from minigpt5.metrics.intervals import Interval
from minigpt5.storyworld.export import export_cc3m, export_mmdialog, export_vist
from minigpt5.storyworld.judge import WEIGHTS, load_judge
from minigpt5.utils.files import write_json, write_text
from minigpt5.utils.images import open_image
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import pick_device
from minigpt5.weights import shipped_model

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "storyworld-claims"
SCALES = (1, 2.5, 5, 10, 15, 20)


@dataclass(frozen=True)
class Counts:
    """Captions and talks a figure, stories by task, and captions to train the alignment on."""

    captions: int = 64
    guidance: int = 40
    final: int = 60
    every: int = 24
    next: int = 24
    talks: int = 20
    training_captions: int = 20_000
    divter_talks: int = 2000


@dataclass(frozen=True)
class System:
    """What is asked: a pipeline's folder and what is put around or into it."""

    model: Path
    kind: str = "minigpt5"
    adapter: Path | None = None
    unet: Path | None = None
    guidance_scale: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """A system and the tasks of one data set that it is asked, each of so many captions, stories or talks."""

    system: System
    data: Path
    tasks: tuple[tuple[str, int], ...]


@dataclass
class Job:
    """One piece of work: it begins when the jobs it needs are done."""

    name: str
    run: Callable[[], None]
    done: Callable[[], bool]
    needs: tuple[str, ...] = field(default=())


def load(system: System):
    """The system, ready to be asked."""
    pipe = MiniGPT5Pipeline.from_pretrained(system.model).to(pick_device())
    pipe.set_progress_bar_config(disable=True)
    if system.adapter:
        pipe.load_adapter(system.adapter)
    unet = None
    if system.unet:
        unet = load_whole(UNet2DConditionModel, system.unet, torch_dtype=torch.float32).to(pick_device())
    makers = {
        "minigpt5": lambda: pipe,
        "diffusion": lambda: ZeroShotDiffusion(pipe, unet),
        "two-stage": lambda: TwoStage(pipe, ZeroShotDiffusion(pipe, unet)),
        "divter": lambda: Divter(pipe, ZeroShotDiffusion(pipe, unet)),
        "gill": lambda: GILLPipeline.around(pipe),
    }
    return makers[system.kind]()


def open_items(data: Path, task: str, count: int) -> list[Item]:
    """The items of a task among the first captions, stories or talks that are held back from training."""
    if task == CAPTIONS:
        return alignment_items(data, "validation", count)
    if task == TURN:
        return dialogue_items(data, "validation", count)
    return story_items(data, "validation", count, tasks=[task])


def export_small(data: Path) -> None:
    """A little of every data set, for a run that only shows that the program runs."""
    for split in ("train", "validation"):
        for name, export in (("vist", export_vist), ("mmdialog", export_mmdialog), ("cc3m", export_cc3m)):
            export(data / name, split, 6)


def export_captions(root: Path, sizes: dict[str, int]) -> None:
    """Captions of one character: two take the miniature far longer to learn than these budgets have."""
    for split, count in sizes.items():
        export_cc3m(root, split, count, companion_share=0.0)


def write_base(base: Path, n_vokens: int, out: Path) -> None:
    """The base with so many untrained vokens."""
    quiet_libraries()
    with_fresh_vokens(MiniGPT5Pipeline.from_pretrained(base), n_vokens).to(torch.float16).save_pretrained(out)


def evaluate(evaluation: Evaluation, replies: Path, measured: Path, judge: Path) -> None:
    """Have a system reply to what it has not replied to, and keep the rows of its figures."""
    quiet_libraries()
    system, folder = evaluation.system, ReplyFolder(replies)
    parts = {name: path for name in ("model", "adapter", "unet") if (path := getattr(system, name))}
    folder.claim(
        {"kind": system.kind, "guidance_scale": system.guidance_scale}
        | {name: [str(path), revision(path)] for name, path in parts.items()}
    )
    truth, rows = read_truth(evaluation.data, "validation"), {}
    loaded = load(system)
    for task, count in evaluation.tasks:
        items = open_items(evaluation.data, task, count)
        options = {} if system.guidance_scale is None else {"guidance_scale": system.guidance_scale}
        generate(loaded, items, folder, max_bad_share=0, **options)
        rows[task] = measure(items, folder, truth, load_judge(judge)).plain()
    write_json(measured, {"tasks": dict(evaluation.tasks), "rows": rows})


class Claims:
    """All that has to be trained and measured, under one folder."""

    def __init__(self, arguments: argparse.Namespace):
        self.work, self.quick = arguments.work, arguments.quick
        self.counts = Counts(2, 2, 2, 2, 2, 2, 24, 4) if self.quick else Counts()
        self.scales = (1, 2.5, 10, 20) if self.quick else SCALES
        self.data, self.judge = arguments.data or self.work / "data", arguments.judge
        self.base, self.aligned, self.shipped = (
            Path(shipped_model(name)) for name in (arguments.base, arguments.aligned, arguments.model)
        )
        self.captions = self.work / "captions"
        self.jobs: list[Job] = []
        self.pool: ProcessPoolExecutor | None = None
        self._plan_data(arguments.data is None)
        self._plan_training()
        self.evaluations = self._evaluations()

    def model(self, name: str) -> Path:
        """The pipeline that a training writes."""
        return self.work / name / "model"

    def _plan_data(self, export: bool) -> None:
        if export:
            self._apart("data", export_small, self.data)
        sizes = {"train": self.counts.training_captions, "validation": self.counts.captions}
        self._apart("captions", export_captions, self.captions / "cc3m", sizes)
        chats = (self.data / "mmdialog", self.work / "divter-data" / "chat", "[DST]", self.counts.divter_talks)
        self._apart("divter-data", write_divter_chats, *chats, needs=("data",) if export else ())
        for n_vokens in VOKENS:
            self._apart(f"base-{n_vokens}", write_base, self.base, n_vokens, self.work / f"base-{n_vokens}")

    def _plan_training(self) -> None:
        judged, eight = ("--judge", self.judge), self.work / "base-8"
        stories = ("data",) if self.data == self.work / "data" else ()

        def align(name: str, n_vokens: int, *options: object) -> None:
            more = ("--data", self.captions, "--model", self.work / f"base-{n_vokens}", *judged, *options)
            self._train(name, "align_vokens", "align", more, ("captions", f"base-{n_vokens}"))

        def interleave(name: str, start: Path, *options: object) -> None:
            more = ("--data", self.data, "--model", start, *judged, *options)
            self._train(name, "train_interleaved", "interleaved", more, stories)

        align("align-full", 8)
        interleave("interleaved-full", self.aligned)
        interleave("interleaved-no-uas", self.base)
        interleave("interleaved-prefix", self.aligned, "--lora", "null", "--prefix_length", 16, "--fuse", "false")
        interleave("interleaved-gill", self.aligned, "--weights.diffusion", 0)
        on_eight = ("--model", eight)
        self._train("text", "train_interleaved", "text", ("--data", self.data, *on_eight), (*stories, "base-8"))
        chats = ("--data", self.work / "divter-data", *on_eight, "--mix", "{chat: 8}")
        self._train("divter", "train_interleaved", "text", chats, ("divter-data", "base-8"))
        diffusion = ("--data", self.data, *on_eight)
        name = "finetuned-diffusion"
        self._train(name, "finetune_diffusion", "finetune_diffusion", diffusion, (*stories, "base-8"))
        align("align-no-guidance", 8, "--weights.guidance_dropout", 0)
        align("align-no-ldm", 8, "--weights.diffusion", 0)
        # Without the caption loss there is nothing to wait for with the diffusion loss.
        align("align-no-caption", 8, "--weights.caption", 0, "--caption_only_steps", 0)
        for n_vokens in VOKENS:
            if n_vokens != 8:
                align(f"align-{n_vokens}", n_vokens)

    def _train(self, name: str, program: str, config: str, options: Sequence[object], needs: tuple[str, ...]) -> None:
        settings = ("--config", CONFIGS / f"{config}.yaml", "--out", self.work / name)
        few = ("--steps", 2, "--warmup_steps", 1, "--judged", 1) if self.quick else ()
        if self.quick and config in ("align", "interleaved"):
            few += ("--caption_only_steps", 1)
        elif self.quick and config == "text":
            few = few[:-2]
        words = [str(word) for word in (ROOT / "training" / f"{program}.py", *settings, *few, *options)]

        def train() -> None:
            log = self.work / "logs" / f"{name}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a", encoding="utf-8") as file:
                done = subprocess.run([sys.executable, *words], stdout=file, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
                raise RuntimeError(f"training {name} ended with exit code {done.returncode}, see {log}: {last}")

        # A prefix cannot be folded in, so it has no pipeline.
        results = (self.model(name) / "model_index.json", self.work / name / "adapter" / "adapter.json")
        result = results[1] if "--prefix_length" in words else results[0]
        self._job(name, train, needs, result.exists)

    def _job(
        self,
        name: str,
        run: Callable[[], None],
        needs: tuple[str, ...] = (),
        done: Callable[[], bool] | None = None,
    ) -> None:
        note = self.work / "jobs" / f"{name}.json"

        def timed() -> None:
            start = time.monotonic()
            run()
            write_json(note, {"seconds": round(time.monotonic() - start, 1)})

        self.jobs.append(Job(name, timed, done or note.exists, needs))

    def _apart(
        self,
        name: str,
        function: Callable[..., None],
        *arguments: object,
        needs: tuple[str, ...] = (),
        done: Callable[[], bool] | None = None,
    ) -> None:
        """A job in a process of its own: models must not be opened by two threads of one."""
        self._job(name, lambda: self.pool.submit(function, *arguments).result(), needs, done)

    def _evaluations(self) -> dict[str, Evaluation]:
        counts, stories, talks = self.counts, self.data / "vist", self.data / "mmdialog"
        lora = System(self.model("interleaved-full"))
        prefix = System(self.aligned, adapter=self.work / "interleaved-prefix" / "adapter")
        no_uas, shipped = System(self.model("interleaved-no-uas")), System(self.shipped)
        unet = self.model("finetuned-diffusion") / "unet"
        zero_shot = System(self.base, "diffusion")
        two_stage = System(self.model("text"), "two-stage", unet=unet)
        contexts = tuple((final(name), counts.final) for name in CONTEXTS)
        steps, told, turns = (EVERY, counts.every), (NEXT, counts.next), (TURN, counts.talks)
        found = {}
        for name, system in ((SHIPPED, shipped), (LORA, lora), (NO_UAS, no_uas), (PREFIX, prefix)):
            finals = contexts if name == SHIPPED else contexts[-1:]
            found[f"{name}: stories"] = Evaluation(system, stories, (*finals, steps, told))
            if name != NO_UAS:
                found[f"{name}: dialogue"] = Evaluation(system, talks, (turns,))
        for name, system in ((ZERO_SHOT, zero_shot), (FINE_TUNED, System(self.base, "diffusion", unet=unet))):
            found[f"{name}: stories"] = Evaluation(system, stories, (contexts[0], steps))
        found[f"{TWO_STAGE}: stories"] = Evaluation(two_stage, stories, (told,))
        found[f"{GILL}: dialogue"] = Evaluation(System(self.model("interleaved-gill"), "gill"), talks, (turns,))
        found[f"{DIVTER}: dialogue"] = Evaluation(System(self.model("divter"), "divter"), talks, (turns,))
        ablations = {
            FULL: System(self.model("align-full")),
            NO_GUIDANCE: System(self.model("align-no-guidance")),
            NO_LDM: System(self.model("align-no-ldm")),
            NO_CAPTION: System(self.model("align-no-caption")),
            ZERO_SHOT: zero_shot,
        }
        ablations |= {vokens_system(n): System(self.model(f"align-{n}")) for n in VOKENS if n != 8}
        for name, system in ablations.items():
            found[f"{name}: captions"] = Evaluation(system, self.captions / "cc3m", ((CAPTIONS, counts.captions),))
        for scale in self.scales:
            system, asked = System(self.shipped, guidance_scale=scale), ((CAPTIONS, counts.guidance),)
            found[f"{guidance_system(scale)}: captions"] = Evaluation(system, self.data / "cc3m", asked)
        return found

    def replies(self, name: str) -> Path:
        """The folder of an evaluation's replies."""
        return self.work / "replies" / _slug(name)

    def measured(self, name: str) -> Path:
        """The file of an evaluation's rows."""
        return self.work / "measured" / f"{_slug(name)}.json"

    def _plan_evaluations(self) -> None:
        trained = {job.name for job in self.jobs}
        for name, evaluation in self.evaluations.items():
            file, system = self.measured(name), evaluation.system

            def done(file: Path = file, evaluation: Evaluation = evaluation) -> bool:
                return file.exists() and json.loads(file.read_text())["tasks"] == dict(evaluation.tasks)

            paths = (system.model, system.adapter, system.unet, evaluation.data)
            folders = {
                path.relative_to(self.work).parts[0] for path in paths if path and path.is_relative_to(self.work)
            }
            needs = tuple(sorted(folders & trained))
            arguments = (evaluation, self.replies(name), file, self.judge)
            self._apart(_slug(name), evaluate, *arguments, needs=needs, done=done)

    def run(self) -> None:
        """Do what is not done, two jobs at a time or as many as there are GPUs; every core runs one thread.

        Raises:
            RuntimeError: if a training fails; what others have done is kept.
        """
        self._plan_evaluations()
        os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
        workers = torch.cuda.device_count() or min(os.cpu_count() or 1, 4)
        futures: dict[str, Future] = {}

        def work(job: Job) -> None:
            # Jobs stand behind those they need, so what is waited for has begun.
            for need in job.needs:
                futures[need].result()
            if job.done():
                return
            start = time.monotonic()
            print(f"{job.name}: started", flush=True)
            job.run()
            print(f"{job.name}: done after {time.monotonic() - start:.0f} s", flush=True)

        with (
            ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as self.pool,
            ThreadPoolExecutor(workers) as threads,
        ):
            for job in self.jobs:
                futures[job.name] = threads.submit(work, job)
            try:
                for future in futures.values():
                    future.result()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def read(self) -> dict[str, dict[str, Rows]]:
        """Rows by system and task, of what is measured."""
        found: dict[str, dict[str, Rows]] = {}
        for name in self.evaluations:
            if not self.measured(name).exists():
                continue
            rows = json.loads(self.measured(name).read_text(encoding="utf-8"))["rows"]
            system = found.setdefault(name.rpartition(":")[0], {})
            system |= {task: Rows.read(plain) for task, plain in rows.items()}
        return found

    def plots(self, measured: dict[str, dict[str, Rows]], images: Path) -> dict[str, list[Plot]]:
        """Figures 6 and 7, and pictures by system; without what has no rows."""
        found: dict[str, list[Plot]] = {}

        def taken(name: str, alt: str) -> Path:
            file = images / f"{name}.png"
            found[name] = [Plot(file, alt)]
            return file

        scales = {scale: measured.get(guidance_system(scale), {}).get(CAPTIONS) for scale in self.scales}
        scales = {scale: rows for scale, rows in scales.items() if rows}
        if scales:
            coherence = {"similarity": "similarity to the true picture", "agrees": "agreement with the caption"}
            curves = {
                label: {scale: rows.interval(figure) for scale, rows in scales.items()}
                for figure, label in coherence.items()
            }
            # Resampled, a distance of few pictures is too large: no band is drawn around it.
            bare = {scale: Interval(*[rows.estimate("frechet")] * 3) for scale, rows in scales.items()}
            panels = {"coherence": curves, "Fréchet distance (lower is better)": {"Fréchet distance": bare}}
            file = taken("guidance", "Coherence and Fréchet distance over the guidance scale")
            plot_curves(file, "guidance scale", panels)
            shown = open_items(self.data / "cc3m", CAPTIONS, min(8, self.counts.guidance))
            rows = {f"{scale:g}": self._painted(f"{guidance_system(scale)}: captions", shown) for scale in scales}
            file = taken("guidance-pictures", "The same captions painted at each guidance scale")
            plot_pictures(file, rows, [_wrapped(item.sentence) for item in shown])

        vokens = {n: measured.get(vokens_system(n), {}).get(CAPTIONS) for n in VOKENS}
        vokens = {n: rows for n, rows in vokens.items() if rows}
        if vokens:
            panels = {
                label: {label: {n: rows.interval(figure) for n, rows in vokens.items()}}
                for figure, label in (("similarity", "similarity to the true picture"), ("attributes", "attributes"))
            }
            file = taken("vokens", "Similarity and attributes over the number of vokens")
            plot_curves(file, "vokens", panels, log=True)

        items = open_items(self.data / "vist", EVERY, self.counts.every)
        # Another step of every story, from the second to the last.
        shown = [items[5 * story + 1 + story % 4] for story in range(min(8, self.counts.every))]
        systems = (SHIPPED, LORA, PREFIX, NO_UAS, FINE_TUNED, ZERO_SHOT)
        rows = {"truth": [open_image(item.picture) for item in shown]}
        there = [name for name in systems if EVERY in measured.get(name, {})]
        rows |= {name: self._painted(f"{name}: stories", shown) for name in there}
        file = taken("stories", "Steps of stories, painted by each system after the true steps before")
        plot_pictures(file, rows, [_wrapped(item.sentence) for item in shown])
        return found

    def _painted(self, name: str, items: Sequence[Item]) -> list:
        folder = ReplyFolder(self.replies(name))
        return [folder.read(item.id).pictures[0] for item in items]

    def settings(self) -> list[Block]:
        """What made the figures: counts, budgets, time, versions."""
        configs = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.glob("*.yaml"))}
        notes = sorted((self.work / "jobs").glob("*.json"))
        seconds = {file.stem: json.loads(file.read_text())["seconds"] for file in notes}
        # What was done before the program came to it has no time.
        seconds = {name: value for name, value in seconds.items() if value is not None}
        trained = {name: value for name, value in seconds.items() if (self.work / name / "adapter").exists()}
        trained |= {name: value for name, value in seconds.items() if name == "finetuned-diffusion"}
        asked = {_slug(name) for name in self.evaluations}
        evaluated = sum(value for name, value in seconds.items() if name in asked)
        budgets = [
            [
                f"`{name}.yaml`",
                *(str(config[key]) for key in ("steps", "batch_size", "learning_rate")),
                f"`{config['mix']}`",
            ]
            for name, config in configs.items()
        ]
        versions = {"minigpt5": __version__, "Python": platform.python_version()}
        versions |= {name: version(name) for name in ("torch", "diffusers", "transformers", "peft")}
        counts_table = [
            ["captions: ablations and vokens (one character)", str(self.counts.captions)],
            ["captions: each guidance scale (one or two characters)", str(self.counts.guidance)],
            ["stories: final picture, under each context", str(self.counts.final)],
            ["stories: every step, five pictures each", str(self.counts.every)],
            ["stories: next step, four replies each", str(self.counts.next)],
            ["talks: four replies each", str(self.counts.talks)],
        ]
        return [
            Heading("How the figures were made"),
            Paragraph(
                "All items are of StoryWorld's validation split, which no training saw; prompts are worded as in "
                "training. Replies are decoded greedily. Pictures take each model's own 20 steps and guidance of 2.5, "
                "unless a table says otherwise, and every item has the same noise in every system."
            ),
            Table(["items", "count"], counts_table),
            Paragraph("Budgets of training, in `configs/storyworld-claims/`:"),
            Table(["settings", "steps", "batch", "rate", "conversations a batch"], budgets),
            Paragraph(
                "Wall time of the trainings that were timed whole, on a machine that had other work: "
                f"{_minutes(trained)}."
            ),
            Paragraph(
                f"All evaluations together took {evaluated / 60:.0f} process-minutes. Machine: {platform.machine()}, "
                f"{os.cpu_count()} CPU cores, {torch.cuda.device_count()} GPUs, one thread a process. "
                + ", ".join(f"{name} {number}" for name, number in versions.items())
                + "."
            ),
        ]


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "." else "-" for letter in name.lower()).strip("-")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 22)


def _minutes(seconds: dict[str, float]) -> str:
    return ", ".join(f"`{name}` {value / 60:.1f} min" for name, value in seconds.items())


def main():
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for models, replies and rows; kept and reused")
    parser.add_argument("--data", type=Path, help="StoryWorld's exported data (required without --quick)")
    parser.add_argument("--base", default="storyworld-mini", help="pipeline before the first stage")
    parser.add_argument("--aligned", default="storyworld-mini", help="pipeline after the first stage at full budget")
    parser.add_argument(
        "--model", default="storyworld-mini", help="finished model at full budget (default: %(default)s)"
    )
    parser.add_argument("--judge", type=Path, default=WEIGHTS, help="folder of the judge (default: the shipped one)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs", help="folder for claims.md, claims.html, images/claims"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two steps and two items of everything, on data of its own"
    )
    parser.add_argument("--report", action="store_true", help="train and measure nothing, report what is measured")
    arguments = parser.parse_args()
    if not arguments.quick and arguments.data is None:
        parser.error("--data is needed: the folder that training/export_storyworld.py wrote")
    claims = Claims(arguments)
    if not arguments.report:
        claims.run()
    measured = claims.read()
    verdicts = check_claims(measured)
    plots = claims.plots(measured, arguments.out / "images" / "claims")
    blocks = [
        *(Paragraph(text) for text in (INTRODUCTION, STAND_INS, COMPARED)),
        *summary(verdicts),
        *tables(measured, plots, claims.scales),
        *claims.settings(),
    ]
    title = "The paper's claims on StoryWorld"
    write_text(arguments.out / "claims.md", markdown(title, blocks, arguments.out))
    write_text(arguments.out / "claims.html", html(title, blocks))
    print(f"{counts(verdicts)}: {arguments.out / 'claims.md'}")


if __name__ == "__main__":
    main()
