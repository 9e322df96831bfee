"""The published model's tokenizer: Llama's, as transformers 4.31 ran it."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, normalizers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from minigpt5.utils.reading import first_line

BOS, EOS, UNK = "<s>", "</s>", "<unk>"


def load_llama_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Llama's tokenizer with the ids of its first, "legacy" implementation; padding is `</s>`, on the right.

    Special tokens are split off first and take the white space beside them; each remaining piece begins with a space
    of its own. transformers 5 gives that space to the first piece only, and to none that already begins with one. The
    three special tokens are set here, because early Vicuna folders name others or none.

    Args:
        folder: holds `tokenizer.model` (reading it needs the packages sentencepiece and protobuf) or `tokenizer.json`.

    Raises:
        FileNotFoundError: if it holds neither.
        ValueError: if the file is no tokenizer.
    """
    if not any(Path(folder, name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        raise FileNotFoundError(f"{folder} holds neither tokenizer.model nor tokenizer.json")
    try:
        llama = LlamaTokenizer.from_pretrained(
            folder, bos_token=BOS, eos_token=EOS, unk_token=UNK, trust_remote_code=False
        )
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"{folder} holds no tokenizer that can be read: {first_line(error)}") from error
    backend = llama.backend_tokenizer
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False, lstrip=True, rstrip=True) for token in (BOS, EOS)]
    )
    # Not a LlamaTokenizer: that class would put its own pre-tokenizer back when it is loaded again.
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=EOS,
        padding_side="right",
        model_max_length=llama.model_max_length,
        clean_up_tokenization_spaces=False,
    )
