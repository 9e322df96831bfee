import torch

from minigpt5.joining import open_reader
from minigpt5.readers import reader_of
from minigpt5.vokens.decoding import decode_texts

CONFIG = "configs/storyworld-others/reader.yaml"
FEW = (
    "--steps",
    3,
    "--warmup_steps",
    0,
    "--learning_rate",
    0.05,
    "--batch_size",
    4,
    "--mix",
    "{caption: 3, story_text: 1}",
    "--judged",
    1,
)


def test_a_reader_from_nothing_is_trained_whole_and_can_be_joined(run_program, small_world, tmp_path, capsys):
    untrained, out = tmp_path / "reader", tmp_path / "reading"
    run_program("training/miniature/new_parts", "reader", "--data", small_world, "--out", untrained)
    settings = ("--config", CONFIG, "--data", small_world, "--model", untrained, "--out", out, "--report_to", "null")
    run_program("training/miniature/pretrain_reader", *settings, *FEW)
    assert "captions_one" in capsys.readouterr().out
    before, (after, processor) = open_reader(untrained)[0], open_reader(out / "model")
    reader = reader_of(after, processor)
    assert reader.n_vokens == 8
    kept = dict(after.named_parameters())
    for name, old in before.named_parameters():
        new = kept[name]
        assert new.isfinite().all() and not torch.equal(new[: len(old)], old.half().float()), name
    question = [{"role": "user", "content": [{"type": "text", "text": "What do you see?"}]}]
    assert len(decode_texts(reader, [question], max_new_tokens=2)) == 1
