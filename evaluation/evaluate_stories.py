"""Stories in VIST's layout: replies in batches, then figures (arXiv 2310.02239, tables 1 to 3).

    python evaluation/evaluate_stories.py --data runs/mini/data/vist --count 50 --judge storyworld --out runs/stories
    accelerate launch evaluation/evaluate_stories.py …

The final step's picture under no, text, image and image-text context; every step's picture after the true steps before
it; and text and picture of every next step. Writes `results.json` and `results.md`. A run that was stopped goes on
where it was.
"""

from minigpt5.evaluation.items import STORY_TASKS, story_items
from minigpt5.evaluation.measure import Measurements
from minigpt5.evaluation.report import write_report
from minigpt5.evaluation.storyworld import judged_bounds, read_truth, storyworld_columns
from minigpt5.evaluation.systems import answer, evaluation_arguments, metric_weights, read_arguments
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import is_main_process


def main():
    quiet_libraries()
    parser = evaluation_arguments(__doc__.splitlines()[0], "vist", clip="ViT-L/14")
    parser.add_argument("--tasks", nargs="+", choices=STORY_TASKS, default=STORY_TASKS, help="default: all")
    arguments = read_arguments(parser)
    columns = storyworld_columns(read_truth(arguments.data, arguments.split)) if arguments.judge else {}
    items = story_items(arguments.data, arguments.split, arguments.count, arguments.prompts, arguments.tasks)
    replies = answer(arguments, items)
    if not is_main_process():
        return

    measurements = Measurements(items, replies, metric_weights(arguments), columns)
    measurements.measure()
    bounds = judged_bounds(measurements) if arguments.judge else None
    write_report(arguments.out, "Stories", replies.settings, measurements, bounds)
    print(arguments.out / "results.md")


if __name__ == "__main__":
    main()
