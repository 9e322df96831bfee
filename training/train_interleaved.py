r"""Multimodal learning, the second stage: interleaved stories and talks.

    python training/train_interleaved.py --config configs/storyworld-mini/interleaved.yaml \
        --data runs/mini/data --model runs/mini/mapper/model --out runs/mini/interleaved
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from minigpt5.storyworld.coach import Coach
from minigpt5.training.fit import best_of, end_dry_run, fit
from minigpt5.training.mixture import check_splits, open_mixture
from minigpt5.training.objective import (
    LossWeights,
    VokenConfig,
    VokenModel,
    open_for_training,
    sample_grid,
    save_trained,
    validation_loss,
)
from minigpt5.utils.processes import is_main_process
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting
from minigpt5.vokens.adapters import train_adapter


@dataclass(kw_only=True)
class InterleavedConfig(VokenConfig):
    """The second stage."""

    adapter: Path | None = setting(None, help="adapter folder of the first stage, where `model` is the base")
    prefix_length: int = setting(
        0,
        least=0,
        help="keys and values of prefix tuning, in place of LoRA; 0 for none",
        fixed="what trains depends on it",
    )
    weights: LossWeights = setting(factory=lambda: LossWeights(caption=0.0), help="of the losses")
    best: str | None = best_of(None, "all_five", "said", "shown", "agrees", "one", "minus_loss")

    def __post_init__(self):
        super().__post_init__()
        if self.prefix_length and (self.fuse or self.lora):
            raise ValueError("prefix_length: a prefix takes the place of lora, and cannot be fused")


def main(config: InterleavedConfig):
    check_splits(config)
    pipe = open_for_training(config)
    if config.adapter:
        pipe.load_adapter(config.adapter)
    train_adapter(pipe, config.lora, config.prefix_length, config.seed)
    for name in pipe.mapper.fixed_in_stage_two:
        getattr(pipe.mapper, name).requires_grad_(False)
    model = VokenModel(pipe, config.weights)
    end_dry_run(model, config)
    draw, held_back = (open_mixture(config, role, pipe.reader) for role in ("train", "validation"))
    if config.cache_features:
        model.cache_features(config.cache_features)
    model.coach = Coach(pipe, config.naming_weight, config.judge).to(pipe.device) if config.coached else None

    def batches(index, source=draw):
        drawn, inputs = source.batch(index)
        return inputs, [one.caption for one in drawn if one.paints]

    # The diffusion loss costs more than all else together, and teaches little before the caption loss is low.
    full, warm = config.weights, dataclasses.replace(config.weights, diffusion=0.0)

    def losses(batch, step):
        inputs, captions = batch
        model.weights = warm if step < config.caption_only_steps else full
        return model(inputs, *model.coach.instruct(inputs["targets"])) if model.coach else model(inputs, captions)

    def evaluate():
        figures = model.coach.examine_stories(pipe, config.judged) if model.coach else {}
        figures["minus_loss"] = -validation_loss(losses, lambda index: batches(index, held_back), 2, config.steps)
        questions = held_back.questions(4)
        return figures | ({"painted": sample_grid(pipe, questions)} if questions else {})

    fit(model, batches, losses, config, config.out, evaluate, model.parameter_groups(config), draw.sizes)
    if is_main_process():
        save_trained(pipe, config)


if __name__ == "__main__":
    run_program(main, InterleavedConfig, __doc__, many_processes=True)
