"""MiniGPT-v2, TinyGPT-V, SPHINX, CogVLM and Qwen-VL: what is each one's own, computed here a second time."""

import math
from string import Formatter
from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from families import Families
from PIL import Image

from minigpt5 import MiniGPT5Pipeline
from minigpt5.readers import add_vokens, reader_of
from minigpt5.readers.additions import VisualExpert, add_visual_experts
from minigpt5.readers.cogvlm import published_cogvlm
from minigpt5.readers.composed import ComposedConfig
from minigpt5.readers.connectors import sincos_positions
from minigpt5.readers.conversation import ChatTemplate
from minigpt5.readers.generic import cache_argument
from minigpt5.readers.instructblip import DATA_SETS, instructblip_of
from minigpt5.readers.minigpt_v2 import published_minigpt_v2, task_prompt
from minigpt5.readers.opening import open_model
from minigpt5.readers.qwen_vl import format_box, published_qwen_vl
from minigpt5.readers.shapes import instructblip
from minigpt5.readers.sphinx import CLIP_NORM, IMAGENET_NORM, mix_weights, published_sphinx
from minigpt5.readers.tinygpt_v import published_tinygpt_v
from minigpt5.utils.boxes import parse_box


@pytest.fixture(scope="module")
def families(texts):
    return Families(texts)


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def tokens_of(model, pixels):
    return torch.stack(model.model.get_image_features(pixels).pooler_output)


# Published shapes

# EVA-CLIP's ViT-g as BLIP-2 has it, 985.95 million, with positions of 257 patches.
EVA = 985_952_256
LLAMA_7B, PHI_2 = 6_738_415_616, 2_779_683_840


def test_minigpt_v2_is_eva_a_projection_of_four_patches_and_llama_2():
    model = published_minigpt_v2()
    assert count(model) == EVA + (1025 - 257) * 1408 + (4 * 1408 * 4096 + 4096) + LLAMA_7B
    assert model.config.image_seq_length == 256  # section 2.1: 1024 patches, by fours


def test_tinygpt_v_is_2_8_billion_behind_its_encoder():
    """The paper's 2.8B are the language model and what is new to it."""
    model = published_tinygpt_v()
    projections = (768 * 4096 + 4096) + (4096 * 2560 + 2560)
    norms = 32 * (2560 + 2 * 2 * 80)
    qformer = count(model.model.qformer) + 32 * 768
    assert count(model) == EVA + qformer + PHI_2 + projections + norms
    assert round((PHI_2 + projections + norms) / 1e9, 1) == 2.8
    assert count(model.model.vision_tower) == EVA and model.config.image_seq_length == 32


def test_sphinx_has_four_encoders_and_291_tokens_a_picture():
    """Published code: 32 of the Q-Former, 257 of the patches, one before them and one behind."""
    model = published_sphinx()
    assert model.config.image_seq_length == 32 + 257 + 2
    convnext, dinov2, eva = map(count, model.model.more_vision_towers)
    # By the cards of timm's convnext_xxlarge without its head, of facebook/dinov2-giant and of BLIP-2.
    assert [round(number / 1e6) for number in (convnext, dinov2)] == [843, 1136] and eva == EVA
    projections = (5632 * 5120 + 3 * 5120) + (768 * 5120 + 3 * 5120) + 2 * 5120
    assert count(model.model.multi_modal_projector) == projections
    assert count(model.model.language_model) + count(model.lm_head) == 13_015_864_320  # LLaMA-2 13B


def test_cogvlm_is_17_6_billion_of_which_6_5_are_the_visual_expert():
    """By the card of THUDM/cogvlm-chat-hf and section 2.2."""
    model = published_cogvlm()
    expert = sum(count(module.vision) for module in model.modules() if isinstance(module, VisualExpert))
    assert expert == 32 * (4 * 4096**2 + 3 * 4096 * 11_008) and round(expert / 1e9, 1) == 6.5
    assert round(count(model) / 1e9, 1) == 17.6
    assert count(model.model.language_model) + count(model.lm_head) - expert == LLAMA_7B
    assert model.config.image_seq_length == 35**2 + 2


