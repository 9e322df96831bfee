"""BLIP-2's first stage: a new Q-Former learns to read the pipeline's ViT, from pictures with captions.

    accelerate launch training/pretrain_qformer.py --config configs/storyworld-mini/qformer.yaml \\
        --data runs/mini/data --model runs/mini/base --out runs/mini/qformer

The result is a pipeline folder, OUT/model. Its projection still expects the old Q-Former: train it next, with
pretrain_projection.py.
"""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertForMaskedLM, Blip2ForImageTextRetrieval

from minigpt5 import MiniGPT5Pipeline, MiniGPT5Processor
from minigpt5.data.mixture import check_pairs, open_mixture
from minigpt5.readers.qformer import QFormerPretraining, add_decode_token, build_retrieval_model, encode_texts
from minigpt5.training.fit import FitConfig, fit
from minigpt5.utils.images import to_rgb, trim_strip
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.processes import is_main_process, pick_device, process_state
from minigpt5.utils.settings import read_config
from minigpt5.weights import shipped_model


@dataclass(kw_only=True)
class QFormerConfig(FitConfig):
    """Settings of the Q-Former's first stage.

    Args:
        data: folder with the data sets, each in a folder by its name: cc3m, vist.
        layouts: another layout for one of them, as {cc3m: cc3m-shards}.
        model: pipeline whose ViT is read and whose Q-Former's shape is taken.
        out: folder for checkpoints and the result.
        bert: BERT that the Q-Former begins as, its tokenizer included. Null begins with random weights, and with the
            tokenizer of the pipeline's text encoder.
        mix: pairs a batch by task, pair (cc3m) and story_pair (vist); batch_size is their sum.
        max_bad_share: share of missing or broken pictures that stops the run.
        max_text_length: tokens of a caption, of which the rest is cut off.
        dropout: of the Q-Former in this stage.
        label_smoothing: of contrast and generation.
        judged: validation pairs whose partners are looked for among each other.
    """

    data: Path
    layouts: dict = field(default_factory=dict)
    model: Path
    out: Path
    bert: str | None = None
    mix: dict
    max_bad_share: float = 0.01
    max_text_length: int = 32
    dropout: float = 0.1
    label_smoothing: float = 0.1
    judged: int = 100

    def __post_init__(self):
        check_pairs(self.mix, self.batch_size)
        processes = process_state().num_processes
        if self.batch_size % processes:
            # They compare their pairs with each other's.
            raise ValueError(f"batch_size is {self.batch_size}, which {processes} processes cannot share evenly")


def main():
    quiet_libraries()
    config = read_config(QFormerConfig, __doc__)
    torch.manual_seed(config.seed)
    start = shipped_model(config.model)
    image_processor = MiniGPT5Processor.from_pretrained(start, subfolder="processor").image_processor
    tokenizer = AutoTokenizer.from_pretrained(config.bert or start, subfolder="" if config.bert else "tokenizer")
    decode = add_decode_token(tokenizer)
    # Of the comprehension stack only the ViT is of use, and the language model is not even read.
    stack = Blip2ForImageTextRetrieval.from_pretrained(start, subfolder="comprehension", dtype=torch.float32)
    retrieval = build_retrieval_model(
        stack.vision_model, stack.config, len(tokenizer), tokenizer.pad_token_id, config.dropout
    )
    model = QFormerPretraining(retrieval, decode, config.label_smoothing)
    if config.bert:
        model.initialise_from(BertForMaskedLM.from_pretrained(config.bert, dtype=torch.float32))
    model.to(pick_device())
    draw, held_back = (open_mixture(config, split) for split in ("train", "validation"))

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

    fit(model, batches, losses, config, config.out, evaluate)
    if is_main_process():
        pipe = MiniGPT5Pipeline.from_pretrained(config.model)
        model.copy_to(pipe.comprehension)
        pipe.to(torch.float16).save_pretrained(config.out / "model")


if __name__ == "__main__":
    main()
