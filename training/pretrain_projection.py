r"""A reader's first stage: its connector learns to show pictures to the language model, from captions alone.

    accelerate launch training/pretrain_projection.py --config configs/storyworld-mini/projection.yaml \
        --data runs/mini/data --model runs/mini/qformer/model --out runs/mini/projection

MiniGPT-4's projection, or any reader's connector; `trains` names what else of it trains, and everything else is frozen.
A picture without a word is the prompt, its caption the reply. The result, OUT/model, is a pipeline's folder or a
reader's, as the start was.
"""

from dataclasses import dataclass

from minigpt5.data.mixture import PAIR_TASKS
from minigpt5.training.reading import ReadingConfig, train_reading
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class ProjectionConfig(ReadingConfig):
    """The connector's first stage."""

    # Beside pairs, chats of one's own: some systems keep their language model with texts alone.
    tasks = (*PAIR_TASKS, "chat")

    fresh: bool = setting(
        False,
        help="begin with a random connector instead of the reader's, as where its Q-Former is a new one",
        fixed="it says how a run begins",
    )


def main(config: ProjectionConfig):
    train_reading(config, config.fresh)


if __name__ == "__main__":
    run_program(main, ProjectionConfig, __doc__, many_processes=True)