def test_qwen_vl_is_9_6_billion():
    """Table 1: an encoder of 1.9B, an adapter of 0.08B and Qwen-7B, 7.7B; the sum of its weights is 9.66B."""
    model = published_qwen_vl()
    connector = model.model.multi_modal_projector
    assert round(count(model) / 1e9, 2) == 9.66
    assert round((count(model.model.language_model) + count(model.lm_head)) / 1e9, 1) == 7.7
    # The published code counts the norm and the matrix behind the attention to the encoder.
    assert round((count(connector) - count(connector.out) - count(connector.norm_out)) / 1e9, 2) == 0.08
    assert model.config.image_seq_length == 256


def test_instructblip_has_as_many_parameters_as_its_card_says():
    assert round(count(instructblip()) / 1e9, 2) == 7.91


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("composed_llava", "USER: <image>\nWhat is the fox in doing? ASSISTANT:"),
        ("sphinx", "### Human: <image>What is the fox in doing?\n### Assistant:"),
        ("cogvlm", "<image>Question: What is the fox in doing? Answer:"),
        ("minigpt_v2", "<s>[INST] What is the fox in <Img><image></Img> doing? [/INST]"),
    ],
)
def test_words_around_a_picture_stay_apart(families, family, said):
    model, processor = families(family)
    before, after = ({"type": "text", "text": text} for text in ("What is the fox in", "doing?"))
    reader = reader_of(model, add_vokens(model, processor, 4))
    assert reader.chat.render([{"role": "user", "content": [before, {"type": "image"}, after]}]).endswith(said)


# MiniGPT-v2


def test_a_language_model_without_a_first_token_speaks_as_minigpt_v2(families):
    _, processor = families("minigpt_v2")
    processor.tokenizer.bos_token = None
    asked = ChatTemplate(processor).render([{"role": "user", "content": [{"type": "text", "text": "Who?"}]}])
    assert asked == "[INST] Who? [/INST]"


def test_a_reply_begins_alike_where_it_is_learnt_and_where_it_is_told_of(families):
    model, processor = families("cogvlm")
    reader = reader_of(model, add_vokens(model, processor, 4))
    assert reader.chat.frame[0] == " " and reader.chat.opening == " Answer:"


def test_four_patches_of_a_row_are_one_token(families, pixels):
    model, _ = families("minigpt_v2")
    linear = model.model.multi_modal_projector.linear
    with torch.no_grad():
        patches = model.model.vision_tower(pixels).last_hidden_state[:, 1:]
        expected = [torch.cat([patches[:, 4 * row + column] for column in range(4)], dim=-1) for row in range(4)]
        close(tokens_of(model, pixels), torch.stack([one @ linear.weight.T + linear.bias for one in expected], dim=1))
    assert model.model.vision_tower.post_layernorm.eps == 1e-5


def test_a_task_is_a_word_before_the_instruction(families, pictures):
    assert task_prompt("refer", "the red fox") == "[refer] the red fox"
    with pytest.raises(ValueError, match="task must be one of vqa, caption, grounding, refer, identify, detection"):
        task_prompt("paint", "a fox")
    model, processor = families("minigpt_v2")
    reader = reader_of(model, add_vokens(model, processor, 4))
    asked = [{"type": "image", "image": pictures[0]}, {"type": "text", "text": task_prompt("vqa", "Who is it?")}]
    text = reader.chat.render([{"role": "user", "content": [{"type": "image"}, asked[1]]}])
    assert text == "<s>[INST] <Img><image></Img> [vqa] Who is it? [/INST]"
    said = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hi."), ("user", "Hi")]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
    assert reader.chat.render(messages) == "<s>Be kind. [INST] Hi [/INST]Hi.</s><s>[INST] Hi [/INST]"
    batch = reader.training_batch([[{"role": "user", "content": asked}, {"role": "assistant", "content": "A fox."}]])
    assert reader.tokenizer.decode([i for i in batch["labels"][0].tolist() if i >= 0]).split() == ["A", "fox.</s>"]


