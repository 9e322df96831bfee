"""How few steps paint as well: a StoryWorld model's pictures at several numbers of steps and guidance scales.

    python evaluation/evaluate_steps.py --model storyworld-mini [--count 500] [--out steps.json]

The same captions, in a wording that training never used, are painted through the vokens from the same noise in each
way. The judge says what is right; it sees through blur, so two figures of looks stand beside it: the Fréchet distance
of the judge's features to those of true pictures of the same scenes, lower is better, and the share of the true
pictures' edge energy. "drawn" is the true pictures of other scenes with the same things, "decoded" the true ones
through the VAE: no painter can be expected to come nearer.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from minigpt5.loading import ModelSettings, open_model
from minigpt5.metrics.intervals import wilson_interval
from minigpt5.metrics.pictures import FrechetInceptionDistance
from minigpt5.metrics.storyworld import JudgeFeatures, edge_energy
from minigpt5.painters import painter_of
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.examine import fresh_captions, paint_captions, sample_scenes
from minigpt5.storyworld.judge import judge_accuracy, load_judge
from minigpt5.utils.files import check_file, write_json
from minigpt5.utils.images import to_tensor
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import plain, setting

COMPANION_SHARE = 0.5


@dataclass(kw_only=True)
class StepsConfig(ModelSettings):
    """What is tried."""

    count: int = setting(500, least=2, help="captions; half of them name two characters")
    ways: tuple[str, ...] = setting(
        ("20x2.5", "12x2.5", "8x2.5", "8x1", "6x1", "4x1", "3x1", "2x1", "1x1"),
        help="steps and guidance scale, as 20x2.5; the first is what the others' speed is compared with",
    )
    batch_size: int = setting(50, least=1, help="captions at a time")
    out: Path | None = setting(None, help="JSON file for the figures")

    def __post_init__(self):
        super().__post_init__()
        for way in self.ways:
            parse_way(way)


def parse_way(way: str) -> tuple[int, float]:
    """Steps and guidance scale of `20x2.5`."""
    try:
        steps, _, guidance = way.partition("x")
        return int(steps), float(guidance)
    except ValueError:
        raise ValueError(f"ways: {way!r} is not steps and a guidance scale, as 20x2.5") from None


@torch.no_grad()
def decoded(painter, pictures: list[Image.Image], size: int) -> list[Image.Image]:
    """Pictures through the painter's VAE and back."""
    found = []
    for start in range(0, len(pictures), 50):
        pixels = torch.stack([to_tensor(picture, size) for picture in pictures[start : start + 50]])
        found += painter.decode(painter.latents(painter.encode(pixels)), size, size)
    return found


def main(config: StepsConfig):
    if config.out:
        check_file(config.out)
    pipe = open_model(config.model, config.adapter)
    judge, painter = load_judge(), painter_of(pipe.painter)
    size = painter.default_size[0]
    scenes = sample_scenes(config.count, companion_share=COMPANION_SHARE)
    captions = fresh_captions(scenes)
    true = [draw(scene, size) for scene in scenes]
    # What carries no meaning drawn anew.
    others = [draw(replace(scene, decor=scene.decor + 1), size) for scene in scenes]
    distance = FrechetInceptionDistance(feature=JudgeFeatures(judge))
    distance.update(true, True)
    energy, rows = edge_energy(true), []

    def report(name: str, pictures: list[Image.Image], unet_rows: int | None, seconds: float | None) -> None:
        generated = distance.clone()
        generated.update(pictures, False)
        right = judge_accuracy(judge.read(pictures), scenes)["all"]
        _, low, high = wilson_interval(round(right * len(scenes)), len(scenes))
        row = {
            "way": name,
            "unet_rows": unet_rows,
            "all_right": right,
            "interval": [low, high],
            "frechet": generated.compute()["fid"].item(),
            "edge_energy": edge_energy(pictures) / energy,
            "seconds": seconds,
        }
        rows.append(row)
        first = next((each["seconds"] for each in rows if each["seconds"]), None)
        speed = f"{first / seconds:7.2f}×" if first and seconds else ""
        print(
            f"{name:10} {unet_rows or '':>4} {right:9.3f} [{low:.3f}, {high:.3f}] {row['frechet']:9.3f} "
            f"{row['edge_energy']:9.3f} {speed}",
            flush=True,
        )

    print(f"{'way':10} {'rows':>4} {'all right':>9} {'95 %':16} {'Fréchet':>9} {'edges':>9} pictures/s")
    report("drawn", others, None, None)
    report("decoded", decoded(painter, true, size), None, None)
    for way in config.ways:
        steps, guidance = parse_way(way)
        start = time.monotonic()
        pictures = paint_captions(
            pipe,
            captions,
            batch_size=config.batch_size,
            num_inference_steps=steps,
            guidance_scale=guidance,
        )
        report(way, pictures, steps * (1 + painter.guides(guidance)), time.monotonic() - start)
    if config.out:
        write_json(config.out, plain(config) | {"rows": rows})


if __name__ == "__main__":
    run_program(main, StepsConfig, __doc__)
