"""LLaVA and what all composed readers share."""

from dataclasses import replace

import pytest
import torch
import transformers as hf
from families import LOOK, Families, clip_pictures
from torch.nn.functional import cross_entropy

from minigpt5 import MiniGPT5Pipeline
from minigpt5.readers import add_vokens, reader_of
from minigpt5.readers.cogvlm import COGVLM
from minigpt5.readers.compose import compose
from minigpt5.readers.composed import ComposedConfig, ComposedForConditionalGeneration
from minigpt5.readers.llava import LLAVA, LLAVA_15, published_llava
from minigpt5.readers.qwen_vl import QWEN_VL
from minigpt5.readers.sphinx import CLIP_NORM, SPHINX
from minigpt5.readers.tinygpt_v import TINYGPT_V
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.vokens.adapters import fuse_adapter, train_adapter

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
IMAGE = 98


def configs():
    torch.manual_seed(0)
    return hf.LlamaConfig(**TEXT), hf.CLIPVisionConfig(**LOOK)


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    ids = torch.randint(3, 90, (2, 12))
    ids[0, 2:6] = ids[1, 5:9] = IMAGE
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(2, 3, 28, 28)}


def test_published_shapes_have_as_many_parameters_as_the_published_weights():
    """Of llava-hf/llava-1.5-7b-hf, 7,063,427,072 by its card; of the first version the projection is another."""
    count = lambda module: sum(parameter.numel() for parameter in module.parameters())  # noqa: E731
    model = published_llava()
    assert count(model) == 7_063_427_072
    assert next(model.parameters()).is_meta
    first = published_llava("1")
    assert count(first.model.multi_modal_projector) == 1024 * 4096 + 4096
    assert first.config.image_seq_length == 256 and model.config.image_seq_length == 576


def test_with_llava_s_settings_it_is_llava(inputs):
    text, vision = configs()
    theirs = hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    ).eval()
    ours = ComposedForConditionalGeneration(LLAVA_15.config(text, vision, image_token_index=IMAGE)).eval()
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    with torch.no_grad():
        torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits, atol=1e-5, rtol=1e-5)
        asked = {name: value[:1] for name, value in inputs.items()}
        made = [model.generate(**asked, max_new_tokens=5, do_sample=False) for model in (ours, theirs)]
    assert torch.equal(*made)


def test_one_linear_layer_reads_the_patches_before_the_last_layer(inputs):
    text, vision = configs()
    model = ComposedForConditionalGeneration(LLAVA.config(text, vision, image_token_index=IMAGE)).eval()
    with torch.no_grad():
        states = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
        # Of three states, before the first layer and behind each of two, the second.
        tokens = states[1][:, 1:] @ model.model.multi_modal_projector.linear.weight.T
        tokens += model.model.multi_modal_projector.linear.bias
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        embeds[0, 2:6], embeds[1, 5:9] = tokens[0], tokens[1]
        expected = model.lm_head(model.model.language_model(inputs_embeds=embeds).last_hidden_state)
        torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=1e-5)


def test_it_is_made_of_parts_whose_weights_it_keeps(texts):
    families = Families(texts)
    tokenizer = families.tokenizer()
    language, _ = families.language_model("Llama", False, tokenizer)
    encoder = hf.CLIPVisionModel(hf.CLIPVisionConfig(**LOOK))
    words = len(tokenizer)
    before = language.get_input_embeddings().weight[:words].clone()
    one, processor = compose(LLAVA_15, language, tokenizer, [encoder], clip_pictures(), seed=3)
    assert torch.equal(one.get_input_embeddings().weight[:words], before)
    assert torch.equal(one.lm_head.weight[:words], language.lm_head.weight[:words])
    own = one.model.vision_tower.state_dict()
    assert all(torch.equal(own[name], value) for name, value in encoder.state_dict().items())
    assert one.config.image_token_id == processor.image_token_id == words
    with pytest.raises(ValueError, match=r"LLaVA-1\.5 has 1 encoder\(s\) of pictures, got 2"):
        compose(LLAVA_15, language, tokenizer, [encoder, encoder], clip_pictures())
    with pytest.raises(ValueError, match=r"LLaVA-1\.5 has no Q-Former"):
        compose(LLAVA_15, language, tokenizer, [encoder], clip_pictures(), blip2=object())