def test_patches_that_cannot_be_joined_are_told():
    look = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "patch_size": 14, "image_size": 42}
    with pytest.raises(ValueError, match="9 patches cannot be joined by fours"):
        ComposedConfig(connector="neighbours", vision_config=look | {"model_type": "clip_vision_model"})


# TinyGPT-V


def layer_norm(hidden, norm):
    return torch.nn.functional.layer_norm(hidden, hidden.shape[-1:], norm.weight, norm.bias, norm.eps)


def test_tinygpt_v_reads_through_two_projections_and_normed_attention(families):
    model, _ = families("tinygpt_v")
    body, pixels = model.model, torch.randn(1, 3, 64, 64)
    blip2, _ = families("minigpt4")
    first, second = body.multi_modal_projector.first, body.multi_modal_projector.second
    # The first is MiniGPT-4's, the second new.
    assert torch.equal(first.weight, blip2.language_projection.weight)
    for layer in body.language_model.layers:
        for norm in (layer.self_attn.q_layernorm, layer.self_attn.k_layernorm, layer.self_attn.post_layernorm):
            norm.weight.data = 1 + 0.3 * torch.randn_like(norm.weight)
    with torch.no_grad():
        queries = blip2.get_image_features(pixels).last_hidden_state
        queries = blip2.qformer(blip2.query_tokens, encoder_hidden_states=queries).last_hidden_state
        seen = (queries @ first.weight.T + first.bias) @ second.weight.T + second.bias
        close(tokens_of(model, pixels), seen)
        # Phi by hand: attention and feed-forward side by side, positions on half of each head.
        hidden = seen
        length, heads, width = 4, 4, 8
        frequencies = 10_000 ** (-torch.arange(0, 4, 2) / 4)
        angles = torch.outer(torch.arange(length).float(), frequencies).repeat(1, 2)
        for layer in body.language_model.layers:
            attention, normed = layer.self_attn, layer_norm(hidden, layer.input_layernorm)
            query, key, value = (
                projection(normed).view(length, -1, width).transpose(0, 1)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = layer_norm(query, attention.q_layernorm), layer_norm(key, attention.k_layernorm)
            # Two heads of queries share one of keys and values.
            key, value = key.repeat_interleave(2, dim=0), value.repeat_interleave(2, dim=0)
            turned = []
            for one in (query, key):
                rotated, rest = one[..., :4], one[..., 4:]
                across = torch.cat([-rotated[..., 2:], rotated[..., :2]], dim=-1)
                turned.append(torch.cat([rotated * angles.cos() + across * angles.sin(), rest], dim=-1))
            scores = turned[0] @ turned[1].mT / math.sqrt(width)
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1)
            told = attention.dense((scores @ value).transpose(0, 1).reshape(1, length, heads * width))
            told = attention.post_layernorm.weight * told / (told.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            hidden = hidden + told + layer.mlp(normed)
        expected = layer_norm(hidden, body.language_model.final_layernorm) @ model.lm_head.weight.T + model.lm_head.bias
        ids = torch.full((1, 4), model.config.image_token_id)
        close(model(input_ids=ids, pixel_values=pixels).logits, expected)


# SPHINX


def test_sphinx_joins_encoders_by_channel_and_puts_the_queries_before_them(families):
    model, _ = families("sphinx")
    body, pixels = model.model, torch.randn(2, 3, 28, 28)
    convnext, dinov2, eva = body.more_vision_towers
    project = body.multi_modal_projector
    resize = torch.nn.functional.interpolate
    mean, std, other_mean, other_std = (
        torch.tensor(norm[name]).view(3, 1, 1)
        for norm in (CLIP_NORM, IMAGENET_NORM)
        for name in ("image_mean", "image_std")
    )
    with torch.no_grad():
        clip = body.vision_tower.post_layernorm(body.vision_tower(pixels).last_hidden_state)
        seen = convnext(resize(pixels, (32, 32), mode="bicubic")).last_hidden_state.flatten(2).transpose(1, 2)
        seen = torch.cat([seen.mean(1, keepdim=True), seen], dim=1)
        patches = dinov2((pixels * std + mean - other_mean) / other_std).last_hidden_state
        joined = project.of_patches(torch.cat([clip, seen, patches], dim=-1))
        queries = body.qformer(body.query_tokens.expand(2, -1, -1), encoder_hidden_states=eva(pixels).last_hidden_state)
        queries = project.of_queries(queries.last_hidden_state)
        frame = project.frame.expand(2, -1, -1)
        expected = torch.cat([frame[:, :1], queries, joined, frame[:, 1:]], dim=1)
        assert expected.shape == (2, 1 + 4 + 5 + 1, 32)
        close(tokens_of(model, pixels), expected)


def test_a_picture_is_read_as_the_whole_and_its_quarters(families):
    _, processor = families("sphinx")
    picture = Image.new("RGB", (112, 112))
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    for colour, place in zip(colours, [(0, 0), (56, 0), (0, 56), (56, 56)], strict=True):
        picture.paste(colour, (*place, place[0] + 56, place[1] + 56))
    whole, *quarters = processor.views(picture)
    assert whole.size == (56, 56) and [view.size for view in quarters] == [(28, 28)] * 4
    assert [view.getpixel((14, 14)) for view in quarters] == colours
    row = processor(text="<image> Who?", images=[picture], return_tensors="pt")
    assert (row["input_ids"] == processor.image_token_id).sum() == 5 * 11 and row["pixel_values"].shape[0] == 5
    # What a wide picture does not fill of the square.
    tall = processor.views(Image.new("RGB", (56, 28)))[0]
    assert tall.getpixel((0, 0)) == (123, 117, 104) and tall.getpixel((28, 28)) == (0, 0, 0)


def test_weights_are_mixed_by_shares():
    one = {"a": torch.tensor([1.0, 2.0]), "steps": torch.tensor(3)}
    other = {"a": torch.tensor([3.0, -2.0]), "steps": torch.tensor(3)}
    mixed = mix_weights(one, other, 0.25)
    assert torch.equal(mixed["a"], torch.tensor([2.5, -1.0])) and mixed["steps"] == 3
    assert torch.equal(mix_weights(one, other, 1)["a"], one["a"])
    with pytest.raises(ValueError, match="only weights of one model can be mixed; a, b are not the same in both"):
        mix_weights({"a": torch.ones(1)}, {"b": torch.ones(1)}, 0.5)
    with pytest.raises(ValueError, match="beta must be at most 1, got 2"):
        mix_weights(one, other, 2)


# CogVLM


def test_text_alone_is_answered_to_the_bit_as_before(families):
    tokenizer = families.tokenizer()
    torch.manual_seed(0)
    language, _ = families.language_model("Llama", False, tokenizer)
    model, _ = families("cogvlm")
    own = model.model.language_model.state_dict()
    words = len(tokenizer)
    state = {name.replace(".language.", "."): value for name, value in own.items() if ".vision." not in name}
    state["embed_tokens.weight"] = state["embed_tokens.weight"][:words]
    language.model.load_state_dict(state)
    language.lm_head.weight.data = model.lm_head.weight.data[:words].clone()
    ids = torch.randint(5, words, (2, 9))
    with torch.no_grad():
        expected = language.eval()(ids).logits
        assert torch.equal(model(input_ids=ids).logits[..., :words], expected)


def test_what_is_cached_has_the_positions_of_a_whole_prompt_or_is_refused(families):
    model, _ = families("cogvlm")
    ids, pixels = torch.tensor([[5, 6, *[model.config.image_token_id] * 6, 7, 8]]), torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        whole = model(input_ids=ids, pixel_values=pixels).logits
        cached = {cache_argument(model): hf.DynamicCache()}
        close(model(input_ids=ids[:, :-1], pixel_values=pixels, **cached).logits, whole[:, :-1])
        with pytest.raises(ValueError, match="behind what was read before, position_ids must be given"):
            model(input_ids=ids[:, -1:], **cached)
        last = model(input_ids=ids[:, -1:], position_ids=model.model.positions(ids)[:, -1:], **cached)
    close(last.logits, whole[:, -1:])


def test_pictures_go_by_matrices_of_their_own(families):
    model, _ = families("cogvlm")
    image = model.config.image_token_id
    ids = torch.tensor([[5, 6, *[image] * 6, 7, 8]])
    pixels = torch.randn(1, 3, 28, 28)
    # Of a picture's six tokens the last, which stands behind it, is read as words are; the four patches share a place.
    by_expert = torch.tensor([False, False, *[True] * 5, False, False, False])
    positions = torch.tensor([[0, 1, 2, 3, 3, 3, 3, 4, 5, 6]])
    assert torch.equal(model.model.positions(ids), positions)

    def project(layer, hidden):
        rows = [
            (layer.vision if seen else layer.language).weight @ row
            for row, seen in zip(hidden[0], by_expert, strict=True)
        ]
        return torch.stack(rows)

    with torch.no_grad():
        hidden = model.get_input_embeddings()(ids)
        hidden[0, 2:8] = tokens_of(model, pixels)[0]
        angles = torch.outer(positions[0].float(), 10_000 ** (-torch.arange(0, 8, 2) / 8)).repeat(1, 2)
        for layer in model.model.language_model.layers:
            attention, normed = layer.self_attn, layer.input_layernorm(hidden)
            query = project(attention.q_proj, normed).view(10, 4, 8).transpose(0, 1)
            key, value = (
                project(one, normed).view(10, 2, 8).transpose(0, 1).repeat_interleave(2, dim=0)
                for one in (attention.k_proj, attention.v_proj)
            )
            query, key = (
                one * angles.cos() + torch.cat([-one[..., 4:], one[..., :4]], dim=-1) * angles.sin()
                for one in (query, key)
            )
            scores = query @ key.mT / math.sqrt(8)
            scores = scores.masked_fill(torch.ones(10, 10).triu(1).bool(), -torch.inf).softmax(-1)
            hidden = hidden + project(attention.o_proj, (scores @ value).transpose(0, 1).reshape(1, 10, 32))
            normed, mlp = layer.post_attention_layernorm(hidden), layer.mlp
            gate = torch.nn.functional.silu(project(mlp.gate_proj, normed))
            hidden = hidden + project(mlp.down_proj, (gate * project(mlp.up_proj, normed)).unsqueeze(0))
        expected = model.lm_head(model.model.language_model.norm(hidden))
        close(model(input_ids=ids, pixel_values=pixels).logits, expected)
        made = model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=3, do_sample=False)
        longer = model(input_ids=made[:, :-1], pixel_values=pixels).logits[:, -3:].argmax(-1)
    assert torch.equal(made[:, -3:], longer)


