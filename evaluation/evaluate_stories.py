"""Stories in VIST's layout: replies in batches, then figures (arXiv 2310.02239, tables 1 to 3).

    python evaluation/evaluate_stories.py --data runs/mini/data/vist --count 50 --judge storyworld --out runs/stories
    accelerate launch evaluation/evaluate_stories.py …

The final step's picture under no, text, image and image-text context; every step's picture after the true steps before
it; and text and picture of every next step. Writes `results.json` and `results.md`. A run that was stopped goes on
where it was.
"""

from minigpt5.evaluation.figures import Measurements
from minigpt5.evaluation.items import STORY_TASKS, story_items
from minigpt5.evaluation.report import write_report
from minigpt5.evaluation.storyworld import JudgedMeasurements, read_truth
from minigpt5.evaluation.systems import answer, evaluation_arguments, metric_weights
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import is_main_process


def main():
    quiet_libraries()
    parser = evaluation_arguments(__doc__.splitlines()[0], "vist", clip="ViT-L/14")
    parser.add_argument("--tasks", nargs="+", choices=STORY_TASKS, default=STORY_TASKS, help="default: all")
    arguments = parser.parse_args()
    truth = read_truth(arguments.data, arguments.split) if arguments.judge else {}
    items = story_items(arguments.data, arguments.split, arguments.count, arguments.prompts, arguments.tasks)
    replies = answer(arguments, items)
    if not is_main_process():
        return

    measurements = Measurements(items, replies, metric_weights(arguments))
    tasks = list(measurements.tasks.values())
    steps = [task for task in tasks if task.name == "every step"]
    told = [task for task in tasks if task.name == "next step"]
    measurements.pictures(tasks)
    measurements.told_pictures([task for task in tasks if task not in told])
    for task in steps:
        measurements.published_fid(task)
    # The diffusion model alone says nothing.
    spoken = [task for task in told if any(task.texts)]
    measurements.texts(spoken)
    judged = JudgedMeasurements(measurements, truth)
    if arguments.judge:
        judged.pictures(tasks)
        for task in steps:
            judged.heroes(task)
        for task in spoken:
            judged.texts(task)
            judged.coherence(task)
    write_report(arguments.out, "Stories", replies.settings, measurements, judged.bounds)
    print(arguments.out / "results.md")


if __name__ == "__main__":
    main()
