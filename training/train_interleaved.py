r"""Multimodal learning, the second stage: interleaved stories and talks.

    python training/train_interleaved.py --config configs/minigpt5-7b/interleaved-vist.yaml \
        --data DATA --model MODEL --adapter runs/7b/align/adapter --out runs/7b/vist
"""

from minigpt5.published.joined import SHAPES
from minigpt5.training.stages import InterleavedConfig, begin_interleaving, train_vokens
from minigpt5.utils.programs import run_program


def main(config: InterleavedConfig):
    train_vokens(begin_interleaving(config, SHAPES), config)


if __name__ == "__main__":
    run_program(main, InterleavedConfig, __doc__, many_processes=True)