def test_experts_begin_as_copies_of_the_language_model():
    layer = torch.nn.Module()
    layer.self_attn, layer.mlp = torch.nn.Identity(), torch.nn.Linear(4, 3)
    before = layer.mlp.weight.clone()
    add_visual_experts(SimpleNamespace(layers=torch.nn.ModuleList([layer])))
    expert = layer.mlp
    assert torch.equal(expert.language.weight, before) and torch.equal(expert.vision.weight, before)
    assert expert.language.weight.data_ptr() != expert.vision.weight.data_ptr()


def test_a_composed_model_begins_with_experts_that_are_the_language_model(families, monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # by which `families` moves them
    model, _ = families("cogvlm")
    experts = [module for module in model.modules() if isinstance(module, VisualExpert)]
    assert len(experts) == 2 * 7
    assert all(torch.equal(expert.vision.weight, expert.language.weight) for expert in experts)


def test_checkpointing_changes_no_gradient_of_the_experts(families):
    model, _ = families("cogvlm")
    ids = torch.tensor([[5, *[model.config.image_token_id] * 6, 7]])
    pixels, gradients = torch.randn(1, 3, 28, 28), []
    for saving in (False, True):
        if saving:
            model.gradient_checkpointing_enable()
        model.train().zero_grad()
        model(input_ids=ids, pixel_values=pixels, use_cache=False).logits.square().mean().backward()
        gradients.append(model.model.language_model.layers[0].self_attn.q_proj.vision.weight.grad.clone())
    close(*gradients)
    assert gradients[0].abs().sum() > 0


# Qwen-VL


def test_positions_have_two_axes():
    places = sincos_positions(3, 8)
    row, column = 2, 1
    expected = [
        *(math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100)),
        *(math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)),
    ]
    close(places[3 * row + column], torch.tensor(expected))


