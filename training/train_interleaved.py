"""Multimodal learning, the second stage: interleaved stories and talks.

    python training/train_interleaved.py --config configs/storyworld-mini/interleaved.yaml \\
        --data runs/mini/data --model runs/mini/mapper/model --out runs/mini/interleaved
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
class InterleavedConfig(FitConfig):
    """Settings of the second stage.

    Args:
        data: folder with the data sets, each in a folder by its name: cc3m, vist, mmdialog, chat.
        layouts: another layout for one of them, as {vist: vist-raw}.
        model: pipeline folder to start from: the base, or one with the first stage folded in.
        adapter: adapter folder of the first stage, where `model` is the base.
        dtype: of the frozen weights; what trains is float32.
        out: folder for checkpoints and the result.
        mix: conversations a batch by task; batch_size is their sum.
        max_bad_share: share of missing or broken pictures that stops the run.
        lora: adapters of the language model.
        prefix_length: keys and values of prefix tuning, in place of LoRA; 0 for none.
        weights: of the losses.
        mapper_rate: the learning rate of the mapper's transformer over the vokens'.
        caption_only_steps: steps before the diffusion loss comes in.
        gradient_checkpointing: compute activations twice to keep fewer.
        cache_features: folder to keep the frozen parts' features in.
        coached: the data are StoryWorld's, whose ground truth helps and judges.
        naming_weight: of the coach's naming head.
        judge: the judge's folder, in place of the shipped one.
        judged: validation stories of an evaluation.
        fuse: also write the whole pipeline, with all that was trained folded in.
    """

    data: Path
    layouts: dict = field(default_factory=dict)
    model: Path
    adapter: Path | None = None
    dtype: str = "float32"
    out: Path
    mix: dict
    max_bad_share: float = 0.01
    lora: LoraSettings | None = None
    prefix_length: int = 0
    weights: LossWeights = field(default_factory=lambda: LossWeights(caption=0.0))
    mapper_rate: float = 1.0
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
        if self.prefix_length and (self.fuse or self.lora):
            raise ValueError("prefix_length: a prefix takes the place of lora, and cannot be fused")


def main():
    quiet_libraries()
    config = read_config(InterleavedConfig, __doc__)
    pipe = open_for_training(config.model, config.dtype, config.gradient_checkpointing, config.dry_run)
    if config.adapter:
        pipe.load_adapter(config.adapter)
    train_adapter(pipe, config.lora, config.prefix_length)
    pipe.mapper.fc.requires_grad_(False)
    pipe.mapper.queries.requires_grad_(False)
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
        return pipe.processor.training_batch([one.item for one in source(index)])

    # The diffusion loss costs more than all else together, and teaches little before the caption loss is low.
    full, warm = config.weights, dataclasses.replace(config.weights, diffusion=0.0)

    def losses(inputs, step):
        model.weights = warm if step < config.caption_only_steps else full
        return model(inputs, *model.coach.instruct(inputs["targets"])) if model.coach else model(inputs)

    def evaluate():
        figures = model.coach.examine_stories(pipe, config.judged) if model.coach else {}
        fresh = [send_to_device(batches(index, held_back), pipe.device) for index in range(2)]
        figures["minus_loss"] = -validation_loss(losses, fresh, config.steps)
        questions = held_back.questions(4)
        return figures | ({"painted": sample_grid(pipe, questions)} if questions else {})

    groups = [
        {"params": [p for p in pipe.comprehension.parameters() if p.requires_grad], "lr": config.learning_rate},
        {"params": list(pipe.mapper.transformer.parameters()), "lr": config.mapper_rate * config.learning_rate},
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
