"""PaliGemma: pictures first, then one question, all of which looks at all; the answer looks back (arXiv 2407.07726)."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from transformers import BatchFeature

from minigpt5.readers.conversation import Question
from minigpt5.readers.generic import Reader


class PaliGemmaReader(Reader):
    """Reads with attention to all of a prompt, so that nothing can come behind a prompt but its reply."""

    resumes: ClassVar[bool] = False
    text_type: ClassVar[int] = 1

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """None, as no turn follows."""
        return ()

    @cached_property
    def chat(self) -> Question:
        """How a question is written."""
        return Question(self.processor)

    @cached_property
    def _takes(self) -> set[str]:
        return {"pixel_values", "token_type_ids"}

    def _process(self, text: str, pictures: list[Any]) -> dict[str, Any]:
        options: dict[str, Any] = {"add_special_tokens": False, "return_tensors": "pt"}
        if pictures:
            marked = self.processor.image_token * len(pictures) + text
            made = self.processor(text=[marked], images=[pictures], **options)
        else:
            made = self.tokenizer([f"{self.tokenizer.bos_token}{text}\n"], **options)
        row: dict[str, Any] = {"input_ids": made["input_ids"][0].tolist()}
        row["token_type_ids"] = [0] * len(row["input_ids"])
        return row | {name: made[name] for name in ("pixel_values",) if name in made}

    def positions(self, inputs: BatchFeature) -> torch.Tensor:
        """Counted from one."""
        return inputs["attention_mask"].cumsum(1)