def test_queries_look_at_patches_of_the_same_places(families, pixels):
    model, _ = families("qwen_vl")
    connector = model.model.multi_modal_projector
    with torch.no_grad():
        patches = model.model.vision_tower(pixels).last_hidden_state[:, 1:]
        values = connector.norm_patches(connector.narrow(patches))
        places = sincos_positions(2, 32)
        fine = places.view(2, 2, 32).permute(2, 0, 1).unsqueeze(0)
        fine = torch.nn.functional.interpolate(fine, (4, 4), mode="bicubic")[0].flatten(1).T
        attention = connector.attention
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        asked = connector.norm_queries(connector.queries) + places
        query, key, value = (
            (one @ weight.T + bias).unflatten(-1, (4, 8)).movedim(-2, -3)
            for one, weight, bias in zip((asked, values + fine, values), weights, biases, strict=True)
        )
        seen = (query @ key.mT / math.sqrt(8)).softmax(-1) @ value
        seen = attention.out_proj(seen.movedim(-3, -2).flatten(-2))
        close(tokens_of(model, pixels), connector.norm_out(seen) @ connector.out.weight.T)


def test_boxes_are_text_in_thousandths():
    assert format_box((0.1, 0.25, 1, 0.5)) == "<box>(100,250),(1000,500)</box>"
    told = format_box((0, 0.2004, 0.3, 0.4), "the fox")
    assert told == "<ref>the fox</ref><box>(0,200),(300,400)</box>"
    assert parse_box(f"It is {told}.") == (0.0, 0.2, 0.3, 0.4)


