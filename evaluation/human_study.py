"""Blind side-by-side judging of two systems: make the page that people judge on, then count their answers.

    python evaluation/human_study.py page runs/stories runs/two-stage --task "next step" --count 30 --out runs/study
    python evaluation/human_study.py table runs/study/key.json answers-*.json

The first takes two folders of an evaluation program over the same data and writes `study.html`, to be given away, and
`key.json`, to be kept. Each judge saves a file of answers from the page; the second prints their table.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from minigpt5.evaluation.human_study import compare, study_html, tally, tally_markdown
from minigpt5.evaluation.items import ITEMS
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.utils.files import write_json, write_text
from minigpt5.utils.json_files import field, read_json
from minigpt5.utils.programs import ProgramError, run_program
from minigpt5.utils.settings import Settings, setting

SAME = ("layout", "data", "split")


@dataclass(kw_only=True)
class PageConfig(Settings):
    """Make the page and its key."""

    folders: tuple[Path, ...] = setting(positional=True, help="two folders that an evaluation program wrote")
    names: tuple[str, ...] | None = setting(None, help="of the two systems, for the table; null for the folders")
    task: str | None = setting(None, help="which task's items; needed where there are several")
    count: int | None = setting(None, least=1, help="so many items, drawn by the seed; null for all")
    seed: int = setting(0, least=0, most=2**32 - 1, help="of items, sides and order")
    out: Path = setting(help="folder for study.html and key.json")

    def __post_init__(self):
        super().__post_init__()
        for name, given in (("folders", self.folders), ("names", self.names)):
            if given is not None and len(given) != 2:
                raise ValueError(f"{name}: two systems are compared, got {len(given)}")


@dataclass(kw_only=True)
class TableConfig(Settings):
    """Count answers."""

    key: Path = setting(positional=True, help="the study's key.json")
    answers: tuple[Path, ...] = setting(positional=True, help="files that judges saved")


def make_page(config: PageConfig):
    folders = [ReplyFolder(path) for path in config.folders]
    told = [{name: field(folder.settings, name, str, str(folder.root)) for name in SAME} for folder in folders]
    for name in SAME:
        one, other = (settings[name] for settings in told)
        if one != other:
            raise ProgramError(f"the two evaluations have different {name}: {one!r} and {other!r}")
    settings = told[0]
    if settings["layout"] not in ITEMS:
        raise ProgramError(f"{folders[0].root}: layout is {settings['layout']!r}, must be one of {', '.join(ITEMS)}")
    items = ITEMS[settings["layout"]](settings["data"], settings["split"])
    shared = [item for item in items if all(item.id in folder for folder in folders)]
    tasks = sorted({item.task for item in shared})
    if config.task not in tasks and (config.task or len(tasks) != 1):
        raise ProgramError(f"name a task that both folders hold with --task: {', '.join(tasks) or 'there is none'}")
    chosen = [item for item in shared if item.task == (config.task or tasks[0])]
    if config.count is not None and config.count < len(chosen):
        chosen = random.Random(config.seed).sample(chosen, config.count)
    first, second = ({item.id: folder.read(item.id) for item in chosen} for folder in folders)
    one, other = config.names or map(str, config.folders)
    comparisons, key = compare(chosen, first, second, (one, other), config.seed)
    there = config.out / "key.json"
    if there.exists() and read_json(there) != key:
        raise ProgramError(f"{there} is another study's, whose answers count by it alone; name a new folder")
    write_text(config.out / "study.html", study_html(key["study"], comparisons))
    write_json(there, key)
    print(config.out / "study.html")


def print_table(config: TableConfig):
    key, *answers = (read_json(path) for path in (config.key, *config.answers))
    print(tally_markdown(key, tally(key, answers)), end="")


def main(config: PageConfig | TableConfig):
    if isinstance(config, PageConfig):
        make_page(config)
    else:
        print_table(config)


if __name__ == "__main__":
    run_program(main, {"page": PageConfig, "table": TableConfig}, __doc__)
