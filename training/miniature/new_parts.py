"""Write an untrained reader or painter of the miniature's size: another one to join, or one for pictures of one's own.

    python training/miniature/new_parts.py flow-painter --data runs/mini/data --out runs/others/painter
    python training/miniature/new_parts.py reader --data runs/mini/data --out runs/others/reader

The reader is shaped as Qwen2.5-VL, the flow painter as SD 3. `training/finetune_diffusion.py` trains a painter,
`training/miniature/pretrain_reader.py` a reader.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from minigpt5.data.readers import read_cc3m
from minigpt5.storyworld import miniature, others
from minigpt5.utils.files import whole_folder
from minigpt5.utils.integrity import load_whole
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import Settings, setting
from minigpt5.weights import SHIPPED

TEXTS = 20_000
MINIATURE = SHIPPED / "storyworld-mini"


@dataclass(kw_only=True)
class PartConfig(Settings):
    """The new part."""

    part: str = setting(choices=("reader", "unet-painter", "flow-painter"), positional=True, help="what to make")
    data: Path = setting(help="folder with cc3m/, whose captions tokenizers learn")
    vae: Path = setting(MINIATURE / "vae", help="the unet-painter's")
    out: Path = setting(help="folder to write to")
    seed: int = setting(0, least=0, most=2**32 - 1, help="of the weights")


def unet_painter(captions: list[str], vae: AutoencoderKL) -> StableDiffusionPipeline:
    """The miniature's own shape, untrained."""
    tokenizer = miniature.build_tokenizer(captions, lowercase=True, max_length=miniature.TEXT_LENGTH)
    parts = (miniature.build_text_encoder(tokenizer), tokenizer, miniature.build_unet(), miniature.build_scheduler())
    return StableDiffusionPipeline(vae, *parts, None, None, requires_safety_checker=False)


def main(config: PartConfig):
    captions = list(read_cc3m(config.data / "cc3m", "train")["caption"][:TEXTS])
    torch.manual_seed(config.seed)
    if config.part == "reader":
        processor = others.build_qwen_processor(captions)
        reader = others.build_qwen(processor)
        with whole_folder(config.out, "config.json") as folder:
            reader.save_pretrained(folder)
            processor.save_pretrained(folder)
        return
    if config.part == "flow-painter":
        painter = others.build_flow_painter(MINIATURE)
    else:
        with opening(f"the VAE {config.vae}"):
            vae = load_whole(AutoencoderKL, config.vae)
        painter = unet_painter(captions, vae)
    with whole_folder(config.out, "model_index.json") as folder:
        painter.save_pretrained(folder)


if __name__ == "__main__":
    run_program(main, PartConfig, __doc__)