def test_a_part_that_is_more_than_what_sees_or_sees_otherwise_is_refused(texts):
    language, tokenizer = Families(texts).language_model("Llama", False, Families(texts).tokenizer())
    for encoder, told in (
        (
            hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**LOOK)),
            "CLIPVisionModelWithProjection is no CLIPVisionModel, it has no .*: give its vision model alone",
        ),
        (
            hf.SiglipVisionModel(hf.SiglipVisionConfig(**LOOK)),
            "siglip_vision_model make 3 tokens of a picture and not 4",
        ),
        (
            hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**LOOK, mlp_ratio=2)),
            "dinov2_with_registers make 8 tokens of a picture and not 4",
        ),
    ):
        with pytest.raises(ValueError, match=told):
            compose(LLAVA_15, language, tokenizer, [encoder], clip_pictures())


@pytest.mark.parametrize(
    ("connector", "options", "told"),
    [
        ("two_layers", {"width": 7}, "connector_options of two_layers are none, got width"),
        (
            "resampler",
            {"queries": 4, "head": 2},
            "connector_options of resampler are queries and heads, got queries and h",
        ),
        ("two_projections", None, "connector_options of two_projections are width, got none"),
        ("resampler", {"queries": 4, "heads": 7}, "heads is 7, must divide the language model's width, 4096"),
    ],
)
def test_sizes_that_a_connector_does_not_have_are_told(connector, options, told):
    vision = hf.CLIPVisionConfig(**LOOK)
    with pytest.raises(ValueError, match=told):
        ComposedConfig(connector=connector, connector_options=options, vision_config=vision)


@pytest.mark.parametrize(
    ("system", "kind", "more", "options", "told"),
    [
        (COGVLM, "OPT", {"ffn_dim": 64}, {"width": 8}, "layers of OPTModel, which are not as Llama's"),
        (COGVLM, "Bloom", {}, {"width": 8}, "layers of BloomModel, which are not as Llama's"),
        (COGVLM, "Mixtral", {"num_local_experts": 2}, {"width": 8}, "MixtralModel cannot have visual experts"),
        (LLAVA, "OPT", {"ffn_dim": 64, "word_embed_proj_dim": 16}, None, "width 16 before layers of width 32"),
        (QWEN_VL, "Llama", {"hidden_size": 30, "num_attention_heads": 3}, {"queries": 4, "heads": 3}, "is 30"),
    ],
)
def test_a_language_model_that_a_system_cannot_be_made_around_is_told(texts, system, kind, more, options, told):
    language_model, tokenizer = Families(texts).language_model(kind, False, Families(texts).tokenizer(), **more)
    tokenizer.chat_template, marks = "its own", len(tokenizer)
    encoder = hf.CLIPVisionModel(hf.CLIPVisionConfig(**LOOK))
    with pytest.raises(ValueError, match=told):
        compose(system, language_model, tokenizer, [encoder], clip_pictures(), connector_options=options)
    assert (tokenizer.chat_template, len(tokenizer)) == ("its own", marks)


def test_parts_that_would_be_used_otherwise_than_meant_are_told(texts):
    families = Families(texts)
    llama, tokenizer = families.language_model("Llama", False, families.tokenizer())
    blip2, _ = families.minigpt4(False)
    with pytest.raises(ValueError, match=r"leads to a width of 32 and not of 4096: give connector_options of width 32"):
        compose(TINYGPT_V, llama, tokenizer, [], clip_pictures(64), blip2)
    # Llama has no norms of queries and keys, so its configuration does not claim them.
    model, _ = compose(TINYGPT_V, llama, tokenizer, [], clip_pictures(64), blip2, connector_options={"width": 32})
    assert not hasattr(model.config.text_config, "qk_layernorm")
    clip, dino = hf.CLIPVisionConfig(**LOOK, **CLIP_NORM), hf.Dinov2Config(**LOOK, mlp_ratio=2)
    encoders = [hf.CLIPVisionModel(clip), hf.CLIPVisionModel(clip), hf.Dinov2Model(dino)]
    blip2.vision_model.config.image_mean, blip2.vision_model.config.image_std = CLIP_NORM.values()
    with pytest.raises(ValueError, match="set image_mean and image_std in the configuration of dinov2"):
        compose(SPHINX, llama, tokenizer, encoders, clip_pictures(), blip2)
    look = hf.InternVLVisionConfig(**LOOK | {"image_size": [28, 28], "patch_size": [14, 14]})
    with pytest.raises(ValueError, match="each has to be one number"):
        compose(LLAVA, llama, tokenizer, [hf.InternVLVisionModel(look)], clip_pictures())


