r"""The miniature's first stage: as `training/align_vokens.py`, with a coach who knows what StoryWorld's pictures show.

    python training/miniature/align_coached.py --config configs/storyworld-mini/align.yaml \
        --data runs/mini/data --model runs/mini/questions/model --out runs/mini/align
"""

from dataclasses import dataclass

from minigpt5.storyworld.coach import CaptionCoach, CoachSettings
from minigpt5.training.fit import best_of
from minigpt5.training.stages import AlignConfig, begin_alignment, train_vokens
from minigpt5.utils.programs import run_program


@dataclass(kw_only=True)
class CoachedAlignConfig(CoachSettings, AlignConfig):
    """The first stage, coached."""

    best: str | None = best_of(None, "one", "two", "minus_loss")


def main(config: CoachedAlignConfig):
    pipe = begin_alignment(config)
    train_vokens(pipe, config, CaptionCoach(pipe, config))


if __name__ == "__main__":
    run_program(main, CoachedAlignConfig, __doc__, many_processes=True)
