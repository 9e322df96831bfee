r"""Train a VAE for pictures of twice the side whose latents stay those of a smaller one, so that its UNet serves.

    python training/miniature/enlarge_vae.py --config configs/storyworld-mini/enlarged.yaml \
        --vae runs/mini/vae/model --out runs/mini/enlarged
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch.nn.functional import interpolate, mse_loss

from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.items import random_scene
from minigpt5.storyworld.miniature import PICTURE_SIZE, VAE_CHANNELS, build_vae, reconstruction_loss
from minigpt5.training.fit import FitConfig, best_of, fit
from minigpt5.training.latents import psnr
from minigpt5.training.results import save_result
from minigpt5.utils.images import to_tensor
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.processes import is_main_process, pick_device, shard, share_of_batch
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class LargeVaeConfig(FitConfig):
    """The larger VAE."""

    vae: Path = setting(help="folder of the VAE whose latents are kept")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    l1_weight: float = setting(least=0, help="of the absolute error beside the squared one")
    latent_weight: float = setting(least=0, help="of the encoder's distance from the latents that are kept")
    encoded: int = setting(least=1, help="pictures of a batch that the encoder learns from; half of them blurred")
    character_weight: float = setting(least=0, help="of the pixels where characters stand, against 1 elsewhere")
    best: str = best_of("psnr_db")


def enlarge(small: AutoencoderKL) -> AutoencoderKL:
    """A VAE with one level more at the pictures' end, every other level as in `small`."""
    large = build_vae(PICTURE_SIZE, (VAE_CHANNELS[0], *VAE_CHANNELS))
    weights, known = large.state_dict(), small.state_dict()
    for name in weights:
        source = name
        if name.startswith("encoder.down_blocks."):
            _, _, level, *rest = name.split(".")
            source = ".".join(("encoder.down_blocks", str(int(level) - 1), *rest))
        if source in known and known[source].shape == weights[name].shape:
            weights[name] = known[source]
    large.load_state_dict(weights)
    return large


def draw_pictures(name: str, count: int) -> torch.Tensor:
    """Fresh pictures of the world `(count, 3, 128, 128)`, the same for the same name."""
    rng = random.Random(name)
    scenes = [random_scene(rng) for _ in range(count)]
    return torch.stack([to_tensor(draw(scene, PICTURE_SIZE), PICTURE_SIZE) for scene in scenes])


def halve(pixels: torch.Tensor) -> torch.Tensor:
    return interpolate(pixels, scale_factor=0.5, mode="area")


def main(config: LargeVaeConfig):
    device = pick_device()
    with opening(f"the VAE {config.vae}"):
        small = load_whole(AutoencoderKL, config.vae).requires_grad_(False).to(device)
    vae: Any = enlarge(small)
    vae.to(device)
    fresh = draw_pictures("validation", 64).to(device)
    kept = small.encode(halve(fresh)).latent_dist.mode()
    enlarged = interpolate(small.decode(kept).sample, scale_factor=2, mode="bicubic")
    print(f"the smaller VAE's pictures enlarged: psnr_db {psnr(enlarged, fresh):.2f}")

    def batches(step):
        places = shard(range(config.batch_size))
        return torch.cat([draw_pictures(f"{config.seed}/{step}/{place}", 1) for place in places]).to(device)

    def losses(pixels, step):
        with torch.no_grad():
            target = small.encode(halve(pixels)).latent_dist
        decoded = vae.decode(target.sample()).sample.float()
        error, squared = reconstruction_loss(decoded, pixels, config.l1_weight, config.character_weight)
        shown = pixels[: config.encoded].clone()
        blurred = config.encoded // 2
        shown[:blurred] = interpolate(halve(shown[:blurred]), scale_factor=2, mode="bicubic")
        own = vae.encode(shown).latent_dist
        apart = mse_loss(own.mean.float(), target.mean[: config.encoded])
        apart = apart + 0.01 * mse_loss(own.logvar.float(), target.logvar[: config.encoded])
        loss = share_of_batch(len(pixels)) * (error + config.latent_weight * apart)
        return {"loss": loss, "mse": squared, "latents": apart}

    def evaluate():
        own = vae.encode(fresh).latent_dist.mode()
        return {
            "psnr_db": psnr(vae.decode(kept).sample, fresh),
            "own_latents_psnr_db": psnr(vae.decode(own).sample, fresh),
            "latents_apart": mse_loss(own, kept).item(),
        }

    fit(vae, batches, losses, config, config.out, evaluate)
    if is_main_process():
        save_result(vae, config.out / "model")


if __name__ == "__main__":
    run_program(main, LargeVaeConfig, __doc__, many_processes=True)
