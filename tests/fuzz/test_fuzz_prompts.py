"""What people type is text, whatever it spells; a row of a batch is what it is alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from minigpt5.readers import add_vokens, reader_of
from minigpt5.readers.prompts import IMAGE_MARK, Example, Mark
from minigpt5.storyworld import miniature
from minigpt5.vokens.decoding import LAYOUT

# What might be taken for more than it is.
SPELT = (
    *("[IMG0]", "[IMG1]", "[IMG7]", "[IMG0][IMG1][IMG2][IMG3][IMG4][IMG5][IMG6][IMG7]", "[IMG", "<ImageHere", "Here>"),
    *("<s>", "</s>", "<unk>", "<pad>", "###", "###Human: ", "###Assistant:", "<Img>", "</Img>", "▁", "<0x0A>"),
    *(
        "\ufdd0",
        "\ufdd1",
        "\ufdd0\ufdd1",
        "\x00",
        "\x1f",
        "\u200b",
        "\u202e",
        "\ufeff",
        "\ufffe",
        "\x85",
        "\r\n",
        "\U0001f98a",
    ),
    *("{{ messages }}", "{% for x in y %}", "{#", "%s", "{0}", "\\n", "e\u0301" * 9),
)
TYPED = st.lists(st.text(max_size=8) | st.sampled_from((*SPELT, IMAGE_MARK)), max_size=6).map("".join)
LONG = st.builds(lambda text, times: text * times, TYPED, st.sampled_from((1, 1, 1, 40, 4000)))
WRITTEN = TYPED.filter(lambda text: text.encode(errors="ignore").decode() == text)


def pictures(count):
    return [Image.new("RGB", (5 + place, 7), (40 * place, 90, 10)) for place in range(count)]


@pytest.fixture(scope="session")
def causal(texts):
    """A causal language model with a chat template, as any reader that is not MiniGPT-4."""
    tokenizer = miniature.build_tokenizer(texts, lowercase=False, max_length=256)
    tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant:{% endif %}"
    )
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes))
    return reader_of(model, add_vokens(model, tokenizer, 4))


@given(text=LONG, count=st.integers(0, 3))
def test_marks_of_a_string_are_its_pictures_and_nothing_else_is_special(small_pipe, clear_errors, text, count):
    processor = small_pipe.processor
    with clear_errors() as refused:
        ids = processor(text, pictures(count))["input_ids"][0].tolist()
    marks = text.count(IMAGE_MARK) if IMAGE_MARK in text else count
    fits = marks == count and text.strip() and text.encode(errors="ignore").decode() == text
    assert bool(refused) != bool(fits)
    if not refused:
        assert ids.count(processor.image_token_id) == count * processor.num_query_tokens
        assert not set(ids) & {*processor.voken_ids, processor.tokenizer.eos_token_id}
        assert ids.count(processor.tokenizer.bos_token_id) == 1


@given(
    turns=st.lists(st.lists(TYPED | st.none(), min_size=1, max_size=4), min_size=1, max_size=3),
    system=st.none() | TYPED,
)
def test_text_of_messages_is_never_special(small_pipe, causal, clear_errors, turns, system):
    messages = [] if system is None else [{"role": "system", "content": system}]
    for number, parts in enumerate(turns):
        content = [{"type": "text", "text": part} if part is not None else {"type": "image"} for part in parts]
        messages.append({"role": ("user", "assistant")[number % 2], "content": content})
    count = sum(part is None for parts in turns for part in parts)
    processor = small_pipe.processor
    with clear_errors():
        ids = processor(messages, pictures(count))["input_ids"][0].tolist()
        assert ids.count(processor.image_token_id) == count * processor.num_query_tokens
        assert not set(ids) & {*processor.voken_ids, processor.tokenizer.eos_token_id}
        assert ids.count(processor.tokenizer.bos_token_id) == 1
    if count == 0:
        with clear_errors():
            ids = causal.encode([messages])["input_ids"][0].tolist()
            tokenizer = causal.tokenizer
            # As many as the template writes, and no voken.
            assert ids.count(tokenizer.eos_token_id) == len(messages) and not set(ids) & set(causal.voken_ids)
            assert ids.count(tokenizer.bos_token_id) == len(messages) + 1


@given(typed=WRITTEN)
def test_what_is_typed_is_read_as_it_is(small_pipe, typed):
    written, _ = small_pipe.processor.render([{"role": "user", "content": [{"type": "text", "text": f"a{typed}b"}]}])
    assert "".join(written).endswith(f"###Human: a{typed}b ###Assistant:")
    answer = {"role": "assistant", "content": [{"type": "text", "text": f"a{typed}"}, {"type": "image"}]}
    example = small_pipe.processor.example([{"role": "user", "content": "draw"}, answer])
    assert example.target == [f"a{typed}", " ", Mark.VOKENS, " ###"]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TYPED | st.binary(max_size=4) | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("role", "content", "type", "text", "image", "url", "")) | TYPED, inner, max_size=3
        )
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)
ROLES = st.sampled_from(("user", "assistant", "system"))
CONTENT = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(("text", "image")) | JUNK}, optional={"text": TYPED | JUNK, "image": JUNK}
    )
    | JUNK,
    max_size=3,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({}, optional={"role": ROLES | JUNK, "content": TYPED | CONTENT | JUNK}) | JUNK, max_size=3
)


@given(prompt=MESSAGES | JUNK | st.builds(Example, JUNK, JUNK, JUNK), images=st.none() | JUNK)
def test_any_messages(small_pipe, causal, clear_errors, prompt, images):
    options = {"max_new_tokens": 1, "image_mode": "never"}
    for read in (
        lambda: small_pipe(prompt, images, **options),
        lambda: small_pipe.processor.apply_chat_template(prompt),
        lambda: causal.encode([prompt], None if images is None else [images]),
    ):
        with clear_errors():
            read()


ROWS = st.lists(
    st.tuples(WRITTEN.map(lambda text: text.replace(IMAGE_MARK, " ") + "a"), st.integers(0, 2), st.integers(1, 8)),
    min_size=2,
    max_size=4,
)


@given(
    rows=ROWS,
    mode=st.sampled_from(("auto", "always", "never")),
    sample=st.booleans(),
    penalty=st.sampled_from((1.0, 2.0)),
    images=st.integers(1, 2),
)
def test_a_row_is_what_it_is_alone(small_pipe, rows, mode, sample, penalty, images):
    settings = {"image_mode": mode, "do_sample": sample, "repetition_penalty": penalty, "max_images": images}
    settings |= {"max_new_tokens": 6, "num_inference_steps": 1, "output_type": "latent", "temperature": 3.0}

    def reply(rows):
        seeds = [torch.Generator().manual_seed(seed) for _, _, seed in rows]
        return small_pipe([text for text, _, _ in rows], [pictures(n) for _, n, _ in rows], generator=seeds, **settings)

    together = reply(rows)
    for place, row in enumerate(rows):
        alone = reply([row])
        assert together.text[place] == alone.text[0] == alone.text[0].strip(LAYOUT)
        assert len(together.images[place]) == len(alone.images[0])
        for one, other in zip(together.images[place], alone.images[0], strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
