"""A tiny random model and its processor of each family that reads, made without a hub.

Each processor is the family's own class around a small tokenizer, with the family's special tokens and a short chat
template in its form.
"""

from __future__ import annotations

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer
from transformers.models.smolvlm import processing_smolvlm
from transformers.utils import is_torchvision_greater_or_equal

from minigpt5 import MiniGPT4ForConditionalGeneration, MiniGPT5Processor
from minigpt5.readers.additions import VisualExpert
from minigpt5.readers.cogvlm import COGVLM
from minigpt5.readers.compose import compose
from minigpt5.readers.llava import LLAVA_15
from minigpt5.readers.minigpt_v2 import MINIGPT_V2
from minigpt5.readers.qwen_vl import QWEN_VL
from minigpt5.readers.sphinx import CLIP_NORM, IMAGENET_NORM, SPHINX_1K
from minigpt5.readers.tinygpt_v import TINYGPT_V
from minigpt5.storyworld import miniature

# Spells the frame numbers of videos, for which alone the processor wants a further package.
processing_smolvlm.num2words = processing_smolvlm.num2words or str

WIDTH = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = WIDTH | {"num_key_value_heads": 2, "max_position_embeddings": 1024}
LOOK = WIDTH | {"image_size": 28, "patch_size": 14}
QFORMER = WIDTH | {"cross_attention_frequency": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
QFORMER |= {"encoder_hidden_size": 32}

CHATML = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == \
'image' %}PICTURE{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAVA = """{% for message in messages %}{% if message.role == 'user' %}USER: {% else %}ASSISTANT: {% endif %}{% for \
part in message.content %}{% if part.type == 'image' %}<image>
{% endif %}{% endfor %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }} {% endif %}\
{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"""
IDEFICS = """<|im_start|>{% for message in messages %}{{ message.role | capitalize }}{% if message.content[0].type == \
'image' %}:{% else %}: {% endif %}{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %}\
{{ part.text }}{% endif %}{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""
GEMMA = """{{ bos_token }}{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}<start_of_turn>\
{{ 'model' if message.role == 'assistant' else message.role }}
{% for part in message.content %}{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text | trim }}\
{% endif %}{% endfor %}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
MISTRAL = """{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST]{% for part in \
message.content %}{% if part.type == 'image' %}[IMG]{% else %}{{ part.text }}{% endif %}{% endfor %}[/INST]{% else %}\
{{ message.content[0].text }}{{ eos_token }}{% endif %}{% endfor %}"""
JANUS = """{% for message in messages %}<|{{ message.role | capitalize }}|>: {% for part in message.content %}\
{% if part.type == 'image' %}<image_placeholder>
{% else %}{{ part.text }}{% endif %}{% endfor %}

{% endfor %}{% if add_generation_prompt %}<|Assistant|>:{% endif %}"""
LLAMA = """{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>

{{ message.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant\
<|end_header_id|>

{% endif %}"""
QWEN3 = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' and loop.last %}<think>

</think>

