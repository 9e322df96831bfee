"""How ids become a batch: padding, truncation and the kind of tensors, as processors of transformers take them."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from minigpt5.utils.checks import one_of, whole_number, yes_or_no

PADDINGS = ("longest", "max_length", "do_not_pad")
TRUNCATIONS = ("longest_first", "only_first", "do_not_truncate")
# A tokenizer without a length of its own has a very large one.
NO_LENGTH = 10**9


@dataclass
class TextOptions:
    """How ids become a batch; names and meanings are those of transformers' tokenizers.

    Raises:
        TypeError, ValueError: for a value that is none of an option's.
    """

    add_special_tokens: bool = True
    padding: bool | str = True
    truncation: bool | str | None = False
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    padding_side: str = "left"
    return_attention_mask: bool = True
    return_tensors: str | None = "pt"

    def __post_init__(self):
        self.add_special_tokens = yes_or_no("add_special_tokens", self.add_special_tokens)
        self.return_attention_mask = yes_or_no("return_attention_mask", self.return_attention_mask)
        if isinstance(self.padding, bool):
            self.padding = "longest" if self.padding else "do_not_pad"
        self.padding = one_of("padding", self.padding, PADDINGS)
        if isinstance(self.truncation, bool) or self.truncation is None:
            self.truncation = "longest_first" if self.truncation else "do_not_truncate"
        self.truncation = one_of("truncation", self.truncation, TRUNCATIONS)
        for name in ("max_length", "pad_to_multiple_of"):
            if getattr(self, name) is not None:
                setattr(self, name, whole_number(name, getattr(self, name), 1, NO_LENGTH))
        self.padding_side = one_of("padding_side", self.padding_side, ("left", "right"))
        if self.return_tensors is not None:
            self.return_tensors = one_of("return_tensors", self.return_tensors, ("pt", "np"))

    def truncate(
        self, rows: list[list[int]], tokenizer: PreTrainedTokenizerBase, image_token_id: int
    ) -> list[list[int]]:
        """Rows cut to `max_length` on the tokenizer's side; what begins a text stays.

        Raises:
            ValueError: where the cut would go through a picture, or there is no length to cut to.
        """
        if self.truncation == "do_not_truncate":
            return rows
        length = self.max_length or tokenizer.model_max_length
        if length >= NO_LENGTH:
            raise ValueError("truncation needs max_length, for this tokenizer has no length of its own")
        begun, cut = int(self.add_special_tokens), []
        for row in rows:
            surplus = max(0, len(row) - max(length, begun))
            left = tokenizer.truncation_side == "left"
            kept = row[:begun] + row[begun + surplus :] if left else row[: len(row) - surplus]
            if kept.count(image_token_id) != row.count(image_token_id):
                raise ValueError(f"max_length {length} would cut through a picture of the prompt; shorten the text")
            cut.append(kept)
        return cut
