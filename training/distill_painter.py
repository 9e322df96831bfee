r"""Distil a pipeline's painter: few steps without guidance then paint what many steps with it did (arXiv 2310.04378).

    accelerate launch training/distill_painter.py --config configs/storyworld-mini/distill.yaml \
        --data runs/mini/data --model storyworld-mini --out runs/mini/distill

The denoiser trains, on pictures that are conditioned through the vokens; all else is frozen. The result, OUT/model, is
the whole pipeline with diffusers' LCMScheduler, and paints in `num_inference_steps` steps by default.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5.data.mixture import CAPTIONED_TASKS
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.training.distillation import ConsistencyModel
from minigpt5.training.fit import best_of, end_dry_run, fit
from minigpt5.training.mixture import MixtureConfig, check_splits, open_mixture
from minigpt5.training.objective import sample_grid, validation_loss
from minigpt5.training.results import save_result
from minigpt5.utils.processes import is_main_process, pick_device
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import DTYPES, setting


@dataclass(kw_only=True)
class DistillConfig(MixtureConfig):
    """The distillation."""

    tasks = (*CAPTIONED_TASKS, "paint", "change", "story", "talk")

    model: Path = setting(help="pipeline to start from: a folder, a repository, or a shipped name")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    dtype: str = setting("float32", choices=DTYPES, help="of the frozen weights; the denoiser that trains is float32")
    guidance_scale: float | None = setting(None, above=0, help="of the teacher; null for the pipeline's default")
    ladder: int = setting(50, least=1, most=1000, help="steps of the teacher from pure noise to a picture")
    huber: float = setting(1e-3, above=0, help="latents that lie closer are squared in the loss, others are not")
    num_inference_steps: int = setting(4, least=1, help="the result's default, and of the sample grid")
    judged: int = setting(4, least=1, help="validation batches of an evaluation", rejudge=True)
    best: str = best_of("minus_loss")


def main(config: DistillConfig):
    check_splits(config)
    with opening(f"the model {config.model}"):
        pipe = MiniGPT5Pipeline.from_pretrained(str(config.model), dtype=getattr(torch, config.dtype)).to(pick_device())
    pipe.set_progress_bar_config(disable=True)
    guidance = config.guidance_scale or pipe.config["guidance_scale"]
    model = ConsistencyModel(pipe, guidance, config.ladder, config.huber)
    pipe.register_to_config(guidance_scale=1.0, num_inference_steps=config.num_inference_steps)
    end_dry_run(model, config)
    draw, held_back = (open_mixture(config, role, pipe.reader) for role in ("train", "validation"))

    def batches(index, source=draw):
        return model.vokens.prepare(source.batch(index)[1])

    def losses(batch, step):
        return model(batch)

    def evaluate():
        loss = validation_loss(losses, lambda index: batches(index, held_back), config.judged, config.steps)
        questions = held_back.questions(4)
        return {"minus_loss": -loss} | ({"painted": sample_grid(pipe, questions)} if questions else {})

    fit(model, batches, losses, config, config.out, evaluate, rows=draw.sizes)
    if is_main_process():
        save_result(pipe, config.out / "model")


if __name__ == "__main__":
    run_program(main, DistillConfig, __doc__, many_processes=True)
