r"""Put the separately trained parts together as one pipeline folder, its vokens and mapper still untrained.

    python training/miniature/assemble_pipeline.py --comprehension runs/mini/comprehension \
        --diffusion runs/mini/diffusion --vae runs/mini/vae/model --out runs/mini/base
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import AutoTokenizer, Blip2ForConditionalGeneration, CLIPTextModel

from minigpt5 import MiniGPT5Pipeline, MiniGPT5Processor
from minigpt5.storyworld.miniature import build_mapper
from minigpt5.training.results import save_result
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import Settings, setting


@dataclass(kw_only=True)
class AssembleConfig(Settings):
    """The parts."""

    comprehension: Path = setting(help="folder with processor/ and model/")
    diffusion: Path = setting(help="folder with unet/, text_encoder/, tokenizer/ and scheduler/")
    vae: Path = setting(help="the VAE's folder")
    out: Path = setting(help="folder to write the pipeline to")
    seed: int = setting(0, least=0, most=2**32 - 1, help="of the mapper's weights")


def main(config: AssembleConfig):
    with opening(config.comprehension):
        processor = MiniGPT5Processor.from_pretrained(config.comprehension / "processor")
        comprehension = load_whole(Blip2ForConditionalGeneration, config.comprehension / "model")
    comprehension.generation_config.update(
        max_new_tokens=48, do_sample=False, repetition_penalty=1.0, stop_strings=["###"]
    )
    with opening(config.diffusion):
        unet = load_whole(UNet2DConditionModel, config.diffusion / "unet")
        scheduler = DDIMScheduler.from_pretrained(config.diffusion / "scheduler", trust_remote_code=False)
        text_encoder = load_whole(CLIPTextModel, config.diffusion / "text_encoder")
        tokenizer = AutoTokenizer.from_pretrained(config.diffusion / "tokenizer", trust_remote_code=False)
    with opening(config.vae):
        vae = load_whole(AutoencoderKL, config.vae)
    torch.manual_seed(config.seed)
    pipe = MiniGPT5Pipeline(
        processor=processor,
        comprehension=comprehension,
        mapper=build_mapper(),
        unet=unet,
        vae=vae,
        scheduler=scheduler,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        # What more paints is judged no better, by `evaluation/evaluate_steps.py`.
        guidance_scale=1.0,
        num_inference_steps=6,
    )
    save_result(pipe, config.out)


if __name__ == "__main__":
    run_program(main, AssembleConfig, __doc__)
