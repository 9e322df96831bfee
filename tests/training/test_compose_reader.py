import pytest
import torch
import transformers as hf
from families import LOOK, TEXT, Families, clip_pictures
from PIL import Image

from minigpt5.joining import open_reader
from minigpt5.readers import add_vokens, reader_of
from minigpt5.readers.cogvlm import COGVLM
from minigpt5.readers.compose import compose
from minigpt5.readers.composed_processor import ComposedProcessor
from minigpt5.readers.instructblip import InstructBlipReader
from minigpt5.readers.llava import LLAVA, LLAVA_15
from minigpt5.readers.opening import open_model
from minigpt5.readers.qwen_vl import QWEN_VL

COMPOSE = "training/compose_reader"


@pytest.fixture
def parts(texts, tmp_path):
    """Folders of a CLIP, of which only the ViT is wanted, and of a causal language model."""
    torch.manual_seed(0)
    clip = hf.CLIPConfig(vision_config=LOOK, text_config={"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 9})
    hf.CLIPModel(clip).save_pretrained(tmp_path / "clip")
    clip_pictures().save_pretrained(tmp_path / "clip")
    tokenizer = Families(texts).tokenizer()
    config = hf.PhiConfig(**TEXT | {"vocab_size": len(tokenizer)})
    hf.PhiForCausalLM(config).save_pretrained(tmp_path / "phi")
    tokenizer.save_pretrained(tmp_path / "phi")
    return tmp_path


def replies(folder, pictures):
    reader = reader_of(*open_model(folder))
    inputs = reader.encode(
        [[{"role": "user", "content": [{"type": "image", "image": picture}]}] for picture in pictures]
    )
    with torch.no_grad():
        return reader, reader.logits(reader.prefill(inputs).last[:, -1])


def test_a_reader_is_made_of_an_encoder_and_a_language_model(run_program, parts, pictures, capsys):
    out = parts / "out"
    sources = ("--language_model", parts / "phi", "--encoders", parts / "clip", "--out", out)
    run_program(COMPOSE, "--system", "llava-1.5", *sources, "--n_vokens", 3)
    assert capsys.readouterr().out == f"{out}: LLaVA-1.5, 4 tokens a picture\n"
    reader, told = replies(out, pictures[:2])
    assert reader.n_vokens == 3 and (told[0] - told[1]).abs().max() > 1e-4
    theirs = hf.CLIPModel.from_pretrained(parts / "clip").vision_model.state_dict()
    own = reader.model.model.vision_tower.state_dict()
    assert all(torch.equal(own[name], value.half().float()) for name, value in theirs.items())
    assert reader.model.config.vision_config.image_mean == list(clip_pictures().image_mean)


def test_minigpt_4_gives_its_encoder_q_former_and_projection(run_program, parts, pictures):
    sources = ("--language_model", parts / "phi", "--blip2", "storyworld-mini", "--out", parts / "out")
    mini, _ = open_reader("storyworld-mini")
    width = mini.config.text_config.hidden_size
    run_program(COMPOSE, "--system", "tinygpt-v", *sources, "--connector_options", f"{{width: {width}}}")
    reader, told = replies(parts / "out", pictures[:2])
    assert (told[0] - told[1]).abs().max() > 1e-4
    first = reader.model.model.multi_modal_projector.first
    assert torch.equal(first.weight, mini.language_projection.weight.half().float())


def test_the_miniature_s_own_parts_make_another_system(run_program, parts, pictures):
    mini = ("--language_model", "storyworld-mini", "--encoders", "storyworld-mini", "--out", parts / "out")
    run_program(COMPOSE, "--system", "cogvlm", *mini, "--connector_options", "{width: 64}")
    reader, told = replies(parts / "out", pictures[:2])
    assert reader.n_vokens == 8 and (told[0] - told[1]).abs().max() > 1e-4


def test_an_instructblip_is_made_of_a_minigpt_4(run_program, parts, pictures):
    run_program(COMPOSE, "--system", "instructblip", "--blip2", "storyworld-mini", "--out", parts / "out")
    reader, told = replies(parts / "out", pictures[:2])
    assert type(reader) is InstructBlipReader and (told[0] - told[1]).abs().max() > 1e-4
    mini, _ = open_reader("storyworld-mini")
    own = reader.model.language_projection.weight
    assert torch.equal(own, mini.language_projection.weight.half().float())
    reader.processor.chat_template = "Look!"
    with pytest.raises(ValueError, match=r"leaves places for 0 of 1 picture\(s\): it has to write <image> for each"):
        reader_of(reader.model, reader.processor).encode(["What is it? <ImageHere>"], [pictures[:1]])


def test_parts_that_do_not_fit_are_one_line(refused, parts):
    told = refused(COMPOSE, "--system", "llava", "--out", parts / "out")
    assert told == "llava is made around a language model: name it with --language_model\n"
    for more in ((), ("--blip2", "storyworld-mini", "--language_model", parts / "phi")):
        told = refused(COMPOSE, "--system", "instructblip", *more, "--out", parts / "out")
        assert told == "an InstructBLIP is made of one model alone: name it with --blip2\n"
    sources = ("--language_model", parts / "phi", "--out", parts / "out")
    told = refused(COMPOSE, "--system", "llava", *sources)
    assert told == "llava cannot be composed of these parts: LLaVA has 1 encoder(s) of pictures, got 0\n"
    told = refused(COMPOSE, "--system", "tinygpt-v", *sources)
    assert told == "tinygpt-v cannot be composed of these parts: TinyGPT-V needs a BLIP-2 for its Q-Former\n"
    told = refused(
        COMPOSE, "--system", "qwen-vl", *sources, "--encoders", parts / "clip", "--connector_options", "{queries: 4}"
    )
    said = "connector_options of resampler are queries and heads, got queries"
    assert told == f"qwen-vl cannot be composed of these parts: {said}\n"
    told = refused(COMPOSE, "--system", "qwen-vl", *sources, "--encoders", parts / "nothing")
    assert told.startswith(f"cannot open the encoder {parts / 'nothing'}: ")
    told = refused(COMPOSE, "--system", "flamingo", *sources)
    assert told.startswith("system is 'flamingo', must be one of instructblip, llava, llava-1.5")
    assert not (parts / "out").exists()


@pytest.mark.parametrize("kind", ["OPT", "GPT2", "Llama"])
def test_a_head_tied_to_a_table_of_any_name_stays_tied(texts, pictures, kind):
    tokenizer = Families(texts).tokenizer()
    sizes = {"n_embd": 32, "n_head": 4, "n_layer": 2} if kind == "GPT2" else TEXT
    more = {"OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32}}.get(kind, {})
    config = getattr(hf, f"{kind}Config")(**sizes | more | {"vocab_size": len(tokenizer), "tie_word_embeddings": True})
    language_model = getattr(hf, f"{kind}{'LMHeadModel' if kind == 'GPT2' else 'ForCausalLM'}")(config)
    encoder = hf.CLIPVisionModel(hf.CLIPVisionConfig(**LOOK))
    model, processor = compose(LLAVA_15, language_model, tokenizer, [encoder], clip_pictures())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    reader = reader_of(model, add_vokens(model, processor, 4))
    inputs = reader.encode([[{"role": "user", "content": [{"type": "image", "image": pictures[0]}]}]])
    assert reader.prefill(inputs).last.isfinite().all()


def test_an_encoder_without_patches_is_one_line(refused, parts):
    hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])).save_pretrained(parts / "resnet")
    clip_pictures().save_pretrained(parts / "resnet")
    sources = ("--language_model", parts / "phi", "--encoders", parts / "resnet", "--out", parts / "out")
    told = refused(COMPOSE, "--system", "llava-1.5", *sources)
    assert "an encoder of the kind resnet says no image_size and patch_size" in told


@pytest.mark.parametrize(("system", "seen"), [(COGVLM, True), (QWEN_VL, True), (LLAVA_15, True), (LLAVA, False)])
def test_what_is_no_square_is_seen_whole_where_boxes_are_told(texts, system, seen):
    """CLIP's own image processor cuts off the margins."""
    tokenizer = Families(texts).tokenizer()
    clip = hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = ComposedProcessor(clip, tokenizer, 4, fit=system.fit)
    wide = [Image.new("RGB", (112, 28), colour) for colour in ("red", "blue")]
    for picture in wide:
        picture.paste("white", (28, 0, 84, 28))
    one, other = (processor(picture, "<image>", return_tensors="pt")["pixel_values"] for picture in wide)
    assert one.shape == (1, 3, 28, 28) and torch.equal(one, other) is not seen


def test_pictures_are_counted_a_text(texts):
    processor = ComposedProcessor(clip_pictures(), Families(texts).tokenizer(), 4)
    picture = Image.new("RGB", (28, 28))
    with pytest.raises(ValueError, match=r"has 2 and 0 mark.* but 1 and 1 picture"):
        processor([[picture], [picture]], ["<image> and <image>", "none"])
