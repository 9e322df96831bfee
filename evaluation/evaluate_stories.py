"""Stories in VIST's layout: replies in batches, then figures (arXiv 2310.02239, tables 1 to 3).

    python evaluation/evaluate_stories.py --data runs/mini/data/vist --count 50 --judge storyworld --out runs/stories
    accelerate launch evaluation/evaluate_stories.py …

The final step's picture under no, text, image and image-text context; every step's picture after the true steps before
it; and text and picture of every next step. Writes `results.json` and `results.md`. A run that was stopped goes on
where it was.
"""

from dataclasses import dataclass
from typing import ClassVar

from minigpt5.evaluation.items import STORY_TASKS, story_items
from minigpt5.evaluation.run import evaluate
from minigpt5.evaluation.systems import EvaluationConfig, with_split
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class StoryEvaluation(EvaluationConfig):
    """Stories."""

    layout: ClassVar[str] = "vist"
    tasks: tuple[str, ...] = setting(STORY_TASKS, choices=STORY_TASKS, help="what is asked")


def main(config: StoryEvaluation):
    config = with_split(config)
    items = story_items(config.data, str(config.split), config.count, config.prompts, config.tasks)
    evaluate(config, "Stories", items)


if __name__ == "__main__":
    run_program(main, StoryEvaluation, __doc__, many_processes=True)
