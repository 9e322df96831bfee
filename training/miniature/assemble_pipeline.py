"""Put the separately trained parts together as one pipeline folder, its vokens and mapper still untrained.

    python training/miniature/assemble_pipeline.py --comprehension runs/mini/comprehension \\
        --diffusion runs/mini/diffusion --vae runs/mini/vae/model --out runs/mini/base
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import AutoTokenizer, Blip2ForConditionalGeneration, CLIPTextModel

from minigpt5 import MiniGPT5Pipeline, MiniGPT5Processor
from minigpt5.storyworld.miniature import build_mapper
from minigpt5.utils.logs import quiet_libraries


def main():
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, what in (
        ("comprehension", "folder with processor/ and model/"),
        ("diffusion", "folder with unet/, text_encoder/, tokenizer/ and scheduler/"),
        ("vae", "the VAE's folder"),
        ("out", "folder to write the pipeline to"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=what)
    arguments = parser.parse_args()

    comprehension = Blip2ForConditionalGeneration.from_pretrained(arguments.comprehension / "model")
    comprehension.generation_config.update(
        max_new_tokens=48, do_sample=False, repetition_penalty=1.0, stop_strings=["###"]
    )
    torch.manual_seed(0)
    pipe = MiniGPT5Pipeline(
        processor=MiniGPT5Processor.from_pretrained(arguments.comprehension / "processor"),
        comprehension=comprehension,
        mapper=build_mapper(),
        unet=UNet2DConditionModel.from_pretrained(arguments.diffusion / "unet"),
        vae=AutoencoderKL.from_pretrained(arguments.vae),
        scheduler=DDIMScheduler.from_pretrained(arguments.diffusion / "scheduler"),
        text_encoder=CLIPTextModel.from_pretrained(arguments.diffusion / "text_encoder"),
        tokenizer=AutoTokenizer.from_pretrained(arguments.diffusion / "tokenizer"),
        guidance_scale=2.5,
        num_inference_steps=20,
    )
    pipe.to(torch.float16).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
