r"""Compare the systems of the field on StoryWorld: each is made of the same parts, trained in two stages and asked.

    python training/miniature/compare_readers.py --plan configs/storyworld-readers/plan.yaml \
        --data runs/mini/data --out runs/readers

The parts are the encoder, the Q-Former and the language model of a MiniGPT-4, which is a row itself; every connector
begins anew, and every conversation is written as MiniGPT-4's. OUT/SYSTEM-SEED has what was made of a system with a
seed, and in the end `results.json`. What is there is not done again: a run that was stopped goes on, and several
processes can share the work by `--systems` and `--seeds`. OUT/table.md is of all that is there.
"""

import copy
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import set_seed

from minigpt5.data.tasks import caption_task
from minigpt5.evaluation.report import markdown_table
from minigpt5.joining import open_reader
from minigpt5.metrics.intervals import crossed_interval
from minigpt5.metrics.storyworld import shuffled
from minigpt5.readers import Reader, reader_of
from minigpt5.readers.compose import compose
from minigpt5.readers.instructblip import instructblip_of
from minigpt5.readers.opening import open_model
from minigpt5.readers.systems import SYSTEMS
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.examine import sample_scenes
from minigpt5.storyworld.items import Item
from minigpt5.storyworld.language import describes
from minigpt5.storyworld.marks import MARKS
from minigpt5.storyworld.questions import ground, question
from minigpt5.storyworld.tasks import fresh_items
from minigpt5.training.reading import ReadingConfig, train_reading
from minigpt5.training.results import save_result
from minigpt5.utils.files import write_json, write_text
from minigpt5.utils.json_files import read_json
from minigpt5.utils.processes import pick_device
from minigpt5.utils.programs import ProgramError, opening, run_program
from minigpt5.utils.settings import Settings, build_settings, read_yaml, setting
from minigpt5.vokens.decoding import decode_texts

# The first is the parts themselves, the second is transformers' own class.
NAMES = {"minigpt-4": "MiniGPT-4", "instructblip": "InstructBLIP"}
NAMES |= {name: system.name for name, system in SYSTEMS.items()}
# Each stage's folder, and that of what it begins with.
STAGES = {"stage1": "start", "stage2": "stage1/model"}
TASKS = ("captions", "questions", "boxes")


@dataclass(kw_only=True)
class CompareConfig(Settings):
    """The comparison."""

    plan: Path = setting(help="file with the settings of both stages, those of all systems and each one's own")
    start: str = setting("storyworld-mini", help="MiniGPT-4 whose parts all systems are made of, or its pipeline")
    data: Path = setting(help="folder of the exported data sets")
    out: Path = setting(help="folder of all runs")
    systems: tuple[str, ...] = setting((), choices=tuple(NAMES), help="of the plan's; none given, all of them")
    seeds: tuple[int, ...] = setting((0, 1, 2), help="of a system's connector, adapters and order of the data")
    asked: int = setting(300, least=2, help="captions, questions and boxes that each is asked for")
    table: bool = setting(False, help="only write the table of what is there")


def main(config: CompareConfig):
    plan = read_plan(config)
    for name in config.systems:
        if name not in plan:
            raise ValueError(f"systems: {config.plan} has no {name}; it has {', '.join(plan)}")
    for seed in config.seeds if not config.table else ():
        for name in config.systems or plan:
            run(name, plan[name], config, seed)
    write_text(config.out / "table.md", table(plan, config))
    print(config.out / "table.md")


def read_plan(config: CompareConfig) -> dict[str, dict[str, Any]]:
    """By system the settings of its stages, complete, and perhaps `connector_options`.

    Raises:
        ProgramError: if the plan is in another form.
        ValueError: if a stage's settings are not understood.
    """
    content = read_yaml(config.plan.read_text(encoding="utf-8"))
    form = f"{config.plan}: a plan has common, {', '.join(STAGES)} and systems, and each system has {', '.join(STAGES)}"
    try:
        common, systems = content["common"], content["systems"]
        plan = {
            name: own | {stage: common | content[stage] | own[stage] for stage in STAGES}
            for name, own in systems.items()
        }
    except (KeyError, TypeError, AttributeError):
        raise ProgramError(form) from None
    for name, own in plan.items():
        if name not in NAMES or own.keys() - {*STAGES, "connector_options"}:
            raise ProgramError(f"{form}, with or without connector_options; not so {name}. Systems: {', '.join(NAMES)}")
        for stage in STAGES:
            try:
                stage_settings(own[stage], config, config.out, stage, seed=0)
            except ValueError as error:
                raise ProgramError(f"{config.plan}: {name}, {stage}: {error}") from error
    return plan


def stage_settings(own: Mapping[str, Any], config: CompareConfig, folder: Path, stage: str, seed: int) -> ReadingConfig:
    """The settings of a stage."""
    places = {"data": config.data, "model": folder / STAGES[stage], "out": folder / stage, "seed": seed}
    return build_settings(ReadingConfig, {**own, **places})


def run(name: str, own: dict[str, Any], config: CompareConfig, seed: int) -> None:
    """Make, train and ask a system, as far as that is not done."""
    folder = config.out / f"{name}-{seed}"
    if claimed(folder, own, config) and (folder / "results.json").exists():
        print(f"{folder} is there", flush=True)
        return
    set_seed(seed)
    if not (folder / "start").exists():
        make_start(name, own.get("connector_options"), config.start, seed, folder / "start")
    costs = [train(stage_settings(own[stage], config, folder, stage, seed), stage == "stage1") for stage in STAGES]
    with opening(f"the model {folder / 'stage2/model'}"):
        model, processor = open_model(folder / "stage2/model")
    marks = ask(reader_of(model.to(pick_device()), processor), config.asked)  # pyright: ignore[reportArgumentType]
    write_json(folder / "results.json", {"marks": marks, "costs": costs})
    told = ", ".join(f"{task} {sum(right) / len(right):.3f}" for task, right in marks.items())
    print(f"{folder}: {told}", flush=True)


