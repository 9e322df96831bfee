"""Blind side-by-side judging of two systems: make the page that people judge on, then count their answers.

    python evaluation/human_study.py page runs/stories runs/two-stage --task "next step" --count 30 --out runs/study
    python evaluation/human_study.py table runs/study/key.json answers-*.json

The first takes two folders of an evaluation program over the same data and writes `study.html`, to be given away, and
`key.json`, to be kept. Each judge saves a file of answers from the page; the second prints their table.
"""

import argparse
import random
from pathlib import Path

from minigpt5.cli import whole_number
from minigpt5.evaluation.human_study import compare, study_html, tally, tally_markdown
from minigpt5.evaluation.items import ITEMS
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.utils.files import write_json, write_text
from minigpt5.utils.json_files import read_json

SAME = ("layout", "data", "split")


def make_page(arguments):
    folders = [ReplyFolder(path) for path in arguments.folders]
    settings, others = (folder.settings for folder in folders)
    for name in SAME:
        if settings[name] != others[name]:
            raise SystemExit(f"the two evaluations have different {name}: {settings[name]!r} and {others[name]!r}")
    items = ITEMS[settings["layout"]](settings["data"], settings["split"])
    shared = [item for item in items if all(item.id in folder for folder in folders)]
    tasks = sorted({item.task for item in shared})
    if arguments.task not in tasks and (arguments.task or len(tasks) != 1):
        raise SystemExit(f"name a task that both folders hold with --task: {', '.join(tasks) or 'there is none'}")
    chosen = [item for item in shared if item.task == (arguments.task or tasks[0])]
    if arguments.count is not None and arguments.count < len(chosen):
        chosen = random.Random(arguments.seed).sample(chosen, arguments.count)
    first, second = ({item.id: folder.read(item.id) for item in chosen} for folder in folders)
    names = tuple(arguments.names or (str(path) for path in arguments.folders))
    comparisons, key = compare(chosen, first, second, names, arguments.seed)
    write_json(arguments.out / "key.json", key)
    write_text(arguments.out / "study.html", study_html(key["study"], comparisons))
    print(arguments.out / "study.html")


def print_table(arguments):
    key, *answers = (read_json(path) for path in (arguments.key, *arguments.answers))
    print(tally_markdown(key, tally(key, answers)), end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    page = commands.add_parser("page", help="make the page and its key")
    page.set_defaults(run=make_page)
    page.add_argument("folders", type=Path, nargs=2, help="folders that an evaluation program wrote")
    page.add_argument("--names", nargs=2, help="of the two systems, for the table (default: the folders)")
    page.add_argument("--task", help="which task's items; needed where there are several")
    page.add_argument("--count", type=whole_number(1), help="so many items, drawn by the seed (default: all)")
    page.add_argument("--seed", type=int, default=0, help="of items, sides and order (default: %(default)s)")
    page.add_argument("--out", type=Path, required=True, help="folder for study.html and key.json")
    table = commands.add_parser("table", help="count answers")
    table.set_defaults(run=print_table)
    table.add_argument("key", type=Path, help="the study's key.json")
    table.add_argument("answers", type=Path, nargs="+", help="files that judges saved")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
