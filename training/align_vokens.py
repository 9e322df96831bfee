r"""Unimodal alignment, the first stage: teach vokens and mapper to paint captions.

    python training/align_vokens.py --config configs/minigpt5-7b/align.yaml \
        --data DATA --model MODEL --out runs/7b/align
"""

from minigpt5.published.joined import SHAPES
from minigpt5.training.stages import AlignConfig, begin_alignment, train_vokens
from minigpt5.utils.programs import run_program


def main(config: AlignConfig):
    train_vokens(begin_alignment(config, SHAPES), config)


if __name__ == "__main__":
    run_program(main, AlignConfig, __doc__, many_processes=True)
