r"""Fit the mapper alone, with the language model frozen: its voken features are computed once and kept in memory.

    python training/miniature/fit_mapper.py --config configs/storyworld-mini/mapper.yaml \
        --data runs/mini/data --model runs/mini/align/model --out runs/mini/mapper
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.readers import read_cc3m
from minigpt5.data.tasks import draw_task
from minigpt5.storyworld.examine import examine_painting, sample_scenes
from minigpt5.storyworld.judge import load_judge
from minigpt5.storyworld.language import imagine, plain_caption
from minigpt5.training.fit import FitConfig, best_of, fit
from minigpt5.training.losses import caption_loss, drop_for_guidance
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.training.results import save_result
from minigpt5.utils.processes import is_main_process, pick_device, shard, share_of_batch
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class MapperConfig(FitConfig):
    """The mapper."""

    data: Path = setting(help="folder of the exported data sets")
    model: Path = setting(help="pipeline folder of the alignment")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    judge: Path | None = setting(None, help="the judge's folder, in place of the shipped one", rejudge=True)
    captions: int = setting(least=1, help="how many of the training captions are used")
    guidance_dropout: float = setting(least=0, most=1, help="share of voken features that become zeros")
    best: str = best_of("one", "two")


def main(config: MapperConfig):
    with opening(f"the model {config.model}"):
        pipe = MiniGPT5Pipeline.from_pretrained(config.model).to(pick_device())
    pipe.set_progress_bar_config(disable=True)
    model = VokenModel(pipe, LossWeights(mask_padding=False)).eval()
    pairs = read_cc3m(config.data / "cc3m", "train")
    pairs = pairs.select(shard(range(min(config.captions, len(pairs)))))
    rng = random.Random(f"mapper/{config.seed}")

    @torch.no_grad()
    def features_and_targets(start):
        rows = pairs[start : start + 100]
        chats = [draw_task(*pair, rng) for pair in zip(rows["caption"], rows["image"], strict=True)]
        batch = pipe.reader.training_batch(chats).to(pipe.device)
        features = pipe.reader.prefill(batch).features
        captions = [plain_caption(imagine(caption)) for caption in rows["caption"]]
        return model.voken_features(features, batch["input_ids"]), model.encode_captions(captions)

    columns = zip(*(features_and_targets(start) for start in range(0, len(pairs), 100)), strict=True)
    features, told = (list(column) for column in columns)
    features, targets = torch.cat(features), {name: torch.cat([one[name] for one in told]) for name in told[0]}
    nothing = model.encode_captions([""])
    print(f"mapper: {len(features)} captions' voken features are ready", flush=True)

    def batches(step):
        count = len(shard(range(config.batch_size)))
        chosen = torch.randint(len(features), (count,), device=features.device)
        return features[chosen], {name: column[chosen] for name, column in targets.items()}

    def losses(batch, step):
        features, targets = batch
        dropped = drop_for_guidance(len(features), config.guidance_dropout, features.device)
        mapped = pipe.mapper.conditioning(features.masked_fill(dropped.view(-1, 1, 1), 0))
        for name, column in targets.items():
            gone = dropped.view(-1, *[1] * (column.ndim - 1))
            targets[name] = torch.where(gone, nothing[name], column)
        return {"loss": share_of_batch(len(features)) * caption_loss(mapped, targets)}

    judge = load_judge(config.judge)
    examined = {
        "one": sample_scenes(50, "validation", companion=False),
        "two": sample_scenes(50, "validation", companion=True),
    }

    def evaluate():
        return {name: examine_painting(pipe, these, judge)["all"] for name, these in examined.items()}

    fit(pipe.mapper, batches, losses, config, config.out, evaluate)
    if is_main_process():
        save_result(pipe, config.out / "model")


if __name__ == "__main__":
    run_program(main, MapperConfig, __doc__, many_processes=True)