{% endif %}{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""


def clip_pictures(side: int = 28) -> hf.CLIPImageProcessor:
    """What makes pictures of one size of all."""
    return hf.CLIPImageProcessor(size={"height": side, "width": side}, do_center_crop=False)


class Families:
    """Builds them: `families("llava")` is a model and its processor.

    Args:
        texts: what the tokenizers are trained on.
    """

    def __init__(self, texts: list[str]):
        self._tokenizer = miniature.build_tokenizer(texts, lowercase=False, max_length=1024).backend_tokenizer.to_str()

    def __call__(self, family: str, tied: bool = False):
        """The model in evaluation mode, with input and output embeddings tied or not, and its processor."""
        torch.manual_seed(0)
        model, processor = getattr(self, family)(tied)
        return model.eval(), processor

    def tokenizer(self, *specials: str, eos_token: str = "</s>", **named: str) -> hf.PreTrainedTokenizerFast:
        """A tokenizer that puts BOS before a text and EOS behind it, with more special tokens, some with a name."""
        tokenizer = hf.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(self._tokenizer),
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
            extra_special_tokens=named,
            model_max_length=1024,
            clean_up_tokenization_spaces=False,
        )
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
        tokenizer.eos_token = eos_token
        return tokenizer

    def text(self, tokenizer: hf.PreTrainedTokenizerFast, tied: bool, **more) -> dict:
        """The language model's configuration."""
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return TEXT | ids | {"vocab_size": len(tokenizer), "tie_word_embeddings": tied} | more

    def minigpt4(self, tied):
        tokenizer = self.tokenizer()
        processor = MiniGPT5Processor(miniature.build_image_processor(), tokenizer, num_query_tokens=4, n_vokens=4)
        config = hf.Blip2Config(
            vision_config=LOOK | {"image_size": 64, "patch_size": 32, "initializer_range": 0.02},
            qformer_config=QFORMER | {"vocab_size": 1},
            text_config=self.text(tokenizer, tied, model_type="llama"),
            num_query_tokens=4,
            image_token_index=processor.image_token_id,
        )
        model = MiniGPT4ForConditionalGeneration(config)
        model.query_tokens.data.normal_(std=0.02)
        return model, processor

    def blip2(self, tied):
        tokenizer = self.tokenizer("<image>")
        image_processor = hf.BlipImageProcessorPil(size={"height": 28, "width": 28})
        config = hf.Blip2Config(
            vision_config=LOOK | {"initializer_range": 0.02},
            qformer_config=QFORMER | {"vocab_size": 1},
            text_config=self.text(
                tokenizer, tied, model_type="opt", ffn_dim=64, word_embed_proj_dim=32, num_key_value_heads=None
            ),
            num_query_tokens=4,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
        model = hf.Blip2ForConditionalGeneration(config)
        model.query_tokens.data.normal_(std=0.02)
        return model, hf.Blip2Processor(image_processor, tokenizer, num_query_tokens=4)

    def instructblip(self, tied):
        tokenizer, words = self.tokenizer(), self.tokenizer()
        image_processor = hf.BlipImageProcessor(size={"height": 28, "width": 28})
        processor = hf.InstructBlipProcessor(image_processor, tokenizer, words, num_query_tokens=4)
        config = hf.InstructBlipConfig(
            vision_config=LOOK | {"initializer_range": 0.02},
            qformer_config=QFORMER | {"vocab_size": len(words)},
            text_config=self.text(tokenizer, tied, model_type="llama"),
            num_query_tokens=4,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
        model = hf.InstructBlipForConditionalGeneration(config)
        model.query_tokens.data.normal_(std=0.02)
        return model, processor

    def llava(self, tied):
        tokenizer = self.tokenizer("<image>")
        size = {"height": 28, "width": 28}
        image_processor = hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=size)
        processor = hf.LlavaProcessor(
            image_processor,
            tokenizer,
            patch_size=14,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=LLAVA,
        )
        config = hf.LlavaConfig(
            vision_config=LOOK | {"model_type": "clip_vision_model", "projection_dim": 32},
            text_config=self.text(tokenizer, tied, model_type="llama"),
            image_token_index=processor.image_token_id,
            tie_word_embeddings=tied,
        )
        return hf.LlavaForConditionalGeneration(config), processor

    def llava_onevision(self, tied):
        tokenizer = self.tokenizer("<|im_start|>", "<|im_end|>", "<image>", "<video>", eos_token="<|im_end|>")
        processor = hf.LlavaOnevisionProcessor(
            hf.LlavaOnevisionImageProcessor(
                size={"height": 28, "width": 28}, image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]]
            ),
            tokenizer,
            hf.LlavaOnevisionVideoProcessor(),
            num_image_tokens=4,
            vision_feature_select_strategy="full",
            chat_template=CHATML.replace("PICTURE", "<image>\n"),
        )
        config = hf.LlavaOnevisionConfig(
            vision_config=LOOK | {"model_type": "siglip_vision_model", "vision_use_head": False},
            text_config=self.text(tokenizer, tied, model_type="qwen2"),
            image_token_index=processor.image_token_id,
            video_token_index=processor.video_token_id,
            image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
            tie_word_embeddings=tied,
        )
        return hf.LlavaOnevisionForConditionalGeneration(config), processor

    def _qwen_vl(self, tied, name, processor_class, video_processor, vision, **text):
        marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
        tokenizer = self.tokenizer("<|im_start|>", "<|im_end|>", *marks, eos_token="<|im_end|>")
        patch = vision["patch_size"]
        area = {"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 8 * (2 * patch) ** 2}
        processor = processor_class(
            hf.Qwen2VLImageProcessor(size=area, patch_size=patch, merge_size=2),
            tokenizer,
            video_processor,
            chat_template=CHATML.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>"),
        )
        rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
        start, end, image, video = tokenizer.convert_tokens_to_ids(list(marks))
        config = getattr(hf, f"{name}Config")(
            text_config=self.text(tokenizer, tied, rope_parameters=rope, **text),
            vision_config=vision,
            vision_start_token_id=start,
            vision_end_token_id=end,
            image_token_id=image,
            video_token_id=video,
            tie_word_embeddings=tied,
        )
        return getattr(hf, f"{name}ForConditionalGeneration")(config), processor

    def qwen2_vl(self, tied):
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
        return self._qwen_vl(tied, "Qwen2VL", hf.Qwen2VLProcessor, hf.Qwen2VLVideoProcessor(), vision)

    def qwen2_5_vl(self, tied):
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
        vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2}
        return self._qwen_vl(tied, "Qwen2_5_VL", hf.Qwen2_5_VLProcessor, hf.Qwen2VLVideoProcessor(), vision)

    def qwen3_vl(self, tied):
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
        vision |= {"patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        return self._qwen_vl(tied, "Qwen3VL", hf.Qwen3VLProcessor, hf.Qwen3VLVideoProcessor(), vision, head_dim=8)

    def _idefics(self, tied, name, *video_processor):
        marks = [f"<row_{row}_col_{col}>" for row in (1, 2) for col in (1, 2)]
        tokenizer = self.tokenizer(
            "<|im_start|>", "<fake_token_around_image>", "<image>", "<global-img>", *marks, "<end_of_utterance>"
        )
        # What AutoProcessor opens: below 0.27 torchvision cannot resize as these processors do.
        backend = "" if is_torchvision_greater_or_equal("0.27") else "Pil"
        processor = getattr(hf, f"{name}Processor")(
            getattr(hf, f"{name}ImageProcessor{backend}")(
                size={"longest_edge": 56}, max_image_size={"longest_edge": 28}, do_image_splitting=True
            ),
            tokenizer,
            *video_processor,
            image_seq_len=1,
            chat_template=IDEFICS,
        )
        config = getattr(hf, f"{name}Config")(
            vision_config=LOOK,
            text_config=self.text(tokenizer, tied, model_type="llama"),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            scale_factor=2,
            tie_word_embeddings=tied,
        )
        return getattr(hf, f"{name}ForConditionalGeneration")(config), processor

    def idefics3(self, tied):
        return self._idefics(tied, "Idefics3")

    def smolvlm(self, tied):
        return self._idefics(tied, "SmolVLM", hf.SmolVLMVideoProcessor())

    def internvl(self, tied):
        tokenizer = self.tokenizer(
            "<|im_start|>",
            "<|im_end|>",
            eos_token="<|im_end|>",
            start_image_token="<img>",
            end_image_token="</img>",
            context_image_token="<IMG_CONTEXT>",
            video_token="<video>",
        )
        processor = hf.InternVLProcessor(
            hf.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=3),
            tokenizer,
            hf.InternVLVideoProcessor(),
            image_seq_length=1,
            chat_template=CHATML.replace("PICTURE", "<IMG_CONTEXT>\n"),
        )
        config = hf.InternVLConfig(
            vision_config=LOOK | {"image_size": (28, 28), "patch_size": (14, 14)},
            text_config=self.text(tokenizer, tied, model_type="qwen2"),
            image_token_id=processor.image_token_id,
            image_seq_length=1,
            tie_word_embeddings=tied,
        )
        return hf.InternVLForConditionalGeneration(config), processor

    def gemma3(self, tied):
        tokenizer = self.tokenizer(
            "<start_of_turn>",
            "<end_of_turn>",
            image_token="<image_soft_token>",
            boi_token="<start_of_image>",
            eoi_token="<end_of_image>",
        )
        processor = hf.Gemma3Processor(
            hf.Gemma3ImageProcessor(size={"height": 28, "width": 28}),
            tokenizer,
            chat_template=GEMMA,
            image_seq_length=4,
        )
        # A window shorter than the prompts.
        text = {"head_dim": 8, "sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}
        config = hf.Gemma3Config(
            vision_config=LOOK | {"model_type": "siglip_vision_model", "vision_use_head": False},
            text_config=self.text(tokenizer, tied, query_pre_attn_scalar=8, **text),
            mm_tokens_per_image=4,
            image_token_index=tokenizer.image_token_id,
            boi_token_index=tokenizer.boi_token_id,
            eoi_token_index=tokenizer.eoi_token_id,
            tie_word_embeddings=tied,
        )
        model = hf.Gemma3ForConditionalGeneration(config)
        # Made of zeros, which would hide all pictures.
        model.model.multi_modal_projector.mm_input_projection_weight.data.normal_(std=0.1)
        return model, processor

    def paligemma(self, tied):
        tokenizer = self.tokenizer("<image>")
        image_processor = hf.SiglipImageProcessor(size={"height": 28, "width": 28})
        image_processor.image_seq_length = 4
        processor = hf.PaliGemmaProcessor(image_processor, tokenizer)
        config = hf.PaliGemmaConfig(
            vision_config=LOOK | {"model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": 32},
            text_config=self.text(tokenizer, tied, model_type="gemma", head_dim=8, vocab_size=len(processor.tokenizer)),
            image_token_index=processor.image_token_id,
            projection_dim=32,
            hidden_size=32,
            tie_word_embeddings=tied,
        )
        return hf.PaliGemmaForConditionalGeneration(config), processor

    def mistral3(self, tied):
        tokenizer = self.tokenizer("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
        processor = hf.PixtralProcessor(
            hf.PixtralImageProcessor(size={"longest_edge": 56}, patch_size={"height": 14, "width": 14}),
            tokenizer,
            patch_size=14,
            spatial_merge_size=2,
            chat_template=MISTRAL,
        )
        config = hf.Mistral3Config(
            vision_config=LOOK | {"model_type": "pixtral", "image_size": 56, "head_dim": 8},
            text_config=self.text(tokenizer, tied, model_type="mistral", head_dim=8, sliding_window=None),
            image_token_index=processor.image_token_id,
            tie_word_embeddings=tied,
        )
        return hf.Mistral3ForConditionalGeneration(config), processor

    def janus(self, tied):
        tokenizer = self.tokenizer(
            image_token="<image_placeholder>", boi_token="<begin_of_image>", eoi_token="<end_of_image>"
        )
        processor = hf.JanusProcessor(
            hf.JanusImageProcessor(size={"height": 28, "width": 28}),
            tokenizer,
            chat_template=JANUS,
            num_image_tokens=4,
        )
        vision = LOOK | {"mlp_ratio": 2.0, "projection_dim": 32, "num_image_tokens": 4}
        sizes = {"embed_dim": 4, "num_embeddings": 8, "latent_channels": 4, "base_channels": 32, "num_patches": 2}
        sizes |= {"channel_multiplier": [1], "num_res_blocks": 1, "projection_dim": 32, "image_token_embed_dim": 32}
        config = hf.JanusConfig(
            vision_config=vision,
            vq_config=sizes,
            text_config=self.text(tokenizer, tied, model_type="llama"),
            image_token_id=tokenizer.image_token_id,
            tie_word_embeddings=tied,
        )
        return hf.JanusForConditionalGeneration(config), processor

    def language_model(self, kind, tied, tokenizer, **more):
        """A causal language model, and its tokenizer."""
        config = self.text(tokenizer, tied, **more)
        return getattr(hf, f"{kind}ForCausalLM")(getattr(hf, f"{kind}Config")(**config)), tokenizer

    def composed_llava(self, tied):
        parts = self.language_model("Llama", tied, self.tokenizer())
        return compose(LLAVA_15, *parts, [hf.CLIPVisionModel(hf.CLIPVisionConfig(**LOOK))], clip_pictures())

    def minigpt_v2(self, tied):
        look = LOOK | {"image_size": 56, "initializer_range": 0.02, "post_layernorm_eps": 1e-5}
        encoder = hf.Blip2VisionModel(hf.Blip2VisionConfig(**look))
        parts = self.language_model("Llama", tied, self.tokenizer())
        return compose(MINIGPT_V2, *parts, [encoder], clip_pictures(56))

    def tinygpt_v(self, tied):
        blip2, _ = self.minigpt4(tied)
        parts = self.language_model("Phi", tied, self.tokenizer(), partial_rotary_factor=0.5)
        options = {"connector_options": {"width": 32}}
        return compose(TINYGPT_V, *parts, [], clip_pictures(64), blip2, **options)

    def sphinx(self, tied):
        encoders = [
            hf.CLIPVisionModel(hf.CLIPVisionConfig(**LOOK, **CLIP_NORM)),
            hf.ConvNextModel(
                hf.ConvNextConfig(depths=[1, 1, 1], hidden_sizes=[8, 8, 16], num_stages=3, image_size=32, **CLIP_NORM)
            ),
            hf.Dinov2Model(hf.Dinov2Config(**LOOK | {"image_size": 56}, mlp_ratio=2, **IMAGENET_NORM)),
        ]
        blip2, _ = self.blip2(tied)
        blip2.vision_model.config.image_mean, blip2.vision_model.config.image_std = CLIP_NORM.values()
        parts = self.language_model("Llama", tied, self.tokenizer())
        return compose(SPHINX_1K, *parts, encoders, clip_pictures(), blip2)

    def cogvlm(self, tied):
        parts = self.language_model("Llama", tied, self.tokenizer())
        encoder = hf.CLIPVisionModel(hf.CLIPVisionConfig(**LOOK))
        model, processor = compose(COGVLM, *parts, [encoder], clip_pictures(), connector_options={"width": 48})
        # As after training: other matrices for pictures than for words.
        for module in model.modules():
            if isinstance(module, VisualExpert):
                module.vision.weight.data += 0.02 * torch.randn_like(module.vision.weight)
        return model, processor

    def qwen_vl(self, tied):
        parts = self.language_model("Qwen2", tied, self.tokenizer())
        look = LOOK | {"image_size": 56}
        encoder = hf.CLIPVisionModel(hf.CLIPVisionConfig(**look))
        options = {"connector_options": {"queries": 4, "heads": 4}}
        return compose(QWEN_VL, *parts, [encoder], clip_pictures(56), **options)

    def llama(self, tied):
        tokenizer = self.tokenizer("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", eos_token="<|eot_id|>")
        tokenizer.chat_template = LLAMA
        return hf.LlamaForCausalLM(hf.LlamaConfig(**self.text(tokenizer, tied))), tokenizer

    def qwen3(self, tied):
        tokenizer = self.tokenizer("<|im_start|>", "<|im_end|>", eos_token="<|im_end|>")
        tokenizer.chat_template = QWEN3
        return hf.Qwen3ForCausalLM(hf.Qwen3Config(**self.text(tokenizer, tied, head_dim=8))), tokenizer

    def gpt2(self, tied):
        tokenizer = self.tokenizer()
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
        text = self.text(tokenizer, tied)
        return hf.GPT2LMHeadModel(
            hf.GPT2Config(**sizes, **{name: text[name] for name in text if "_" in name and name not in TEXT})
        ), tokenizer
