"""Talks in MMDialog's layout: replies in batches, then figures (arXiv 2310.02239, table 5).

    python evaluation/evaluate_dialogue.py --data runs/mini/data/mmdialog --count 50 --judge storyworld --out runs/talks
    accelerate launch evaluation/evaluate_dialogue.py …

Whether a turn shows a picture is the system's choice. Writes `results.json` and `results.md`. A run that was stopped
goes on where it was.
"""

from minigpt5.evaluation.items import dialogue_items
from minigpt5.evaluation.measure import Measurements
from minigpt5.evaluation.report import write_report
from minigpt5.evaluation.storyworld import judged_bounds, read_truth, storyworld_columns
from minigpt5.evaluation.systems import answer, evaluation_arguments, metric_weights, read_arguments
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import is_main_process


def main():
    quiet_libraries()
    arguments = read_arguments(evaluation_arguments(__doc__.splitlines()[0], "mmdialog", clip="ViT-B/32"))
    columns = storyworld_columns(read_truth(arguments.data, arguments.split)) if arguments.judge else {}
    items = dialogue_items(arguments.data, arguments.split, arguments.count, arguments.prompts)
    replies = answer(arguments, items)
    if not is_main_process():
        return

    measurements = Measurements(items, replies, metric_weights(arguments), columns)
    measurements.measure()
    bounds = judged_bounds(measurements) if arguments.judge else None
    write_report(arguments.out, "Dialogue", replies.settings, measurements, bounds)
    print(arguments.out / "results.md")


if __name__ == "__main__":
    main()