def claimed(folder: Path, own: dict[str, Any], config: CompareConfig) -> bool:
    """Whether a run was begun by the same plan; from now on it is.

    Raises:
        ProgramError: if it was begun by another.
    """
    plan = {"start": config.start, "asked": config.asked, **own}
    there = (folder / "plan.json").exists()
    if there and read_json(folder / "plan.json", dict) != plan:
        raise ProgramError(f"{folder} was made by another plan, start or number asked; choose another --out")
    if not there:
        write_json(folder / "plan.json", plan)
    return there


def make_start(name: str, options: Mapping[str, Any] | None, start: str, seed: int, folder: Path) -> None:
    """A system made of the parts of `start`, untrained."""
    with opening(f"the model {start}"):
        opened: Any = open_reader(start)
        parts, processor = opened
        image_processor, tokenizer = processor.image_processor, processor.tokenizer
        words, encoder = parts.language_model, parts.vision_model
    # Without a template conversations are written as MiniGPT-4's, in which the language model has learnt to speak.
    tokenizer.chat_template = None
    model = parts
    if name == "instructblip":
        model, processor = instructblip_of(parts, image_processor, tokenizer)
    elif name in SYSTEMS:
        system = SYSTEMS[name]
        encoders = [copy.deepcopy(encoder) for _ in range(system.encoders - system.has_qformer)]
        sizes = {"connector_options": {option: int(size) for option, size in options.items()}} if options else {}
        blip2 = parts if system.has_qformer else None
        model, processor = compose(system, words, tokenizer, encoders, image_processor, blip2, seed, **sizes)
        processor.chat_template = None
    save_result(model, folder, processor)


def train(settings: ReadingConfig, fresh: bool) -> dict[str, Any]:
    """Train a stage: how many numbers train in it, and the processor's seconds a step."""
    done = settings.out / "cost.json"
    if not done.exists():
        resumes, began = any(settings.out.glob("*.pt")), time.process_time()
        trained = train_reading(settings, fresh)
        seconds = (time.process_time() - began) / settings.steps
        # Of a stage that went on where it was stopped only a part of the time is known.
        write_json(done, {"trained": trained, "seconds": None if resumes else seconds})
        for checkpoint in settings.out.glob("*.pt"):
            checkpoint.unlink()
    return read_json(done, dict)


def questions(count: int) -> dict[str, list[Item]]:
    """Questions and boxes in wordings, and of scenes, that no training has."""
    return {"questions": list(fresh_items(question, count)), "boxes": list(fresh_items(ground, count))}


def ask(reader: Reader, count: int) -> dict[str, list[bool]]:
    """Whether a reader's captions, answers and boxes are right, `count` each."""
    scenes = sample_scenes(count)
    looks = [caption_task("", draw(scene), random.Random(i))[:1] for i, scene in enumerate(scenes)]
    told = decode_texts(reader, looks, max_new_tokens=60)
    marks = {"captions": [describes(text, scene) for text, scene in zip(told, scenes, strict=True)]}
    for task, items in questions(count).items():
        told = decode_texts(reader, [item.messages()[:1] for item in items], max_new_tokens=60)
        marks[task] = [MARKS[item.kind](text, item.text) for item, text in zip(items, told, strict=True)]
    return marks


def chance(count: int) -> dict[str, float]:
    """How often the true answer to another question of the same kind is right: what takes no look at the picture."""
    shares = {}
    for task, items in questions(count).items():
        marks = []
        for kind in sorted({item.kind for item in items}):
            truths = [item.text for item in items if item.kind == kind]
            if len(truths) > 1:
                marks += [MARKS[kind](other, truth) for other, truth in zip(shuffled(truths), truths, strict=True)]
        shares[task] = sum(marks) / max(len(marks), 1)
    return shares


def table(plan: dict[str, dict[str, Any]], config: CompareConfig) -> str:
    """A row a system: its figures over all seeds that are there, and what its second stage costs."""
    header = ["system", "seeds", *TASKS, "parameters that train", "seconds a step"]
    rows = []
    for name, own in plan.items():
        folders = [config.out / f"{name}-{seed}" for seed in config.seeds]
        there = [folder for folder in folders if (folder / "results.json").exists()]
        if there:
            for folder in there:
                claimed(folder, own, config)
            results = [read_json(folder / "results.json", dict) for folder in there]
            figures = [crossed_interval(np.array([one["marks"][task] for one in results])) for task in TASKS]
            cells = [f"{each.estimate:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in figures]
            costs = [one["costs"][-1] for one in results]
            seconds = [cost["seconds"] for cost in costs if cost["seconds"] is not None]
            trained = f"{costs[0]['trained'] / 1e3:,.0f} K"
            rows.append([NAMES[name], str(len(there)), *cells, trained, f"{min(seconds):.2f}" if seconds else ""])
    shares = chance(config.asked)
    rows.append(["without a look", "", *(f"{shares[task]:.3f}" if task in shares else "" for task in TASKS), "", ""])
    return markdown_table(header, rows) + "\n"


if __name__ == "__main__":
    run_program(main, CompareConfig, __doc__)
