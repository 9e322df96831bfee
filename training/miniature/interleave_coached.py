r"""The miniature's second stage: as `training/train_interleaved.py`, with a coach who knows what the pictures show.

    python training/miniature/interleave_coached.py --config configs/storyworld-mini/interleaved.yaml \
        --data runs/mini/data --model runs/mini/mapper/model --out runs/mini/interleaved
"""

from dataclasses import dataclass

from minigpt5.storyworld.coach import CoachSettings, StoryCoach
from minigpt5.training.fit import best_of
from minigpt5.training.stages import InterleavedConfig, begin_interleaving, train_vokens
from minigpt5.utils.programs import run_program


@dataclass(kw_only=True)
class CoachedInterleavedConfig(CoachSettings, InterleavedConfig):
    """The second stage, coached."""

    best: str | None = best_of(None, "all_five", "said", "shown", "agrees", "one", "minus_loss")


def main(config: CoachedInterleavedConfig):
    pipe = begin_interleaving(config)
    train_vokens(pipe, config, StoryCoach(pipe, config))


if __name__ == "__main__":
    run_program(main, CoachedInterleavedConfig, __doc__, many_processes=True)
