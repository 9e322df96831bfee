"""Vokens in the place of others."""

import pytest
import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.readers.vokens import replace_vokens
from minigpt5.vokens.adapters import add_voken_rows


@pytest.mark.parametrize("n_vokens", [1, 16])
def test_a_model_gets_another_number_of_vokens(n_vokens, tmp_path):
    old = MiniGPT5Pipeline.from_pretrained("storyworld-mini")
    words = old.comprehension.get_input_embeddings().weight[: old.processor.voken_ids[0]].detach().clone()
    before = old("Where is the red fox?", image_mode="never", max_new_tokens=8).text
    pipe = MiniGPT5Pipeline.join((old.comprehension, old.processor), "storyworld-mini", n_vokens)
    pipe.save_pretrained(tmp_path / "pipe")
    pipe = MiniGPT5Pipeline.from_pretrained(tmp_path / "pipe")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.processor.n_vokens == n_vokens
    assert pipe.processor.image_token_id == pipe.comprehension.config.image_token_id == len(words) + n_vokens
    table = pipe.comprehension.get_input_embeddings().weight.detach()
    head = pipe.comprehension.get_output_embeddings().weight.detach()
    assert torch.equal(table[: len(words)], words)
    assert len(table) == len(head) == len(words) + n_vokens + 1
    spread = [(rows.float() - words.float().mean(0)).square().mean().sqrt() for rows in (table[len(words) :], words)]
    assert spread[0] == pytest.approx(spread[1].item(), rel=0.2)
    assert pipe("Where is the red fox?", image_mode="never", max_new_tokens=8).text == before
    assert len(pipe("Draw this: a fox.", image_mode="always", num_inference_steps=1).images[0]) == 1
    add_voken_rows(pipe.comprehension, pipe.processor.voken_ids)


def test_a_picture_needs_a_voken():
    with pytest.raises(ValueError, match="at least one voken"):
        replace_vokens(None, None, 0)
