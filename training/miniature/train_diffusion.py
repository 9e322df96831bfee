r"""Train the miniature's text encoder and UNet on caption and picture pairs.

    python training/miniature/train_diffusion.py --config configs/storyworld-mini/diffusion.yaml \
        --data runs/mini/data --vae runs/mini/vae/model --out runs/mini/diffusion
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import nn

from minigpt5.data.readers import read_cc3m
from minigpt5.painters import painter_of, trainable
from minigpt5.storyworld.judge import ATTRIBUTES, NamingHead, answers, judge_accuracy, load_judge, question_loss
from minigpt5.storyworld.language import imagine
from minigpt5.storyworld.miniature import (
    IMAGE_SIZE,
    TEXT_DIM,
    TEXT_LENGTH,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
)
from minigpt5.training.fit import FitConfig, best_of, fit
from minigpt5.training.latents import encode_data_set
from minigpt5.training.losses import drop_for_guidance
from minigpt5.training.results import save_result
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.processes import pick_device
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class DiffusionConfig(FitConfig):
    """Text encoder and UNet."""

    data: Path = setting(help="folder of the exported data sets")
    vae: Path = setting(help="the trained VAE's folder")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    judge: Path | None = setting(None, help="the judge's folder, in place of the shipped one", rejudge=True)
    text_only_steps: int = setting(least=0, help="in which the text encoder goes ahead alone")
    text_batch_size: int = setting(least=1, help="captions of such a step")
    naming_weight: float = setting(least=0, help="of the head that names what a caption says")
    guidance_dropout: float = setting(least=0, most=1, help="share of captions replaced by the empty one")
    snr_gamma: float | None = setting(above=0, help="of Min-SNR weighting, null for none")
    num_inference_steps: int = setting(least=1, most=1000, help="of the pictures that are judged", rejudge=True)
    guidance_scale: float = setting(least=0, help="of the pictures that are judged", rejudge=True)
    best: str = best_of("all", *ATTRIBUTES, "two")


class TextToLatent(nn.Module):
    """Text encoder and UNet, and a head on the text features that has to name what the caption says."""

    def __init__(self, text_encoder, unet):
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet
        self.namer = NamingHead(TEXT_DIM)


def main(config: DiffusionConfig):
    device = pick_device()

    pairs = read_cc3m(config.data / "cc3m", "train")
    captions = list(pairs["caption"])
    with opening(f"the VAE {config.vae}"):
        vae = load_whole(AutoencoderKL, config.vae).float().to(device).eval()
    latents = encode_data_set(vae, pairs, IMAGE_SIZE, config.out / "latents.pt")
    tokenizer = build_tokenizer(captions, lowercase=True, max_length=TEXT_LENGTH)
    ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    nothing = tokenizer("", padding="max_length", return_tensors="pt")["input_ids"].to(device)
    truths = torch.tensor([answers(imagine(caption)) for caption in captions])
    scheduler = build_scheduler()
    model = TextToLatent(build_text_encoder(tokenizer), build_unet()).to(device)
    pipeline = StableDiffusionPipeline(
        vae, model.text_encoder, tokenizer, model.unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    painter = trainable(painter_of(pipeline))

    def batches(step):
        # The text encoder goes ahead alone; it needs many captions and they cost little.
        count = config.text_batch_size if step < config.text_only_steps else config.batch_size
        chosen = torch.randint(len(captions), (count,))
        return [column[chosen].to(device) for column in (ids, truths, latents)]

    def losses(batch, step):
        ids, truths, latents = batch
        features = model.text_encoder(ids).last_hidden_state
        naming = question_loss(
            model.namer(features[torch.arange(len(ids)), (ids == tokenizer.eos_token_id).int().argmax(1)]), truths
        )
        if step < config.text_only_steps:
            return {"loss": naming, "naming": naming}
        dropped = drop_for_guidance(len(ids), config.guidance_dropout, device)
        features = torch.where(dropped.view(-1, 1, 1), model.text_encoder(nothing).last_hidden_state, features)
        diffusion = painter.loss(latents.float(), {"prompt_embeds": features}, config.snr_gamma)
        return {"loss": diffusion + config.naming_weight * naming, "ldm": diffusion, "naming": naming}

    held_back = read_cc3m(config.data / "cc3m", "validation")
    held_back = held_back.select(range(min(100, len(held_back))))
    scenes = [imagine(caption) for caption in held_back["caption"]]
    judge = load_judge(config.judge)

    def evaluate():
        pictures = pipeline(
            list(held_back["caption"]),
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            generator=torch.Generator().manual_seed(0),
        ).images
        verdicts = judge.read(pictures)
        lone = [i for i, scene in enumerate(scenes) if not scene.companion]
        figures = judge_accuracy([verdicts[i] for i in lone], [scenes[i] for i in lone])
        both = [i for i, scene in enumerate(scenes) if scene.companion]
        return figures | {"two": judge_accuracy([verdicts[i] for i in both], [scenes[i] for i in both])["all"]}

    fit(model, batches, losses, config, config.out, evaluate)
    parts = {"unet": model.unet, "text_encoder": model.text_encoder, "tokenizer": tokenizer, "scheduler": scheduler}
    for name, part in parts.items():
        save_result(part, config.out / name)


if __name__ == "__main__":
    run_program(main, DiffusionConfig, __doc__)
