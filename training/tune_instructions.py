"""MiniGPT-4's second stage: the projection learns to answer instructions, from a small curated set.

    accelerate launch training/tune_instructions.py --config configs/storyworld-mini/instructions.yaml \\
        --data runs/mini/data --model runs/mini/projection/model --out runs/mini/instructions

The set is good descriptions in the layout of CC3M, each asked for by an instruction of a list
(`minigpt5.data.instructions`), or chats of one's own in a JSONL file. Everything but the projection is frozen. The
result is a pipeline folder, OUT/model.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.mixture import check_mix, open_mixture
from minigpt5.training.fit import FitConfig, fit
from minigpt5.training.objective import validation_loss
from minigpt5.training.projection import ProjectionModel
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import is_main_process, pick_device
from minigpt5.utils.settings import read_config
from minigpt5.vokens.decoding import decode_texts


@dataclass(kw_only=True)
class InstructionConfig(FitConfig):
    """Settings of the projection's second stage.

    Args:
        data: folder with the data sets, each in a folder by its name: cc3m (of curated descriptions), chat.
        layouts: another layout for one of them, as {cc3m: cc3m-shards}.
        model: pipeline to start from.
        dtype: of the frozen weights; the projection is float32.
        out: folder for checkpoints and the result.
        mix: conversations a batch by task: instruct (published instructions), caption (StoryWorld's questions), chat;
            batch_size is their sum.
        max_bad_share: share of missing or broken pictures that stops the run.
        gradient_checkpointing: compute the language model's activations twice to keep fewer.
        judged: validation batches of an evaluation.
        told: replies to validation questions that an evaluation prints.
    """

    data: Path
    layouts: dict = field(default_factory=dict)
    model: Path
    dtype: str = "float32"
    out: Path
    mix: dict
    max_bad_share: float = 0.01
    gradient_checkpointing: bool = False
    judged: int = 4
    told: int = 4

    def __post_init__(self):
        check_mix(self.mix, self.batch_size)


def main():
    quiet_libraries()
    config = read_config(InstructionConfig, __doc__)
    pipe = MiniGPT5Pipeline.from_pretrained(config.model, dtype=getattr(torch, config.dtype))
    model = ProjectionModel(pipe.comprehension, config.gradient_checkpointing).to(pick_device())
    draw, held_back = (open_mixture(config, split) for split in ("train", "validation"))

    def batches(index, source=draw):
        return pipe.processor.training_batch([one.item for one in source(index)])

    def losses(batch, step):
        return model(batch)

    def evaluate():
        questions = [one.item[:-1] for one in held_back(0)[: config.told]]
        for reply in decode_texts(model.comprehension, pipe.processor, questions, max_new_tokens=60):
            print(f"{config.out.name}: told {reply!r}")
        return {
            "minus_loss": -validation_loss(losses, lambda index: batches(index, held_back), config.judged, config.steps)
        }

    fit(model, batches, losses, config, config.out, evaluate)
    if is_main_process():
        pipe.to("cpu", torch.float16).save_pretrained(config.out / "model")


if __name__ == "__main__":
    main()
