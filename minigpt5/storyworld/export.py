"""StoryWorld written to disk in the layouts of CC3M, VIST, MMDialog and chats, so that the real data's readers read it.

Beside each layout's own files lies `{split}_truth.json`: the ground truth of every picture by its path.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.language import caption
from minigpt5.storyworld.scene import Scene, sample_scene, split_rng
from minigpt5.storyworld.stories import sample_story, sample_talk
from minigpt5.storyworld.tasks import TASKS, training_item
from minigpt5.utils.files import whole_file, write_text


class _Pictures:
    """Draws scenes into a folder and remembers what each shows."""

    def __init__(self, root: Path, folder: str, size: int):
        self.root, self.folder, self.size = root, folder, size
        self.truth: dict[str, dict] = {}
        (root / folder).mkdir(parents=True, exist_ok=True)

    def add(self, scene: Scene, name: str) -> str:
        path = f"{self.folder}/{name}.png"
        draw(scene, self.size).save(self.root / path, compress_level=1)
        self.truth[path] = asdict(scene)
        return path

    def write_truth(self, split: str) -> None:
        write_text(self.root / f"{split}_truth.json", json.dumps(self.truth))


def export_cc3m(root: Path, split: str, count: int, size: int = 64, companion_share: float = 0.4) -> None:
    """`cc3m_{split}.tsv` with a caption and a path a line, and the pictures under `{split}/`."""
    pictures = _Pictures(Path(root), split, size)
    with whole_file(pictures.root / f"cc3m_{split}.tsv") as table, open(table, "w", newline="") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(("caption", "image_path"))
        for seed in range(count):
            rng = split_rng(split, seed)
            scene = sample_scene(rng, companion_share=companion_share)
            rows.writerow((caption(scene, rng, brief=True), pictures.add(scene, f"{seed:09d}")))
    pictures.write_truth(split)


def export_vist(root: Path, split: str, count: int, size: int = 64) -> None:
    """`{split}_cleaned.json` with the steps of each story, `{split}_image_mapping.json`, and `{split}_images/`."""
    pictures = _Pictures(Path(root), f"{split}_images", size)
    stories, paths = {}, {}
    for seed in range(count):
        steps = []
        for index, step in enumerate(sample_story(split_rng(split, seed)).steps):
            image_id = f"{seed}{index}"
            paths[image_id] = pictures.add(step.scene, f"{int(image_id):09d}")
            steps.append({"caption": step.text, "image_id": image_id, "sequence_index": index})
        stories[str(seed)] = steps
    write_text(pictures.root / f"{split}_cleaned.json", json.dumps(stories))
    write_text(pictures.root / f"{split}_image_mapping.json", json.dumps(paths))
    pictures.write_truth(split)


def export_mmdialog(root: Path, split: str, count: int, size: int = 64) -> None:
    """`{split}/{split}_conversations.txt`, one talk a line as JSON, and its pictures beside it."""
    pictures = _Pictures(Path(root), split, size)
    with whole_file(pictures.root / split / f"{split}_conversations.txt") as table, open(table, "w") as file:
        for seed in range(count):
            conversation = []
            for index, turn in enumerate(sample_talk(split_rng(split, seed))):
                elements = [{"__TEXT__": turn.text}]
                if turn.scene:
                    pictures.add(turn.scene, f"{seed}{index}")
                    elements.append({"__MEDIA__": f"{seed}{index}"})
                conversation.append({"turn": elements})
            file.write(json.dumps({"conversation_id": seed, "conversation": conversation}) + "\n")
    pictures.write_truth(split)


def export_chats(task: str, root: Path, split: str, count: int, size: int = 64) -> None:
    """`{split}.jsonl` with a question, its reply and what kind it is of a line, and the pictures under `{split}/`.

    Splits other than "train" ask in the wordings that are kept for judging, but for the next step of a story.

    Args:
        task: one of `minigpt5.storyworld.tasks.TASKS`.
    """
    pictures = _Pictures(Path(root), split, size)
    with whole_file(pictures.root / f"{split}.jsonl") as table, open(table, "w") as file:
        for seed in range(count):
            names = (f"{seed:09d}-{number}" for number in itertools.count())
            rng = split_rng(split, seed)
            item = training_item(task, rng) if split == "train" else TASKS[task](rng, "fresh")
            messages = item.messages(lambda scene, names=names: pictures.add(scene, next(names)))
            file.write(json.dumps({"messages": messages, "kind": item.kind}) + "\n")
    pictures.write_truth(split)


# What there is to export, by the folder's name.
EXPORTS: dict[str, Callable[[Path, str, int], None]] = {
    "cc3m": export_cc3m,
    "vist": export_vist,
    "mmdialog": export_mmdialog,
    **{task: partial(export_chats, task) for task in TASKS},
}