def test_no_square_has_no_places():
    look = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "patch_size": 14, "image_size": 28}
    look |= {"model_type": "clip_vision_model"}
    with pytest.raises(ValueError, match="5 tokens make no square"):
        ComposedConfig(
            connector="resampler",
            connector_options={"queries": 4, "heads": 2},
            vision_config=hf.CLIPVisionConfig(**look),
            vision_feature_select_strategy="full",
        )


# InstructBLIP


def test_of_26_data_sets_half_are_held_out():
    assert len(DATA_SETS) == 26 and sum(one.held_out for one in DATA_SETS.values()) == 13
    # Held out are judged by one prompt; 13 of captions, 10 of questions and 6 that ask for one are trained with.
    assert {len(one.templates) for one in DATA_SETS.values() if one.held_out} == {1}
    assert {len(one.templates) for one in DATA_SETS.values() if not one.held_out} == {13, 10, 6, 0}
    told = DATA_SETS["GQA"].templates[0].format(question="Who is it?")
    assert told == "Question: Who is it? Short answer:"
    places = {"question", "answer", "context", "options", "tokens", "history", "text"}
    for one in DATA_SETS.values():
        for template in one.templates:
            assert {name for _, name, _, _ in Formatter().parse(template) if name} <= places


def test_what_instructblip_s_q_former_sees_depends_on_the_instruction(families, pictures):
    model, processor = families("instructblip")
    reader = reader_of(model, add_vokens(model, processor, 4))

    def features(words):
        asked = [{"type": "image", "image": pictures[0]}, {"type": "text", "text": words}]
        with torch.no_grad():
            return reader.picture_features(reader.encode([[{"role": "user", "content": asked}]]))

    first = features("Who is it?")
    close(first, features("Who is it?"))
    assert (first - features("Where is the red fox?")).abs().max() > 1e-4


