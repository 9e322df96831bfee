r"""Unimodal alignment, the first stage: teach vokens and mapper to paint captions.

    python training/align_vokens.py --config configs/storyworld-mini/align.yaml \
        --data runs/mini/data --model runs/mini/base --out runs/mini/align
"""

import dataclasses
from dataclasses import dataclass

from minigpt5.data.mixture import CAPTIONED_TASKS, TEXT_TASKS
from minigpt5.storyworld.coach import Coach
from minigpt5.training.fit import best_of, end_dry_run, fit
from minigpt5.training.mixture import check_splits, open_mixture
from minigpt5.training.objective import (
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
class AlignConfig(VokenConfig):
    """The first stage."""

    mapper_rate: float = setting(10.0, above=0, help="the mapper's learning rate over the vokens'")
    best: str | None = best_of(None, "one", "two", "minus_loss")

    def __post_init__(self):
        super().__post_init__()
        if not any(task not in TEXT_TASKS for task in self.mix):
            raise ValueError(
                f"mix: {' and '.join(self.mix)} paint nothing, and there is no first stage without pictures to paint; "
                f"add {' or '.join(CAPTIONED_TASKS)}"
            )


def main(config: AlignConfig):
    check_splits(config)
    pipe = open_for_training(config)
    train_adapter(pipe, config.lora, seed=config.seed)
    model = VokenModel(pipe, config.weights)
    end_dry_run(model, config)
    draw, held_back = (open_mixture(config, role, pipe.reader) for role in ("train", "validation"))
    if config.cache_features:
        model.cache_features(config.cache_features)
    model.coach = Coach(pipe, config.naming_weight, config.judge).to(pipe.device) if config.coached else None

    def batches(index, source=draw):
        drawn, inputs = source.batch(index)
        return inputs, [one.caption for one in drawn if one.paints]

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

    fit(model, batches, losses, config, config.out, evaluate, model.parameter_groups(config), draw.sizes)
    if is_main_process():
        save_trained(pipe, config)


if __name__ == "__main__":
    run_program(main, AlignConfig, __doc__, many_processes=True)
