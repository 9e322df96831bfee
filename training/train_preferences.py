r"""Learn from pairs of a better and a worse reply to the same request (DPO, arXiv 2305.18290).

    python training/train_preferences.py --config configs/storyworld-mini/preferences.yaml \
        --data data/chat/preferences --model MODEL --out runs/preferences

The pairs are those of `minigpt5 feedback export`. The result, OUT/model, is a pipeline's folder or a reader's, as the
start was.
"""

from minigpt5.training.preferences import PreferenceConfig, train_preferences
from minigpt5.utils.programs import run_program


def main(config: PreferenceConfig):
    train_preferences(config)


if __name__ == "__main__":
    run_program(main, PreferenceConfig, __doc__, many_processes=True)
