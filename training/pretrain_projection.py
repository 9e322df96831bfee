r"""MiniGPT-4's first stage: the projection learns to show pictures to the language model, from captions alone.

    accelerate launch training/pretrain_projection.py --config configs/storyworld-mini/projection.yaml \
        --data runs/mini/data --model runs/mini/qformer/model --out runs/mini/projection

Everything else is frozen. A picture without a word is the prompt, its caption the reply. The result is a pipeline
folder, OUT/model.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.mixture import PAIR_TASKS
from minigpt5.training.fit import best_of, end_dry_run, fit
from minigpt5.training.mixture import MixtureConfig, check_splits, open_mixture
from minigpt5.training.objective import validation_loss
from minigpt5.training.projection import ProjectionModel
from minigpt5.training.results import save_result
from minigpt5.utils.processes import is_main_process, pick_device
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import DTYPES, setting


@dataclass(kw_only=True)
class ProjectionConfig(MixtureConfig):
    """The projection's first stage."""

    tasks = PAIR_TASKS

    model: Path = setting(help="pipeline to start from")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    dtype: str = setting("float32", choices=DTYPES, help="of the frozen weights; the projection is float32")
    fresh: bool = setting(
        False,
        help="begin with a random projection instead of the pipeline's, as where its Q-Former is a new one",
        fixed="it says how a run begins",
    )
    gradient_checkpointing: bool = setting(False, help="compute the language model's activations twice to keep fewer")
    judged: int = setting(4, least=1, help="validation batches of an evaluation", rejudge=True)
    best: str = best_of("minus_loss")


def main(config: ProjectionConfig):
    check_splits(config)
    with opening(f"the model {config.model}"):
        pipe = MiniGPT5Pipeline.from_pretrained(config.model, dtype=getattr(torch, config.dtype))
    model = ProjectionModel(pipe.comprehension, config.gradient_checkpointing).to(pick_device())
    if config.fresh:
        model.projection.reset_parameters()
    end_dry_run(model, config)
    draw, held_back = (open_mixture(config, role, pipe.reader) for role in ("train", "validation"))

    def batches(index, source=draw):
        return source.batch(index)[1]

    def losses(batch, step):
        return model(batch)

    def evaluate():
        return {
            "minus_loss": -validation_loss(losses, lambda index: batches(index, held_back), config.judged, config.steps)
        }

    fit(model, batches, losses, config, config.out, evaluate, rows=draw.sizes)
    if is_main_process():
        save_result(pipe, config.out / "model")


if __name__ == "__main__":
    run_program(main, ProjectionConfig, __doc__, many_processes=True)
