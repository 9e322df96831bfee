"""Fine-tune the diffusion model alone on captions: the baseline "fine-tuned SD" (arXiv 2310.02239, section 4.1).

    accelerate launch training/finetune_diffusion.py --config configs/storyworld-mini/finetune_diffusion.yaml \\
        --data runs/mini/data --model runs/mini/base --out runs/mini/finetuned

The UNet is trained; text encoder and VAE are frozen. The result is a Stable Diffusion folder, OUT/model, whose UNet
MiniGPT-5's pipeline and `minigpt5.evaluation.baselines.ZeroShotDiffusion` take as `unet`.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import make_image_grid
from PIL import Image
from torch import nn
from transformers import AutoTokenizer, CLIPTextModel

from minigpt5.data.mixture import check_pairs, open_mixture
from minigpt5.training.fit import FitConfig, fit
from minigpt5.training.losses import drop_for_guidance, latent_diffusion_loss, stratified_timesteps
from minigpt5.training.objective import validation_loss
from minigpt5.utils.images import pad_to_square, to_tensor
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import is_main_process, pick_device, share_of_batch
from minigpt5.utils.settings import read_config
from minigpt5.weights import shipped_model


@dataclass(kw_only=True)
class FinetuneConfig(FitConfig):
    """Settings of the fine-tuned diffusion model.

    Args:
        data: folder with the data sets, each in a folder by its name: cc3m, vist.
        layouts: another layout for one of them, as {cc3m: cc3m-shards}.
        model: pipeline to start from, Stable Diffusion or MiniGPT-5.
        out: folder for checkpoints and the result.
        mix: pairs a batch by task, pair (cc3m) and story_pair (vist); batch_size is their sum.
        max_bad_share: share of missing or broken pictures that stops the run.
        guidance_dropout: share of captions replaced by the empty one.
        snr_gamma: of Min-SNR weighting, null for none.
        gradient_checkpointing: compute the UNet's activations twice to keep fewer.
        judged: validation batches of an evaluation.
        painted: validation captions of the sample grid.
        num_inference_steps, guidance_scale: of the sample grid.
    """

    data: Path
    layouts: dict = field(default_factory=dict)
    model: Path
    out: Path
    mix: dict
    max_bad_share: float = 0.01
    guidance_dropout: float = 0.1
    snr_gamma: float | None = 5.0
    gradient_checkpointing: bool = False
    judged: int = 4
    painted: int = 4
    num_inference_steps: int = 50
    guidance_scale: float = 7.5

    def __post_init__(self):
        check_pairs(self.mix, self.batch_size)


class Painter(nn.Module):
    """The diffusion loss of captions and pictures, its UNet trainable."""

    def __init__(self, model: str | Path, guidance_dropout: float, snr_gamma: float | None):
        super().__init__()
        self.unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
        self.vae = AutoencoderKL.from_pretrained(model, subfolder="vae").requires_grad_(False)
        text_encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder", dtype=torch.float32)
        self.text_encoder = text_encoder.requires_grad_(False)
        self.tokenizer = AutoTokenizer.from_pretrained(model, subfolder="tokenizer")
        self.scheduler = DDIMScheduler.from_pretrained(model, subfolder="scheduler")
        self.guidance_dropout, self.snr_gamma = guidance_dropout, snr_gamma
        self.size = self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def train(self, mode: bool = True) -> "Painter":
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        self.text_encoder.eval()
        return self

    def encode(self, drawn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids of captions and of the empty one `(pairs + 1, length)` and pixels `(pairs, 3, size, size)`."""
        captions = [one.caption for one in drawn]
        ids = self.tokenizer([*captions, ""], padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        images = [pad_to_square(one.item.images[0]) for one in drawn]
        return ids, torch.stack([to_tensor(image, self.size, Image.Resampling.BILINEAR) for image in images])

    def forward(self, ids: torch.Tensor, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss; in training scaled so that the mean over the processes is the mean over all their pictures."""
        with torch.no_grad():
            features = self.text_encoder(ids).last_hidden_state
            latents = self.vae.encode(pixels).latent_dist.sample() * self.vae.config.scaling_factor
        dropped = drop_for_guidance(len(pixels), self.guidance_dropout, pixels.device)
        features = torch.where(dropped.view(-1, 1, 1), features[-1:], features[:-1])
        timesteps = stratified_timesteps(len(pixels), self.scheduler.config.num_train_timesteps, pixels.device)
        noise = torch.randn_like(latents)
        loss = latent_diffusion_loss(self.unet, self.scheduler, latents, features, timesteps, noise, self.snr_gamma)
        return {"loss": loss * share_of_batch(len(pixels)) if self.training else loss}

    def pipeline(self) -> StableDiffusionPipeline:
        """The parts as Stable Diffusion."""
        parts = (self.vae, self.text_encoder, self.tokenizer, self.unet, self.scheduler)
        pipe = StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        return pipe


def main():
    quiet_libraries()
    config = read_config(FinetuneConfig, __doc__)
    model = Painter(shipped_model(config.model), config.guidance_dropout, config.snr_gamma).to(pick_device())
    if config.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    draw, held_back = (open_mixture(config, split) for split in ("train", "validation"))

    def batches(index):
        return model.encode(draw(index))

    def losses(batch, step):
        return model(*batch)

    def evaluate():
        drawn = [held_back(index) for index in range(config.judged)]
        shown = [one.caption for batch in drawn for one in batch][: config.painted]
        pictures = model.pipeline()(
            shown,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            generator=[torch.Generator().manual_seed(i) for i in range(len(shown))],
        ).images
        return {
            "minus_loss": -validation_loss(losses, lambda index: model.encode(drawn[index]), len(drawn), config.steps),
            "painted": make_image_grid(pictures, rows=1, cols=len(pictures)),
        }

    fit(model, batches, losses, config, config.out, evaluate)
    if is_main_process():
        model.pipeline().to(torch.float16).save_pretrained(config.out / "model")


if __name__ == "__main__":
    main()
