r"""Train the miniature's VAE on the pictures of a CC3M-layout folder.

python training/miniature/train_vae.py --config configs/storyworld-mini/vae.yaml \
    --data runs/mini/data --out runs/mini/vae
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5.data.readers import read_cc3m
from minigpt5.storyworld.miniature import IMAGE_SIZE, build_vae, reconstruction_loss
from minigpt5.training.fit import FitConfig, best_of, fit
from minigpt5.training.latents import normalise_latents, psnr
from minigpt5.training.results import save_result
from minigpt5.utils.images import to_tensor
from minigpt5.utils.processes import pick_device
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class VaeConfig(FitConfig):
    """The VAE."""

    data: Path = setting(help="folder of the exported data sets")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    l1_weight: float = setting(least=0, help="of the absolute error beside the squared one")
    kl_weight: float = setting(least=0, help="of the divergence")
    character_weight: float = setting(least=0, help="of the pixels where characters stand, against 1 elsewhere")
    best: str = best_of("psnr_db")


def main(config: VaeConfig):
    device = pick_device()
    vae = build_vae().to(device)
    pictures = read_cc3m(config.data / "cc3m", "train")
    held_back = read_cc3m(config.data / "cc3m", "validation")
    held_back = held_back.select(range(min(500, len(held_back))))
    fresh = torch.stack([to_tensor(image, IMAGE_SIZE) for image in held_back["image"]]).to(device)

    def batches(step):
        order = torch.randint(len(pictures), (config.batch_size,)).tolist()
        return torch.stack([to_tensor(pictures[i]["image"], IMAGE_SIZE) for i in order]).to(device)

    def losses(pixels, step):
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample()).sample.float()
        error, squared = reconstruction_loss(decoded, pixels, config.l1_weight, config.character_weight)
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        return {"loss": error + config.kl_weight * divergence, "mse": squared, "kl": divergence}

    def evaluate():
        return {"psnr_db": psnr(vae.decode(vae.encode(fresh).latent_dist.mode()).sample, fresh)}

    fit(vae, batches, losses, config, config.out, evaluate)
    with torch.no_grad():
        normalise_latents(vae, fresh)
    save_result(vae, config.out / "model")


if __name__ == "__main__":
    run_program(main, VaeConfig, __doc__)
