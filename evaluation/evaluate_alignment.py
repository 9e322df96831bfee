"""Caption to picture on data in CC3M's layout: replies in batches, then figures (arXiv 2310.02239, tables 1 and 6).

    python evaluation/evaluate_alignment.py --data runs/mini/data/cc3m --count 200 --judge storyworld --out runs/pairs
    accelerate launch evaluation/evaluate_alignment.py …

Writes `results.json` and `results.md`. A run that was stopped goes on where it was.
"""

from dataclasses import dataclass
from typing import ClassVar

from minigpt5.evaluation.items import alignment_items
from minigpt5.evaluation.run import evaluate
from minigpt5.evaluation.systems import EvaluationConfig, with_split
from minigpt5.utils.programs import run_program


@dataclass(kw_only=True)
class AlignmentEvaluation(EvaluationConfig):
    """Captions."""

    layout: ClassVar[str] = "cc3m"


def main(config: AlignmentEvaluation):
    config = with_split(config)
    items = alignment_items(config.data, str(config.split), config.count, config.prompts)
    evaluate(config, "Caption to picture", items)


if __name__ == "__main__":
    run_program(main, AlignmentEvaluation, __doc__, many_processes=True)
