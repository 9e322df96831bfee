"""InstructBLIP: the Q-Former reads the instruction with the picture (arXiv 2305.06500)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from transformers import BatchFeature

from minigpt5.readers.generic import Reader
from minigpt5.readers.minigpt4 import MiniGPT4Reader
from minigpt5.readers.prompts import Message


class InstructBlipReader(MiniGPT4Reader):
    """Reads each picture in the light of what is said in the same turn; pictures stand where they are mentioned."""

    processor: Any
    encode, training_batch = Reader.encode, Reader.training_batch

    def _row(self, messages: list[Message], pictures: list[Any]) -> dict[str, Any]:
        row = super()._row(messages, pictures)
        asked = []
        for message in messages:
            texts = [part["text"] for part in message["content"] if part["type"] == "text"]
            asked += [" ".join(texts)] * (len(message["content"]) - len(texts))
        if asked:
            read = self.processor.qformer_tokenizer(asked, padding=True, truncation=True, return_tensors="pt")
            row |= {f"qformer_{name}": read[name] for name in ("input_ids", "attention_mask")}
        return row

    def _call(self, text: str, pictures: list[Any], **options: Any) -> dict[str, torch.Tensor]:
        # Its own processor would put all pictures before the text.
        mark = str(self.processor.image_token)
        made = self.tokenizer([text.replace(mark, mark * self.processor.num_query_tokens)], **options)
        return {**made, **(self.processor.image_processor(pictures, return_tensors="pt") if pictures else {})}

    @cached_property
    def _takes(self) -> set[str]:
        return {"pixel_values"}

    def _picture_keys(self, inputs: BatchFeature, pictures: list[Any]) -> list[bytes]:
        if not pictures:
            return []
        asked = zip(inputs["qformer_input_ids"], inputs["qformer_attention_mask"].bool(), strict=True)
        plain = super()._picture_keys(inputs, pictures)
        return [key + ids[there].numpy().tobytes() for key, (ids, there) in zip(plain, asked, strict=True)]

    def _rest(self, inputs: BatchFeature, shared: int, pictures: list[Any]) -> BatchFeature:
        rest: Any = super()._rest(inputs, shared, [])
        names = [name for name in inputs if name == "pixel_values" or name.startswith("qformer_")]
        rest.update({name: inputs[name][-len(pictures) :] for name in names if pictures})
        return rest

    @property
    def picture_parts(self) -> list:
        """Nothing, as what becomes of a picture depends on what is asked of it."""
        return []

    def picture_features(self, inputs: BatchFeature) -> torch.Tensor:
        """What the Q-Former makes of pictures and instructions, projected: `(pictures, queries, hidden)`."""
        return self.model.get_image_features(
            inputs["pixel_values"].to(self.model.dtype),
            qformer_input_ids=inputs["qformer_input_ids"],
            qformer_attention_mask=inputs["qformer_attention_mask"],
            return_dict=True,
        ).pooler_output
