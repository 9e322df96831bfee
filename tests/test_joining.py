"""Any reader joined with any painter, as a user joins them."""

from pathlib import Path

import pytest
import torch
import transformers
from diffusers import DiffusionPipeline
from transformers import AutoModelForImageTextToText

from minigpt5 import MiniGPT5Pipeline, QueryConnector, cli
from minigpt5.joining import licence, new_pipeline, open_reader
from minigpt5.painters import painter_of, trainable
from minigpt5.painters.shapes import flux_1, sana_0_6b
from minigpt5.readers import add_vokens
from minigpt5.readers.shapes import qwen2_5_vl
from minigpt5.storyworld import others
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.vokens.adapters import train_adapter
from minigpt5.weights import SHIPPED

MINIATURE = SHIPPED / "storyworld-mini"
CAPTIONS = ["a red fox in the forest", "two blue dogs on the beach at night"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A reader in the shape of Qwen2.5-VL and a painter in that of Stable Diffusion 3, both untrained."""
    root = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    processor = others.build_qwen_processor(CAPTIONS)
    others.build_qwen(processor).save_pretrained(root / "reader")
    processor.save_pretrained(root / "reader")
    others.build_flow_painter(MINIATURE).save_pretrained(root / "painter")
    return root


def paint(pipe):
    noise = torch.Generator().manual_seed(0)
    reply = pipe(
        "Draw a fox", image_mode="always", max_new_tokens=3, num_inference_steps=1, output_type="pt", generator=noise
    )
    return reply.text[0], reply.images[0][0]


def test_the_command_writes_a_pipeline_that_replies(folders, tmp_path, capsys):
    out = tmp_path / "joined"
    argv = ["join", str(folders / "reader"), str(folders / "painter"), "--n-vokens", "4", "--out", str(out)]
    argv += ["--guidance-scale", "2.5", "--num-inference-steps", "20"]
    assert cli.main(argv) == 0
    told = capsys.readouterr().out
    assert "SD3Transformer2DModel" in told
    assert "1,536" in told  # 4 vokens of width 192 in two tables
    assert "licence" in told

    pipe = MiniGPT5Pipeline.from_pretrained(out)
    assert type(pipe.painter).__name__ == "StableDiffusion3Pipeline"
    assert pipe.reader.n_vokens == 4
    assert (pipe.config.guidance_scale, pipe.config.num_inference_steps) == (2.5, 20)
    text, picture = paint(pipe)
    again = MiniGPT5Pipeline.join(folders / "reader", folders / "painter", n_vokens=4, guidance_scale=2.5)
    assert paint(again)[0] == text
    torch.testing.assert_close(paint(again)[1], picture)

    assert cli.main(argv) == 2
    assert "is there already" in capsys.readouterr().err
    assert cli.main([*argv[:-6], "--out", str(tmp_path / "none"), "--guidance-scale", "nan"]) == 2
    assert "guidance_scale" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_a_pipeline_that_cannot_be_written_whole_is_not_written(folders, tmp_path, monkeypatch, capsys):
    def full(self, folder, **_):
        (Path(folder) / "model_index.json").write_text("{")
        raise OSError("disk full")

    monkeypatch.setattr(MiniGPT5Pipeline, "save_pretrained", full)
    argv = ["join", str(folders / "reader"), str(folders / "painter"), "--n-vokens", "4", "--out"]
    assert cli.main([*argv, str(tmp_path / "joined")]) == 2
    assert capsys.readouterr() == ("", "minigpt5: error: disk full\n")
    assert list(tmp_path.iterdir()) == []


def test_a_joined_pipeline_trains_only_what_is_new(folders):
    pipe = MiniGPT5Pipeline.join(folders / "reader", folders / "painter", n_vokens=4)
    pipe.comprehension.requires_grad_(False)
    train_adapter(pipe)
    pipe.mapper.requires_grad_(True)
    model = VokenModel(pipe, LossWeights()).train()
    picture = torch.rand(3, 64, 64)
    item = [
        {"role": "user", "content": "Draw this: a red fox"},
        {"role": "assistant", "content": [{"type": "image", "image": picture}]},
    ]
    losses = model(model.prepare(pipe.reader.training_batch([item, item])), CAPTIONS)
    losses["loss"].backward()
    assert {"text", "caption", "ldm"} <= losses.keys()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in learnt} == {"comprehension", "mapper"}
    assert all(name.endswith(".rows") for name in learnt if name.startswith("comprehension"))


def test_the_other_connector_begins_at_the_scale_of_the_text_features(folders, tmp_path):
    pipe = MiniGPT5Pipeline.join(
        folders / "reader", folders / "painter", n_vokens=16, connector="queries", num_layers=1
    )
    assert type(pipe.mapper).__name__ == "QueryConnector"
    made = pipe.conditioning(torch.randn(2, 16, pipe.reader.feature_width))["prompt_embeds"]
    aimed_at = trainable(painter_of(pipe.painter)).encode_captions(CAPTIONS)["prompt_embeds"]
    assert made.shape == (2, 16, aimed_at.shape[-1])
    assert made.std().item() == pytest.approx(aimed_at.std().item(), rel=0.5)
    pipe.save_pretrained(tmp_path)
    assert paint(MiniGPT5Pipeline.from_pretrained(tmp_path))[0] == paint(pipe)[0]


def test_a_connector_says_which_layers_of_the_reader_it_takes(folders, tmp_path):
    options = {"n_vokens": 12, "connector": "queries", "reader_layers": [-1, 1], "num_layers": 1, "captions": CAPTIONS}
    pipe = MiniGPT5Pipeline.join(folders / "reader", folders / "painter", **options)
    assert pipe.mapper.proj_in.in_features == pipe.reader.feature_width == 2 * 192
    features = trainable(painter_of(pipe.painter)).encode_captions(CAPTIONS)["prompt_embeds"].flatten(0, 1)
    torch.testing.assert_close(pipe.mapper.norm_out.bias, features.mean(0))

    pipe.save_pretrained(tmp_path)
    again = MiniGPT5Pipeline.from_pretrained(tmp_path)
    assert again.reader.layers == (-1, 1)
    torch.testing.assert_close(paint(again)[1], paint(pipe)[1])
    sizes = {name: pipe.mapper.config[name] for name in ("text_dim", "text_length", "pooled_dims")}
    again.mapper = QueryConnector(voken_dim=192, num_layers=1, **sizes)
    assert again.reader.layers == (-1,)
    assert paint(again)[1].isfinite().all()


def test_parts_of_pipelines_are_joined_by_name():
    pipe = MiniGPT5Pipeline.join("storyworld-mini", "storyworld-mini")
    assert (pipe.config["num_inference_steps"], pipe.config["guidance_scale"]) == (6, 1.0)
    other = MiniGPT5Pipeline.join("storyworld-mini", pipe, num_inference_steps=4)
    assert (other.config["num_inference_steps"], other.config["guidance_scale"]) == (4, 1.0)
    assert other.unet is pipe.unet
    assert pipe.mapper.config.text_dim == pipe.unet.config.cross_attention_dim
    assert licence("storyworld-mini") == "apache-2.0"
    assert MiniGPT5Pipeline.join("storyworld-mini", "storyworld-mini", n_vokens=4).reader.n_vokens == 4


def test_other_readers_get_more_vokens_but_not_fewer(folders):
    model, processor = open_reader(folders / "reader")
    processor = add_vokens(model, processor, 8)
    with pytest.raises(ValueError, match="8 vokens already; join it with n_vokens=8 or more"):
        MiniGPT5Pipeline.join((model, processor), "storyworld-mini", n_vokens=4)
    before = model.get_input_embeddings().weight.clone()
    pipe = MiniGPT5Pipeline.join((model, processor), "storyworld-mini", n_vokens=12, seed=1)
    ids, after = pipe.reader.voken_ids, model.get_input_embeddings().weight
    assert ids == list(range(ids[0], ids[0] + 12)) and len(after) >= ids[-1] + 1
    assert torch.equal(after[: ids[0]], before[: ids[0]]) and not torch.equal(after[ids[:8]], before[ids[:8]])
    assert paint(pipe)[1].isfinite().all()
    processor.tokenizer.add_tokens(["<more>"])
    with pytest.raises(ValueError, match="behind the reader's 12 vokens stand other tokens"):
        MiniGPT5Pipeline.join((model, processor), "storyworld-mini", n_vokens=16)


def test_a_reader_that_cannot_be_joined_is_left_as_it_was(folders):
    model, processor = open_reader(folders / "reader")
    painter = MiniGPT5Pipeline.from_pretrained(MINIATURE).painter
    rows = len(model.get_input_embeddings().weight), len(processor.tokenizer)
    with pytest.raises(ValueError, match="too few for 500 vokens"):
        new_pipeline(model, processor, painter, n_vokens=500)
    assert rows == (len(model.get_input_embeddings().weight), len(processor.tokenizer))


def test_what_does_not_fit_is_one_line(folders, tmp_path, capsys):
    with pytest.raises(ValueError, match="connector must be one of"):
        MiniGPT5Pipeline.join(folders / "reader", folders / "painter", connector="magic")
    with pytest.raises(ValueError, match="too few for 500 vokens"):
        MiniGPT5Pipeline.join(folders / "reader", folders / "painter", n_vokens=500)
    AutoModelForImageTextToText.from_pretrained(folders / "reader").save_pretrained(tmp_path / "no tokenizer")
    with pytest.raises(ValueError, match="no processor or tokenizer"):
        open_reader(tmp_path / "no tokenizer")
    argv = ["join", str(tmp_path / "nothing"), str(folders / "painter"), "--out", str(tmp_path / "out")]
    capsys.readouterr()
    assert cli.main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_without_its_processor_is_told_what_to_give(tiny_pipe):
    model, processor = tiny_pipe.comprehension, tiny_pipe.processor
    for reader in (model, (model,), (processor, model), tiny_pipe, None):
        with pytest.raises(TypeError, match=r"reader is a folder, a hub id or \(model, processor\), got"):
            MiniGPT5Pipeline.join(reader, tiny_pipe)


@pytest.mark.parametrize(
    ("part", "millions"),
    [
        (lambda: qwen2_5_vl("3b"), 3754.62),
        (lambda: qwen2_5_vl("7b"), 8292.17),
        (lambda: sana_0_6b().transformer, 591.75),
        (lambda: flux_1().transformer, 11901.41),
    ],
    ids=["qwen2.5-vl-3b", "qwen2.5-vl-7b", "sana-0.6b", "flux.1"],
)
def test_published_shapes_have_as_many_parameters_as_their_cards_say(part, millions):
    assert sum(parameter.numel() for parameter in part().parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_a_pipeline_without_embeddings_is_refused(folders):
    class Words(DiffusionPipeline):
        def __call__(self, prompt):
            return prompt

    with pytest.raises(ValueError, match="takes no prompt_embeds"):
        new_pipeline(*open_reader(folders / "reader"), Words())


@pytest.mark.parametrize("kind", ["Bert", "ModernBertDecoder", "Electra"])
def test_a_model_whose_head_is_more_than_its_output_embeddings_is_refused(folders, kind):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    processor = others.build_qwen_processor(CAPTIONS)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(processor.tokenizer), is_decoder=True, pad_token_id=0, **sizes
    )
    model = getattr(transformers, f"{kind}{'LMHeadModel' if kind == 'Bert' else 'ForCausalLM'}")(config).eval()
    with pytest.raises(ValueError, match="cannot be read: its logits are not those of its output embeddings"):
        MiniGPT5Pipeline.join((model, processor.tokenizer), folders / "painter", n_vokens=4)
