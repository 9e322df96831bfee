r"""Examine what was joined: StoryWorld frames by each painter alone and through the vokens of its reader.

    python evaluation/evaluate_pairs.py --pairs '{shipped: storyworld-mini, new connector: runs/others/queries/model}' \
        --out runs/others/pairs

Each frame is one scene of the test split. Alone, a painter is told of it in plain words through its own text encoder;
through vokens in wordings that no training text has. OUT gets the table as Markdown, the figures as JSON and a picture:
renders of some frames, and in a row for each pair the same painted through its vokens.
"""

import gc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers.utils import make_image_grid
from PIL import Image

from minigpt5.evaluation.storyworld import paint_alone
from minigpt5.loading import open_model
from minigpt5.metrics.intervals import bootstrap_intervals, wilson_interval
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.examine import fresh_captions, paint_captions, sample_scenes
from minigpt5.storyworld.judge import load_judge
from minigpt5.storyworld.language import plain_caption
from minigpt5.utils.files import write_json, write_picture, write_text
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import Settings, plain, setting
from minigpt5.weights import check_model

# Frames in the picture, half of them with two characters, and their size in pixels.
SHOWN, SIDE = 8, 128
HEADER = "| pair | frames | painter alone | through vokens | of its own |\n|---|---|---|---|---|\n"


@dataclass(kw_only=True)
class PairsConfig(Settings):
    """The pairs."""

    pairs: dict[str, str] = setting(help="pipelines by their names in the table: shipped models or folders")
    out: Path = setting(help="folder for table, figures and pictures")
    count: int = setting(200, least=SHOWN // 2, help="frames of each kind")

    def __post_init__(self):
        super().__post_init__()
        for model in self.pairs.values():
            check_model(model)


def shares(rows: np.ndarray) -> dict[str, float]:
    """Frames that are all right, and the second share over the first; `rows` is `(frames, 2)`."""
    alone, vokens = rows.mean(0)
    return {"alone": alone, "vokens": vokens} | ({"ratio": vokens / alone} if alone else {})


def main(config: PairsConfig):
    judge, figures, lines = load_judge(), {}, []
    kinds = {"one character": False, "two characters": True}
    frames = {kind: sample_scenes(config.count, companion=companion) for kind, companion in kinds.items()}
    shown = [[draw(scene) for scenes in frames.values() for scene in scenes[: SHOWN // 2]]]
    for name, model in config.pairs.items():
        pipe = open_model(model)
        shown.append([])
        for kind, scenes in frames.items():
            pictures = [
                paint_alone(pipe, [plain_caption(scene) for scene in scenes]),
                paint_captions(pipe, fresh_captions(scenes)),
            ]
            right = [
                [verdict.compare(scene)["all"] for verdict, scene in zip(judge.read(painted), scenes, strict=True)]
                for painted in pictures
            ]
            intervals = bootstrap_intervals(np.array(right, dtype=float).T, shares)
            # The bootstrap of a share of all or none has no width.
            for which, row in zip(("alone", "vokens"), right, strict=True):
                intervals[which] = wilson_interval(sum(row), len(row))
            figures.setdefault(name, {})[kind] = intervals
            cells = [f"{i.estimate:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in intervals.values()]
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} |\n")
            print(lines[-1], end="", flush=True)
            shown[-1] += pictures[1][: SHOWN // 2]
        del pipe
        gc.collect()
    cells = [picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for row in shown for picture in row]
    write_picture(config.out / "pairs.png", make_image_grid(cells, len(shown), SHOWN))
    write_text(config.out / "pairs.md", HEADER + "".join(lines))
    write_json(config.out / "pairs.json", plain(config) | {"figures": figures})


if __name__ == "__main__":
    run_program(main, PairsConfig, __doc__)
