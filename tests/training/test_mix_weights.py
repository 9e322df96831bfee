import pytest
import torch
from families import Families

from minigpt5 import MiniGPT5Pipeline
from minigpt5.joining import open_reader
from minigpt5.training.results import save_result

MIX = "training/mix_weights"


@pytest.fixture
def other(tmp_path):
    """The miniature with 4 in place of every weight of its mapper."""
    pipe = MiniGPT5Pipeline.from_pretrained("storyworld-mini")
    for parameter in pipe.mapper.parameters():
        parameter.data.fill_(4)
    save_result(pipe, tmp_path / "other")
    return tmp_path / "other"


def test_two_pipelines_are_mixed_network_by_network(run_program, other, tmp_path, capsys):
    mini, out = MiniGPT5Pipeline.from_pretrained("storyworld-mini"), tmp_path / "mixed"
    run_program(MIX, "--one", "storyworld-mini", "--other", other, "--beta", 0.75, "--out", out)
    assert capsys.readouterr().out == f"{out}: 0.75 of storyworld-mini, the rest of {other}\n"
    mixed = MiniGPT5Pipeline.from_pretrained(out)
    for name, value in mini.mapper.state_dict().items():
        assert torch.equal(mixed.mapper.state_dict()[name], (0.75 * value + 1).half().float()), name
    for part in ("comprehension", "unet", "vae", "text_encoder"):
        before, after = (getattr(pipe, part).state_dict() for pipe in (mini, mixed))
        assert all(torch.equal(value, after[name]) for name, value in before.items()), part


def test_readers_are_mixed_and_keep_their_processor(run_program, tmp_path):
    model, processor = open_reader("storyworld-mini")
    for name, change in (("one", 1.0), ("other", 3.0)):
        model.language_projection.bias.data.fill_(change)
        save_result(model.float(), tmp_path / name, processor)
    run_program(MIX, "--one", tmp_path / "one", "--other", tmp_path / "other", "--out", tmp_path / "mixed")
    mixed, own = open_reader(tmp_path / "mixed")
    assert (mixed.language_projection.bias == 2).all()
    assert own.tokenizer.get_vocab() == processor.tokenizer.get_vocab()


def test_what_is_no_other_training_of_the_model_is_one_line(refused, other, tmp_path):
    model, processor = open_reader("storyworld-mini")
    save_result(model, tmp_path / "reader", processor)
    told = refused(MIX, "--one", other, "--other", tmp_path / "reader", "--out", tmp_path / "mixed")
    assert told == (
        f"{other} has comprehension, mapper, unet, vae, text_encoder, but {tmp_path / 'reader'} has reader\n"
    )
    told = refused(MIX, "--one", other, "--other", tmp_path / "nowhere", "--out", tmp_path / "mixed")
    assert told.startswith(f"cannot open {tmp_path / 'nowhere'}: ")
    assert not (tmp_path / "mixed").exists()


def test_a_head_of_its_own_and_a_shared_one_are_not_mixed(refused, texts, tmp_path):
    for name, tied in (("one", True), ("other", False)):
        model, processor = Families(texts)("composed_llava", tied)
        save_result(model, tmp_path / name, processor)
    told = refused(MIX, "--one", tmp_path / "one", "--other", tmp_path / "other", "--out", tmp_path / "mixed")
    assert told == "reader: lm_head.weight are weights of their own in one of the two models only\n"
