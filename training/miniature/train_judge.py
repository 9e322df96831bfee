"""Train the StoryWorld judge on fresh renders.

python training/miniature/train_judge.py --config configs/storyworld-mini/judge.yaml --out runs/mini/judge
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import avg_pool2d, interpolate

from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.judge import ATTRIBUTES, Judge, answers, judge_accuracy, question_loss
from minigpt5.storyworld.scene import sample_scene, split_rng
from minigpt5.training.fit import FitConfig, best_of, fit
from minigpt5.training.results import save_result
from minigpt5.utils.images import to_tensor
from minigpt5.utils.processes import pick_device
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class JudgeConfig(FitConfig):
    """The judge."""

    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    held_out_share: float = setting(
        least=0, most=1, help="of the scenes, with a kind and colour that the painters never see together"
    )
    best: str = best_of("all", *ATTRIBUTES)


def main(config: JudgeConfig):
    device = pick_device()
    judge = Judge().to(device)

    def batches(step):
        rng = split_rng("train", config.seed * 10**9 + step)
        scenes = [
            sample_scene(rng, companion_share=0.5, held_out=rng.random() < config.held_out_share)
            for _ in range(config.batch_size)
        ]
        pixels = torch.stack([to_tensor(draw(scene), 64) for scene in scenes])
        # Painted pictures are softer than renders and a little off in tone; the judge must not mind.
        if rng.random() < 0.5:
            pixels = interpolate(avg_pool2d(pixels, 2), scale_factor=2, mode="bilinear")
        pixels = pixels * rng.uniform(0.9, 1.1) + rng.uniform(-0.08, 0.08) + 0.05 * torch.randn_like(pixels)
        return pixels.to(device), torch.tensor([answers(scene) for scene in scenes], device=device)

    scenes = [sample_scene(split_rng("validation", seed), companion_share=0.5) for seed in range(1000)]
    pictures = [draw(scene) for scene in scenes]

    def evaluate():
        return judge_accuracy(judge.read(pictures), scenes)

    def losses(batch, step):
        pixels, targets = batch
        return {"loss": question_loss(judge(pixels), targets)}

    fit(judge, batches, losses, config, config.out, evaluate)
    save_result(judge, config.out / "model")


if __name__ == "__main__":
    run_program(main, JudgeConfig, __doc__)
