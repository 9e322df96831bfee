"""Write another reader, or another painter around the miniature's VAE, of the miniature's size and untrained.

    python training/miniature/new_parts.py painter --data runs/mini/data --out runs/others/painter
    python training/miniature/new_parts.py reader --data runs/mini/data --out runs/others/reader

`training/finetune_diffusion.py` and `training/miniature/pretrain_comprehension.py` train them, `minigpt5 join` joins them.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from minigpt5.data.readers import read_cc3m
from minigpt5.storyworld.others import build_flow_painter, build_qwen, build_qwen_processor
from minigpt5.utils.logs import quiet_libraries
from minigpt5.weights import SHIPPED

TEXTS = 20_000


def main():
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("reader", "painter"), help="shaped as Qwen2.5-VL, or as Stable Diffusion 3")
    parser.add_argument("--data", type=Path, required=True, help="exported data sets, for tokenizers")
    parser.add_argument("--vae", type=Path, default=SHIPPED / "storyworld-mini/vae", help="default: the shipped one")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    arguments = parser.parse_args()
    captions = read_cc3m(arguments.data / "cc3m", "train")["caption"][:TEXTS]
    torch.manual_seed(arguments.seed)
    if arguments.part == "painter":
        vae = AutoencoderKL.from_pretrained(arguments.vae)
        build_flow_painter(captions, vae).save_pretrained(arguments.out)
    else:
        processor = build_qwen_processor(captions)
        build_qwen(processor).save_pretrained(arguments.out)
        processor.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
