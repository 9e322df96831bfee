"""Unimodal alignment, the first stage: teach vokens and mapper to paint captions.

    python training/align_vokens.py --config configs/storyworld-mini/align.yaml \\
        --data runs/mini/data --model runs/mini/base --out runs/mini/align
"""

import dataclasses
from dataclasses import dataclass

from minigpt5.data.mixture import open_mixture
from minigpt5.storyworld.coach import Coach
from minigpt5.training.fit import end_dry_run, fit
from minigpt5.training.objective import (
    VokenConfig,
    VokenModel,
    open_for_training,
    sample_grid,
    save_trained,
    validation_loss,
)
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import is_main_process
from minigpt5.utils.settings import read_config
from minigpt5.vokens.adapters import train_adapter


@dataclass(kw_only=True)
class AlignConfig(VokenConfig):
    """Settings of the first stage, whose mapper learns ten times as fast as the vokens."""

    mapper_rate: float = 10.0


def main():
    quiet_libraries()
    config = read_config(AlignConfig, __doc__)
    pipe = open_for_training(config.model, config.dtype, config.gradient_checkpointing, config.dry_run)
    train_adapter(pipe, config.lora, seed=config.seed)
    model = VokenModel(pipe, config.weights)
    end_dry_run(model, config)
    draw, held_back = (open_mixture(config, split) for split in ("train", "validation"))
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
        figures["minus_loss"] = -validation_loss(losses, lambda index: batches(index, held_back), 2, config.steps)
        return figures | {"painted": sample_grid(pipe, held_back.questions(4))}

    fit(model, batches, losses, config, config.out, evaluate, model.parameter_groups(config))
    if is_main_process():
        save_trained(pipe, config)


if __name__ == "__main__":
    main()
