"""Caption to picture on data in CC3M's layout: replies in batches, then figures (arXiv 2310.02239, tables 1 and 6).

    python evaluation/evaluate_alignment.py --data runs/mini/data/cc3m --count 200 --judge storyworld --out runs/pairs
    accelerate launch evaluation/evaluate_alignment.py …

Writes `results.json` and `results.md`. A run that was stopped goes on where it was.
"""

from minigpt5.evaluation.items import alignment_items
from minigpt5.evaluation.measure import Measurements
from minigpt5.evaluation.report import write_report
from minigpt5.evaluation.storyworld import judged_bounds, read_truth, storyworld_columns
from minigpt5.evaluation.systems import answer, evaluation_arguments, metric_weights, read_arguments
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import is_main_process


def main():
    quiet_libraries()
    arguments = read_arguments(evaluation_arguments(__doc__.splitlines()[0], "cc3m", clip="ViT-L/14"))
    columns = storyworld_columns(read_truth(arguments.data, arguments.split)) if arguments.judge else {}
    items = alignment_items(arguments.data, arguments.split, arguments.count, arguments.prompts)
    replies = answer(arguments, items)
    if not is_main_process():
        return

    measurements = Measurements(items, replies, metric_weights(arguments), columns)
    measurements.measure()
    bounds = judged_bounds(measurements) if arguments.judge else None
    write_report(arguments.out, "Caption to picture", replies.settings, measurements, bounds)
    print(arguments.out / "results.md")


if __name__ == "__main__":
    main()
