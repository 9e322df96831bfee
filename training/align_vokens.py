"""Unimodal alignment, the first stage: teach vokens and mapper to paint captions.

    python training/align_vokens.py --config configs/storyworld-mini/align.yaml \\
        --data runs/mini/data --model runs/mini/base --out runs/mini/align
"""

import random
from pathlib import Path

import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.alignment import LossWeights, VokenModel, add_lora, add_voken_rows
from minigpt5.config import read_settings, stage_arguments
from minigpt5.data.readers import read_cc3m, read_mmdialog
from minigpt5.data.tasks import caption_task, dialogue_task, draw_task
from minigpt5.fit import fit, is_main_process, pick_device, shard
from minigpt5.logs import quiet_libraries
from minigpt5.storyworld.examine import examine_painting, sample_scenes
from minigpt5.storyworld.judge import NamingHead, load_judge
from minigpt5.storyworld.language import imagine, plain_caption


def main():
    quiet_libraries()
    parser = stage_arguments(__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="pipeline folder to start from")
    parser.add_argument("--judge", type=Path, help="the judge's folder, in place of the shipped one")
    arguments = parser.parse_args()
    loop, settings = read_settings(arguments)
    pipe = MiniGPT5Pipeline.from_pretrained(arguments.model).to(pick_device())
    pipe.set_progress_bar_config(disable=True)
    pairs = read_cc3m(arguments.data / "cc3m", "train")
    talks = read_mmdialog(arguments.data / "mmdialog", "train")

    adapted = add_lora(pipe, **settings["lora"]) if settings["lora"] else add_voken_rows(pipe)
    model = VokenModel(pipe, LossWeights(**settings["weights"]))
    model.namer = NamingHead(pipe.processor.n_vokens * pipe.mapper.config.voken_dim).to(pipe.device)
    # Until the mapper speaks roughly like the text encoder, the costly diffusion loss teaches nothing.
    warm = LossWeights(**settings["weights"] | {"diffusion": 0.0})

    def batches(step):
        rng = random.Random(f"align/{step}")
        conversations, scenes = [], []
        tasks = [(task, random.Random(rng.random())) for task, count in settings["mix"].items() for _ in range(count)]
        for task, own in shard(tasks):
            rows = talks if task == "talk" else pairs
            row = rows[own.randrange(len(rows))]
            if task == "talk":
                conversations.append(dialogue_task(row["texts"], row["images"], own, paint=False))
            elif task == "caption":
                conversations.append(caption_task(row["caption"], row["image"], own))
            else:
                conversations.append(draw_task(row["caption"], row["image"], own))
                scenes.append(imagine(row["caption"]))
        return pipe.processor.training_batch(conversations).to(pipe.device), scenes

    full = model.weights

    def losses(batch, step):
        model.weights = warm if step < settings["caption_only_steps"] else full
        inputs, scenes = batch

        def naming(features):
            return settings["naming_weight"] * model.namer.loss(features, scenes)

        # However a prompt is worded, its picture is described in the same words: vokens carry meaning, not wording.
        return model(inputs, [plain_caption(scene) for scene in scenes], naming)

    judge = load_judge(arguments.judge)
    examined = {
        "one": sample_scenes(50, "validation", companion=False),
        "two": sample_scenes(50, "validation", companion=True),
    }

    def evaluate():
        return {name: examine_painting(pipe, these, judge)["all"] for name, these in examined.items()}

    adapters = [parameter for parameter in pipe.comprehension.parameters() if parameter.requires_grad]
    groups = [
        {"params": adapters, "lr": loop.learning_rate},
        {"params": list(pipe.mapper.parameters()), "lr": settings["mapper_rate"] * loop.learning_rate},
        {"params": list(model.namer.parameters()), "lr": loop.learning_rate},
    ]
    fit(model, batches, losses, loop, arguments.out, evaluate, groups)
    if not is_main_process():
        return
    with torch.no_grad():
        print("alignment, 2 × 50 validation captions:", evaluate())
    pipe.comprehension = adapted.merge_and_unload()
    pipe.to(torch.float16).save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
