"""MiniGPT-4's first stage: the projection learns to show pictures to the language model, from captions alone.

    accelerate launch training/pretrain_projection.py --config configs/storyworld-mini/projection.yaml \\
        --data runs/mini/data --model runs/mini/qformer/model --out runs/mini/projection

Everything else is frozen. A picture without a word is the prompt, its caption the reply. The result is a pipeline
folder, OUT/model.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.mixture import check_pairs, open_mixture
from minigpt5.training.fit import FitConfig, fit
from minigpt5.training.objective import validation_loss
from minigpt5.training.projection import ProjectionModel
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import is_main_process, pick_device
from minigpt5.utils.settings import read_config


@dataclass(kw_only=True)
class ProjectionConfig(FitConfig):
    """Settings of the projection's first stage.

    Args:
        data: folder with the data sets, each in a folder by its name: cc3m, vist.
        layouts: another layout for one of them, as {cc3m: cc3m-shards}.
        model: pipeline to start from.
        dtype: of the frozen weights; the projection is float32.
        out: folder for checkpoints and the result.
        fresh: begin with a random projection instead of the pipeline's, as where its Q-Former is a new one.
        mix: pairs a batch by task, pair (cc3m) and story_pair (vist); batch_size is their sum.
        max_bad_share: share of missing or broken pictures that stops the run.
        gradient_checkpointing: compute the language model's activations twice to keep fewer.
        judged: validation batches of an evaluation.
    """

    data: Path
    layouts: dict = field(default_factory=dict)
    model: Path
    dtype: str = "float32"
    out: Path
    fresh: bool = False
    mix: dict
    max_bad_share: float = 0.01
    gradient_checkpointing: bool = False
    judged: int = 4

    def __post_init__(self):
        check_pairs(self.mix, self.batch_size)


def main():
    quiet_libraries()
    config = read_config(ProjectionConfig, __doc__)
    torch.manual_seed(config.seed)
    pipe = MiniGPT5Pipeline.from_pretrained(config.model, dtype=getattr(torch, config.dtype))
    model = ProjectionModel(pipe.comprehension, config.gradient_checkpointing).to(pick_device())
    if config.fresh:
        model.projection.reset_parameters()
    draw, held_back = (open_mixture(config, split) for split in ("train", "validation"))

    def batches(index, source=draw):
        return pipe.processor.training_batch([one.item for one in source(index)])

    def losses(batch, step):
        return model(batch)

    def evaluate():
        return {
            "minus_loss": -validation_loss(losses, lambda index: batches(index, held_back), config.judged, config.steps)
        }

    fit(model, batches, losses, config, config.out, evaluate)
    if is_main_process():
        pipe.to("cpu", torch.float16).save_pretrained(config.out / "model")


if __name__ == "__main__":
    main()
