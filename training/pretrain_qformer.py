r"""BLIP-2's first stage: a new Q-Former learns to read the pipeline's ViT, from pictures with captions.

    accelerate launch training/pretrain_qformer.py --config configs/storyworld-mini/qformer.yaml \
        --data runs/mini/data --model runs/mini/base --out runs/mini/qformer

The result is a pipeline folder, OUT/model. Its projection still expects the old Q-Former: train it next, with
pretrain_projection.py.
"""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertForMaskedLM, Blip2ForImageTextRetrieval

from minigpt5 import MiniGPT5Pipeline, MiniGPT5Processor
from minigpt5.data.mixture import PAIR_TASKS
from minigpt5.readers.qformer import QFormerPretraining, add_decode_token, build_retrieval_model, encode_texts
from minigpt5.training.fit import best_of, end_dry_run, fit
from minigpt5.training.mixture import MixtureConfig, check_splits, open_mixture
from minigpt5.training.results import save_result
from minigpt5.utils.images import to_rgb, trim_strip
from minigpt5.utils.processes import is_main_process, pick_device, process_state
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import setting
from minigpt5.weights import shipped_model


@dataclass(kw_only=True)
class QFormerConfig(MixtureConfig):
    """The Q-Former's first stage."""

    tasks = PAIR_TASKS

    model: Path = setting(help="pipeline whose ViT is read and whose Q-Former's shape is taken")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    bert: str | None = setting(
        None,
        help="BERT that the Q-Former begins as, its tokenizer included; null begins with random weights, and with the "
        "tokenizer of the pipeline's text encoder",
        fixed="it says how a run begins",
    )
    max_text_length: int = setting(
        32, least=3, most=512, help="tokens of a caption, of which the rest is cut off", rejudge=True
    )
    dropout: float = setting(0.1, least=0, below=1, help="of the Q-Former in this stage")
    label_smoothing: float = setting(0.1, least=0, below=1, help="of contrast and generation")
    judged: int = setting(
        100, least=1, help="validation pairs whose partners are looked for among each other", rejudge=True
    )
    best: str = best_of("text_found", "image_found")

    def __post_init__(self):
        super().__post_init__()
        processes = process_state().num_processes
        if self.batch_size % processes:
            # They compare their pairs with each other's.
            raise ValueError(f"batch_size is {self.batch_size}, which {processes} processes cannot share evenly")


def main(config: QFormerConfig):
    check_splits(config)
    start = shipped_model(config.model)
    with opening(f"the model {config.model}"):
        image_processor = MiniGPT5Processor.from_pretrained(start, subfolder="processor").image_processor
        # Of the comprehension stack only the ViT is of use, and the language model is not even read.
        stack = Blip2ForImageTextRetrieval.from_pretrained(
            start, subfolder="comprehension", dtype=torch.float32, trust_remote_code=False
        )
    with opening(f"the tokenizer of {config.bert or config.model}"):
        subfolder = "" if config.bert else "tokenizer"
        tokenizer = AutoTokenizer.from_pretrained(config.bert or start, subfolder=subfolder, trust_remote_code=False)
    decode = add_decode_token(tokenizer)
    retrieval = build_retrieval_model(
        stack.vision_model, stack.config, len(tokenizer), tokenizer.pad_token_id, config.dropout
    )
    model = QFormerPretraining(retrieval, decode, config.label_smoothing)
    if config.bert:
        with opening(f"the model {config.bert}"):
            bert = BertForMaskedLM.from_pretrained(config.bert, dtype=torch.float32, trust_remote_code=False)
        model.initialise_from(bert)
    model.to(pick_device())
    end_dry_run(model, config)
    draw, held_back = (open_mixture(config, role) for role in ("train", "validation"))

    def encode(drawn):
        pictures = [trim_strip(to_rgb(one.item.images[0])) for one in drawn]
        pixels = image_processor(pictures, return_tensors="pt")["pixel_values"]
        return pixels, *encode_texts(tokenizer, [one.caption for one in drawn], config.max_text_length)

    def batches(index):
        return encode(draw(index))

    def losses(batch, step):
        return model(*batch)

    def evaluate():
        drawn = []
        for index in count():
            drawn += held_back(index)
            if len(drawn) >= config.judged:
                break
        drawn = drawn[: config.judged]
        captions = [one.caption for one in drawn]
        scores = model.similarity(*(part.to(pick_device()) for part in encode(drawn)))

        def found(best):
            # Of two pairs with the same caption either is right.
            return sum(captions[i] == own for i, own in zip(best.tolist(), captions, strict=True)) / len(captions)

        return {"text_found": found(scores.argmax(dim=1)), "image_found": found(scores.argmax(dim=0))}

    fit(model, batches, losses, config, config.out, evaluate, rows=draw.sizes)
    if is_main_process():
        pipe = MiniGPT5Pipeline.from_pretrained(config.model)
        model.copy_to(pipe.comprehension)
        save_result(pipe, config.out / "model")


if __name__ == "__main__":
    run_program(main, QFormerConfig, __doc__, many_processes=True)
