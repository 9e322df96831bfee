"""Talks in MMDialog's layout: replies in batches, then figures (arXiv 2310.02239, table 5).

    python evaluation/evaluate_dialogue.py --data runs/mini/data/mmdialog --count 50 --judge storyworld --out runs/talks
    accelerate launch evaluation/evaluate_dialogue.py …

Whether a turn shows a picture is the system's choice. Writes `results.json` and `results.md`. A run that was stopped
goes on where it was.
"""

from dataclasses import dataclass
from typing import ClassVar

from minigpt5.evaluation.items import dialogue_items
from minigpt5.evaluation.run import evaluate
from minigpt5.evaluation.systems import EvaluationConfig, with_split
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class DialogueEvaluation(EvaluationConfig):
    """Talks."""

    layout: ClassVar[str] = "mmdialog"
    # What the published code takes for talks.
    clip: str = setting("ViT-B/32", help="name, file or folder of a CLIP model")


def main(config: DialogueEvaluation):
    config = with_split(config)
    items = dialogue_items(config.data, str(config.split), config.count, config.prompts)
    evaluate(config, "Dialogue", items)


if __name__ == "__main__":
    run_program(main, DialogueEvaluation, __doc__, many_processes=True)
