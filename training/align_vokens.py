"""Unimodal alignment, the first stage: teach vokens and mapper to paint captions.

    python training/align_vokens.py --config configs/storyworld-mini/align.yaml \\
        --data runs/mini/data --model runs/mini/base --out runs/mini/align
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.utils import send_to_device

from minigpt5.adapters import LoraSettings, fuse_adapter, save_adapter, train_adapter
from minigpt5.alignment import LossWeights, VokenModel, open_for_training, sample_grid, validation_loss
from minigpt5.config import read_config
from minigpt5.cost import cost_table, training_cost
from minigpt5.data.mixture import Mixture, check_mix
from minigpt5.fit import FitConfig, fit
from minigpt5.logs import quiet_libraries
from minigpt5.processes import is_main_process
from minigpt5.storyworld.coach import Coach


@dataclass(kw_only=True)
class AlignConfig(FitConfig):
    """Settings of the first stage.

    Args:
        data: folder with the data sets, each in a folder by its name: cc3m, vist, mmdialog, chat.
        layouts: another layout for one of them, as {cc3m: cc3m-shards}.
        model: pipeline folder to start from.
        dtype: of the frozen weights; what trains is float32.
        out: folder for checkpoints and the result.
        mix: conversations a batch by task; batch_size is their sum.
        max_bad_share: share of missing or broken pictures that stops the run.
        lora: adapters of the language model, which the published first stage leaves alone.
        weights: of the losses.
        mapper_rate: the mapper's learning rate over the vokens'.
        caption_only_steps: steps before the diffusion loss comes in.
        gradient_checkpointing: compute activations twice to keep fewer.
        cache_features: folder to keep the frozen parts' features in.
        coached: the data are StoryWorld's, whose ground truth helps and judges.
        naming_weight: of the coach's naming head.
        judge: the judge's folder, in place of the shipped one.
        judged: validation captions of an evaluation.
        fuse: also write the whole pipeline, with all that was trained folded in.
    """

    data: Path
    layouts: dict = field(default_factory=dict)
    model: Path
    dtype: str = "float32"
    out: Path
    mix: dict
    max_bad_share: float = 0.01
    lora: LoraSettings | None = None
    weights: LossWeights = field(default_factory=LossWeights)
    mapper_rate: float = 10.0
    caption_only_steps: int = 0
    gradient_checkpointing: bool = False
    cache_features: Path | None = None
    coached: bool = False
    naming_weight: float = 0.0
    judge: Path | None = None
    judged: int = 50
    fuse: bool = False

    def __post_init__(self):
        check_mix(self.mix, self.batch_size)


def main():
    quiet_libraries()
    config = read_config(AlignConfig, __doc__)
    pipe = open_for_training(config.model, config.dtype, config.gradient_checkpointing, config.dry_run)
    train_adapter(pipe, config.lora)
    model = VokenModel(pipe, config.weights)
    if config.dry_run:
        print(cost_table(training_cost(model, config.ema_decay is not None)))
        return
    draw = Mixture(config.data, config.mix, "train", config.layouts, config.seed, config.max_bad_share)
    held_back = Mixture(config.data, config.mix, "validation", config.layouts, config.seed, config.max_bad_share)
    if config.cache_features:
        model.cache_features(config.cache_features)
    model.coach = Coach(pipe, config.naming_weight, config.judge).to(pipe.device) if config.coached else None

    def batches(index, source=draw):
        drawn = source(index)
        captions = [one.caption for one in drawn if one.caption is not None]
        return pipe.processor.training_batch([one.item for one in drawn]), captions

    # Until the mapper speaks roughly like the text encoder, the costly diffusion loss teaches nothing.
    full, warm = config.weights, dataclasses.replace(config.weights, diffusion=0.0)

    def losses(batch, step):
        inputs, captions = batch
        model.weights = warm if step < config.caption_only_steps else full
        if model.coach:
            # However a prompt is worded, its picture is described alike: vokens carry meaning, not wording.
            captions, naming = model.coach.instruct(inputs["targets"])
            return model(inputs, captions, naming)
        return model(inputs, captions)

    def evaluate():
        figures = model.coach.examine_captions(pipe, config.judged) if model.coach else {}
        fresh = [send_to_device(batches(index, held_back), pipe.device) for index in range(2)]
        figures["minus_loss"] = -validation_loss(losses, fresh, config.steps)
        return figures | {"painted": sample_grid(pipe, held_back.questions(4))}

    groups = [
        {"params": [p for p in pipe.comprehension.parameters() if p.requires_grad], "lr": config.learning_rate},
        {"params": list(pipe.mapper.parameters()), "lr": config.mapper_rate * config.learning_rate},
    ]
    if model.coach:
        groups.append({"params": list(model.coach.parameters()), "lr": config.learning_rate})
    fit(model, batches, losses, config, config.out, evaluate, groups)
    if is_main_process():
        save_adapter(pipe, config.out / "adapter", str(config.model))
        if config.fuse:
            fuse_adapter(pipe.comprehension)
            pipe.to(torch.float16).save_pretrained(config.out / "model")


if __name__ == "__main__":
    main()
