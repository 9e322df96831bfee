"""Train the miniature's VAE on the pictures of a CC3M-layout folder.

python training/train_vae.py --config configs/storyworld-mini/vae.yaml --data runs/mini/data --out runs/mini/vae
"""

import torch
from torch.nn.functional import l1_loss, mse_loss

from minigpt5.config import read_settings, stage_arguments
from minigpt5.data.readers import read_cc3m
from minigpt5.fit import fit, pick_device
from minigpt5.images import to_tensor
from minigpt5.latents import normalise_latents, psnr
from minigpt5.logs import quiet_libraries
from minigpt5.miniature import IMAGE_SIZE, build_vae


def main():
    quiet_libraries()
    arguments = stage_arguments(__doc__.splitlines()[0]).parse_args()
    loop, settings = read_settings(arguments)
    device = pick_device()
    vae = build_vae().to(device)
    pictures = read_cc3m(arguments.data / "cc3m", "train")
    held_back = read_cc3m(arguments.data / "cc3m", "validation")
    fresh = torch.stack([to_tensor(row["image"], IMAGE_SIZE) for row in held_back.select(range(500))]).to(device)

    def batches(step):
        order = torch.randint(len(pictures), (loop.batch_size,)).tolist()
        return torch.stack([to_tensor(pictures[i]["image"], IMAGE_SIZE) for i in order]).to(device)

    # Characters stand in a known band; they are what a viewer looks at, so their pixels count more.
    weight = torch.ones(1, 1, IMAGE_SIZE, 1, device=device)
    weight[:, :, IMAGE_SIZE * 3 // 8 : IMAGE_SIZE * 7 // 8] = settings["character_weight"]
    weight = weight / weight.mean()

    def losses(pixels, step):
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample()).sample.float()
        squared = (mse_loss(decoded, pixels, reduction="none") * weight).mean()
        absolute = (l1_loss(decoded, pixels, reduction="none") * weight).mean()
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        loss = squared + settings["l1_weight"] * absolute + settings["kl_weight"] * divergence
        return {"loss": loss, "mse": squared, "kl": divergence}

    def evaluate():
        return {"psnr_db": psnr(vae.decode(vae.encode(fresh).latent_dist.mode()).sample, fresh)}

    fit(vae, batches, losses, loop, arguments.out, evaluate)
    with torch.no_grad():
        normalise_latents(vae, fresh)
        print("vae, 500 validation pictures:", evaluate())
    vae.half().save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