def test_a_published_instructblip_is_asked_as_transformers_asks_it(families, pictures):
    model, processor = families("instructblip")
    reader = reader_of(model, add_vokens(model, processor, 4))
    asked = [{"type": "image", "image": pictures[0]}, {"type": "text", "text": "Where is the red fox?"}]
    theirs = processor(images=pictures[0], text="Where is the red fox?", return_tensors="pt")
    ours = reader.encode([[{"role": "user", "content": asked}]])
    # This tokenizer ends every text, behind which a reply could not begin.
    end = processor.tokenizer.eos_token_id
    assert torch.equal(torch.cat([ours["input_ids"][0], torch.tensor([end])]), theirs["input_ids"][0])
    for name in ("qformer_input_ids", "qformer_attention_mask", "pixel_values"):
        assert torch.equal(ours[name], theirs[name]), name
    # A longer conversation is a dialogue behind all its pictures; a reply ends with its text.
    talk = [{"role": "user", "content": asked}, {"role": "assistant", "content": asked[1:]}]
    told = reader.encode([[*talk, {"role": "user", "content": asked}]])["input_ids"][0]
    assert (told[:8] == reader.image_token_id).all() and told.tolist().count(reader.image_token_id) == 8
    assert reader.training_batch([talk])["labels"][0, -1] == end


def test_an_instructblip_of_minigpt_4_keeps_its_dialogue(pictures, tmp_path):
    pipe = MiniGPT5Pipeline.from_pretrained("storyworld-mini")
    model, processor = instructblip_of(pipe.comprehension, pipe.processor.image_processor, pipe.processor.tokenizer)
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    reader = reader_of(*open_model(tmp_path))
    asked = [{"type": "image", "image": pictures[0]}, {"type": "text", "text": "Who is it?"}]
    talk = [{"role": "user", "content": asked}, {"role": "assistant", "content": [{"type": "text", "text": "A fox."}]}]
    assert reader.chat.render(talk[:1]) == "###Human: <Img><image></Img> Who is it? ###Assistant:"
    assert reader.chat.render([*talk, talk[0]]) == (
        "###Human: <Img><image></Img> Who is it? ###Assistant: A fox. ###Human: <Img><image></Img> Who is it? "
        "###Assistant:"
    )
    learnt = reader.training_batch([talk])["labels"][0]
    assert reader.tokenizer.decode(learnt[learnt >= 0]).strip() == "A fox. ###" and reader.stop_strings == ("###",)


def test_an_instruction_longer_than_the_q_former_reads_is_cut(families, pictures):
    model, processor = families("instructblip")
    reader = reader_of(model, add_vokens(model, processor, 4))
    most = model.config.qformer_config.max_position_embeddings
    processor.qformer_tokenizer.model_max_length = 10 * most
    asked = [{"type": "image", "image": pictures[0]}, {"type": "text", "text": "what " * (most + 5)}]
    inputs = reader.encode([[{"role": "user", "content": asked}]])
    assert inputs["qformer_input_ids"].shape[1] == most