@pytest.mark.parametrize(
    ("kind", "more"),
    [("Gemma2", {"final_logit_softcapping": 0.01, "head_dim": 8}), ("Granite", {"logits_scaling": 8.0})],
)
def test_logits_are_scaled_and_capped_as_the_language_model_does(texts, kind, more):
    language_model, tokenizer = Families(texts).language_model(kind, False, Families(texts).tokenizer(), **more)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        theirs = language_model(ids, labels=ids)
        model, processor = compose(
            LLAVA, language_model, tokenizer, [hf.CLIPVisionModel(hf.CLIPVisionConfig(**LOOK))], clip_pictures()
        )
        ours = model(ids, labels=ids)
        length = theirs.logits.shape[-1]
        torch.testing.assert_close(ours.logits[..., :length], theirs.logits)
        # The marks that were added say something too.
        loss = cross_entropy(ours.logits[0, :-1], ids[0, 1:])
        assert ours.loss == pytest.approx(loss.item()) and ours.loss != pytest.approx(theirs.loss.item(), rel=1e-6)
        told = model(ids, labels=ids, return_dict=False)
        assert torch.equal(told[0], ours.loss) and torch.equal(told[1], ours.logits)
        reader = reader_of(model, add_vokens(model, processor, 2))
        torch.testing.assert_close(reader.logits(reader.extend(ids, None, None).last)[..., :length], theirs.logits)


def test_a_language_model_that_says_otherwise_than_its_head_is_not_composed(texts):
    """As where a model scales its logits by what no configuration says."""
    families = Families(texts)
    language_model, tokenizer = families.language_model("Llama", False, families.tokenizer())
    language_model.register_forward_hook(lambda module, args, output: replace(output, logits=2 * output.logits))
    with pytest.raises(ValueError, match="LlamaForCausalLM cannot be read: its logits are not those of its output"):
        compose(LLAVA, language_model, tokenizer, [hf.CLIPVisionModel(hf.CLIPVisionConfig(**LOOK))], clip_pictures())


def test_what_is_no_connector_is_told():
    with pytest.raises(ValueError, match=r"connector must be one of linear, two_layers, .*, got 'mlp3'"):
        ComposedConfig(connector="mlp3")


def test_marks_and_pictures_are_counted(texts, pictures):
    _, processor = Families(texts)("composed_llava")
    row = processor(text="A <image> and <image>", images=[pictures[:2]], return_tensors="pt")
    assert (row["input_ids"] == processor.image_token_id).sum() == 8 and row["pixel_values"].shape == (2, 3, 28, 28)
    with pytest.raises(ValueError, match=r"the text has 1 mark\(s\) <image> but 2 picture\(s\) came"):
        processor(text=["<image>"], images=[pictures[:2]])


@pytest.mark.parametrize(
    ("family", "tokens"),
    [
        *(("composed_llava", 4), ("instructblip", 4), ("minigpt_v2", 4), ("tinygpt_v", 4), ("sphinx", 55)),
        *(("cogvlm", 6), ("qwen_vl", 4)),
    ],
)
def test_every_system_is_joined_with_a_painter_trained_and_saved(texts, pictures, tmp_path, family, tokens):
    reader = Families(texts)(family)
    for part in reader:
        part.save_pretrained(tmp_path / "reader")
    pipe = MiniGPT5Pipeline.join(tmp_path / "reader", "storyworld-mini", num_layers=1)
    assert type(pipe.comprehension) is type(reader[0])
    shown = {"type": "image", "image": pictures[0]}
    ids = pipe.reader.encode([[{"role": "user", "content": [shown]}]])["input_ids"]
    assert (ids == pipe.reader.image_token_id).sum() == tokens

    pipe.comprehension.requires_grad_(False)
    train_adapter(pipe)
    pipe.mapper.requires_grad_(True)
    model = VokenModel(pipe, LossWeights()).train()
    item = [{"role": "user", "content": [shown]}, {"role": "assistant", "content": [shown]}]
    losses = model(model.prepare(pipe.reader.training_batch([item, item])), ["a red fox", "a red fox"])
    losses["loss"].backward()
    learnt = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert {name.rpartition(".")[2] for name in learnt if name.startswith("comprehension")} == {"rows"}
    assert all(losses[name].isfinite() for name in ("text", "caption", "ldm"))
    fuse_adapter(pipe.comprehension)

    asked = [{"role": "user", "content": [{"type": "image", "image": pictures[0]}, {"type": "text", "text": "Draw."}]}]
    options = {"image_mode": "always", "max_new_tokens": 3, "num_inference_steps": 1, "output_type": "pt"}
    first = pipe(asked, generator=torch.Generator().manual_seed(0), **options)
    assert len(first.images[0]) == 1
    pipe.save_pretrained(tmp_path / "joined")
    again = MiniGPT5Pipeline.from_pretrained(tmp_path / "joined")
    second = again(asked, generator=torch.Generator().manual_seed(0), **options)
    torch.testing.assert_close(first.images[0][0], second.images[0][0])
