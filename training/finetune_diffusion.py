r"""Fine-tune the diffusion model alone on captions: the baseline "fine-tuned SD" (arXiv 2310.02239, section 4.1).

    accelerate launch training/finetune_diffusion.py --config configs/storyworld-mini/finetune_diffusion.yaml \
        --data runs/mini/data --model runs/mini/base --out runs/mini/finetuned

Any pipeline of diffusers that `minigpt5.painters` can train. The UNet or transformer is trained, the VAE is frozen, and
so are the text encoders unless `train_text_encoder` is set, as where a painter is trained from nothing. The result is a
folder of the same kind, OUT/model; its UNet is what MiniGPT-5's pipeline and the baselines take as `unet`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.utils import make_image_grid
from PIL import Image
from torch import nn

from minigpt5.data.mixture import PAIR_TASKS
from minigpt5.joining import open_painter
from minigpt5.painters import painter_of, trainable
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.training.fit import best_of, end_dry_run, fit
from minigpt5.training.losses import drop_for_guidance
from minigpt5.training.mixture import MixtureConfig, check_splits, open_mixture
from minigpt5.training.objective import validation_loss
from minigpt5.training.results import save_result
from minigpt5.utils.images import pad_to_square, to_tensor
from minigpt5.utils.processes import is_main_process, pick_device, share_of_batch
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import setting
from minigpt5.weights import shipped_model


@dataclass(kw_only=True)
class FinetuneConfig(MixtureConfig):
    """The diffusion model."""

    tasks = PAIR_TASKS

    model: Path = setting(help="pipeline to start from, of diffusers or MiniGPT-5")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    guidance_dropout: float = setting(0.1, least=0, most=1, help="share of captions replaced by the empty one")
    snr_gamma: float | None = setting(5.0, above=0, help="of Min-SNR weighting, null for none", rejudge=True)
    gradient_checkpointing: bool = setting(False, help="compute the denoiser's activations twice to keep fewer")
    train_text_encoder: bool = setting(False, help="train the text encoders too", fixed="what trains depends on it")
    judged: int = setting(4, least=1, help="validation batches of an evaluation", rejudge=True)
    painted: int = setting(4, least=1, help="validation captions of the sample grid")
    num_inference_steps: int = setting(50, least=1, most=1000, help="of the sample grid")
    guidance_scale: float = setting(7.5, least=0, help="of the sample grid")
    best: str = best_of("minus_loss")


class PainterModel(nn.Module):
    """The diffusion loss of captions and pictures: the denoiser trains, and where asked the text encoders."""

    def __init__(self, model: str | Path, config: FinetuneConfig):
        super().__init__()
        opened = open_painter(model)
        self.painter = trainable(painter_of(opened.painter if isinstance(opened, MiniGPT5Pipeline) else opened))
        self.painter.require_text_encoder()
        self.painter.pipeline.set_progress_bar_config(disable=True)
        self.config, pipeline = config, self.painter.pipeline
        self.parts = nn.ModuleDict({n: p for n, p in pipeline.components.items() if isinstance(p, nn.Module)})
        self.learning = [self.painter.denoiser_name]
        self.learning += [name for name in self.parts if config.train_text_encoder and name.startswith("text_encoder")]
        for name, part in self.parts.items():
            part.float().requires_grad_(name in self.learning)
        if config.gradient_checkpointing:
            self.painter.denoiser.enable_gradient_checkpointing()
        self.size = self.painter.default_size[0]

    def train(self, mode: bool = True) -> "PainterModel":
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        for name, part in self.parts.items():
            part.train(mode and name in self.learning)
        return self

    def prepare(self, drawn) -> tuple[list[str], torch.Tensor]:
        """Captions, and pixels `(pairs, 3, size, size)`."""
        images = [pad_to_square(one.item.images[0]) for one in drawn]
        pixels = [to_tensor(image, self.size, Image.Resampling.BILINEAR) for image in images]
        return [one.caption for one in drawn], torch.stack(pixels)

    def forward(self, captions: list[str], pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss; in training scaled so that the mean over the processes is the mean over all their pictures."""
        painter = self.painter
        with torch.no_grad():
            latents = painter.latents(painter.encode(pixels))
        dropped = drop_for_guidance(len(pixels), self.config.guidance_dropout, "cpu").tolist()
        shown = ["" if drop else caption for drop, caption in zip(dropped, captions, strict=True)]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_text_encoder):
            conditioning = painter.encode_captions(shown)
        loss = painter.loss(latents.float(), conditioning, self.config.snr_gamma)
        return {"loss": loss * share_of_batch(len(pixels)) if self.training else loss}


def main(config: FinetuneConfig):
    check_splits(config)
    with opening(f"the model {config.model}"):
        model = PainterModel(shipped_model(config.model), config).to(pick_device())
    pipeline = model.painter.pipeline
    end_dry_run(model, config)
    draw, held_back = (open_mixture(config, role) for role in ("train", "validation"))

    def batches(index):
        return model.prepare(draw(index))

    def losses(batch, step):
        return model(*batch)

    def evaluate():
        drawn = [held_back(index) for index in range(config.judged)]
        shown = [one.caption for batch in drawn for one in batch][: config.painted]
        pictures = pipeline(
            shown,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            generator=[torch.Generator().manual_seed(i) for i in range(len(shown))],
        ).images
        return {
            "minus_loss": -validation_loss(losses, lambda index: model.prepare(drawn[index]), len(drawn), config.steps),
            "painted": make_image_grid(pictures, rows=1, cols=len(pictures)),
        }

    fit(model, batches, losses, config, config.out, evaluate, rows=draw.sizes)
    if is_main_process():
        save_result(pipeline, config.out / "model")


if __name__ == "__main__":
    run_program(main, FinetuneConfig, __doc__, many_processes=True)
