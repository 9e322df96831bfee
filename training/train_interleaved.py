"""Multimodal learning, the second stage: interleaved stories and talks, with LoRA on the language model.

    python training/train_interleaved.py --config configs/storyworld-mini/interleaved.yaml \\
        --data runs/mini/data --model runs/mini/mapper/model --out runs/mini/interleaved
"""

import random
from pathlib import Path

import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.alignment import LossWeights, VokenModel, add_lora
from minigpt5.config import read_settings, stage_arguments
from minigpt5.data.readers import read_cc3m, read_mmdialog, read_vist
from minigpt5.data.tasks import caption_task, dialogue_task, draw_task, story_tasks
from minigpt5.fit import fit, is_main_process, pick_device, shard
from minigpt5.logs import quiet_libraries
from minigpt5.storyworld.examine import examine_next_step, examine_painting, examine_stories, sample_scenes
from minigpt5.storyworld.judge import NamingHead, load_judge
from minigpt5.storyworld.language import plain_caption


def main():
    quiet_libraries()
    parser = stage_arguments(__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="pipeline folder of the first stage")
    parser.add_argument("--judge", type=Path, help="the judge's folder, in place of the shipped one")
    arguments = parser.parse_args()
    loop, settings = read_settings(arguments)
    pipe = MiniGPT5Pipeline.from_pretrained(arguments.model).to(pick_device())
    pipe.set_progress_bar_config(disable=True)
    pairs = read_cc3m(arguments.data / "cc3m", "train")
    stories = read_vist(arguments.data / "vist", "train")
    talks = read_mmdialog(arguments.data / "mmdialog", "train")

    adapted = add_lora(pipe, **settings["lora"])
    pipe.mapper.fc.requires_grad_(False)
    pipe.mapper.queries.requires_grad_(False)
    model = VokenModel(pipe, LossWeights(**settings["weights"]))

    def sample(task, rng):
        if task in ("draw", "caption"):
            row = pairs[rng.randrange(len(pairs))]
            return (draw_task if task == "draw" else caption_task)(row["caption"], row["image"], rng)
        rows, make = (stories, story_tasks) if task == "story" else (talks, dialogue_task)
        row = rows[rng.randrange(len(rows))]
        return make(row["texts"], row["images"], rng)

    def batches(step):
        rng = random.Random(f"interleaved/{step}")
        tasks = [(task, random.Random(rng.random())) for task, count in settings["mix"].items() for _ in range(count)]
        conversations = [sample(task, own) for task, own in shard(tasks)]
        return pipe.processor.training_batch(conversations).to(pipe.device)

    judge = load_judge(arguments.judge)
    model.namer = NamingHead(pipe.processor.n_vokens * pipe.mapper.config.voken_dim).to(pipe.device)
    # The diffusion loss costs more than all else together, and teaches little before the caption loss is low.
    full, warm = model.weights, LossWeights(**settings["weights"] | {"diffusion": 0.0})

    def losses(batch, step):
        # The judge reads what each picture to be painted shows: renders, which it never misreads.
        scenes = [verdict.scene for verdict in judge.read(batch["targets"])]
        model.weights = warm if step < settings["caption_only_steps"] else full

        def naming(features):
            return settings["naming_weight"] * model.namer.loss(features, scenes)

        return model(batch, [plain_caption(scene) for scene in scenes], naming)

    scenes = sample_scenes(50, "validation", companion=False)

    def evaluate():
        said = examine_next_step(pipe, 50, True, "validation", judge)
        shown = examine_next_step(pipe, 50, False, "validation", judge)
        free = examine_stories(pipe, 30, "validation", judge)
        return {
            "said": said["hero"],
            "shown": shown["hero"],
            "agrees": (said["agrees"] + shown["agrees"]) / 2,
            "all_five": free["hero_in_all"],
            "one": examine_painting(pipe, scenes, judge)["all"],
        }

    adapters = [parameter for parameter in pipe.comprehension.parameters() if parameter.requires_grad]
    groups = [
        {"params": adapters, "lr": loop.learning_rate},
        {"params": list(pipe.mapper.transformer.parameters()), "lr": settings["mapper_rate"] * loop.learning_rate},
        {"params": list(model.namer.parameters()), "lr": loop.learning_rate},
    ]
    fit(model, batches, losses, loop, arguments.out, evaluate, groups)
    if not is_main_process():
        return
    with torch.no_grad():
        print("stories, 50 + 50 next steps and 30 stories of the validation split:", evaluate())
    pipe.comprehension = adapted.merge_and_unload()
    pipe.to(torch.float16).save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
