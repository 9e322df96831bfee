"""Write an untrained reader or painter of the miniature's size: another one to join, or one for pictures of one's own.

    python training/miniature/new_parts.py flow-painter --data runs/mini/data --out runs/others/painter
    python training/miniature/new_parts.py reader --data runs/mini/data --out runs/others/reader

`training/finetune_diffusion.py` trains a painter, `training/miniature/pretrain_comprehension.py` a reader.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from minigpt5.data.readers import read_cc3m
from minigpt5.storyworld import miniature, others
from minigpt5.utils.logs import quiet_libraries
from minigpt5.weights import SHIPPED

TEXTS = 20_000
MINIATURE = SHIPPED / "storyworld-mini"


def unet_painter(captions: list[str], vae: AutoencoderKL) -> StableDiffusionPipeline:
    """The miniature's own shape, untrained."""
    tokenizer = miniature.build_tokenizer(captions, lowercase=True, max_length=miniature.TEXT_LENGTH)
    parts = (miniature.build_text_encoder(tokenizer), tokenizer, miniature.build_unet(), miniature.build_scheduler())
    return StableDiffusionPipeline(vae, *parts, None, None, requires_safety_checker=False)


def main():
    quiet_libraries()
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog="The reader is shaped as Qwen2.5-VL, the flow painter as SD 3."
    )
    parser.add_argument("part", choices=("reader", "unet-painter", "flow-painter"), help="what to make")
    parser.add_argument("--data", type=Path, required=True, help="folder with cc3m/, whose captions tokenizers learn")
    parser.add_argument("--vae", type=Path, default=MINIATURE / "vae", help="the unet-painter's (default: shipped)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    arguments = parser.parse_args()
    captions = list(read_cc3m(arguments.data / "cc3m", "train")["caption"][:TEXTS])
    torch.manual_seed(arguments.seed)
    if arguments.part == "reader":
        processor = others.build_qwen_processor(captions)
        others.build_qwen(processor).save_pretrained(arguments.out)
        processor.save_pretrained(arguments.out)
        return
    if arguments.part == "flow-painter":
        painter = others.build_flow_painter(MINIATURE)
    else:
        painter = unet_painter(captions, AutoencoderKL.from_pretrained(arguments.vae))
    painter.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
