"""InstructBLIP: the Q-Former reads the instruction with the picture (arXiv 2305.06500)."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any, NamedTuple

import torch
from transformers import (
    BatchFeature,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from minigpt5.readers.conversation import ChatTemplate, Question, template_of
from minigpt5.readers.generic import Reader
from minigpt5.readers.minigpt4 import MiniGPT4Reader
from minigpt5.readers.prompts import Message
from minigpt5.readers.styles import MINIGPT4

# MiniGPT-4's dialogue for a tokenizer of transformers.
_DIALOGUE = (
    MINIGPT4.chat_template.replace("<ImageHere>", "<image>")
    + "{%- if not add_generation_prompt and messages[-1].role == 'assistant' -%}{{ '###' }}{%- endif -%}"
)


class InstructBlipReader(MiniGPT4Reader):
    """Reads each picture in the light of what is said in the same turn.

    With a chat template pictures stand where they are mentioned. Without one, as the published models are, all of them
    stand before the beginning of the text, and a user's only turn is read as it is.
    """

    processor: Any
    encode, training_batch, stop_strings = Reader.encode, Reader.training_batch, Reader.stop_strings

    @property
    def eos_token_ids(self) -> set[int]:
        """As of other readers."""
        return super(MiniGPT4Reader, self).eos_token_ids

    @cached_property
    def chat(self) -> ChatTemplate:
        """How a conversation is written."""
        return (ChatTemplate if template_of(self.processor) else Question)(self.processor)

    def _row(self, messages: list[Message], pictures: list[Any]) -> dict[str, Any]:
        row = super()._row(messages, pictures)
        asked = []
        for message in messages:
            texts = [part["text"] for part in message["content"] if part["type"] == "text"]
            asked += [" ".join(texts)] * (len(message["content"]) - len(texts))
        if asked:
            tokenizer = self.processor.qformer_tokenizer
            room = min(tokenizer.model_max_length, self.model.config.qformer_config.max_position_embeddings)
            read = tokenizer(asked, padding=True, truncation=True, max_length=room, return_tensors="pt")
            row |= {f"qformer_{name}": read[name] for name in ("input_ids", "attention_mask")}
        return row

    def _call(self, text: str, pictures: list[Any], **options: Any) -> dict[str, torch.Tensor]:
        # Its own processor takes no picture within a text, and of several only one.
        mark, count = str(self.processor.image_token), self.processor.num_query_tokens
        made = self.tokenizer([text.replace(mark, mark * count)], **options)
        if self.chat.template is None and pictures:
            before = torch.tensor([[self.image_token_id] * (count * len(pictures))])
            made["input_ids"] = torch.cat([before, made["input_ids"].long()], dim=1)
        return {**made, **(self.processor.image_processor(pictures, return_tensors="pt") if pictures else {})}

    @cached_property
    def _takes(self) -> set[str]:
        return {"pixel_values"}

    def picture_keys(self, inputs: BatchFeature, pictures: list[Any]) -> list[bytes]:
        """Of a picture and what is asked of it."""
        if not pictures:
            return []
        asked = zip(inputs["qformer_input_ids"], inputs["qformer_attention_mask"].bool(), strict=True)
        plain = super().picture_keys(inputs, pictures)
        return [key + ids[there].numpy().tobytes() for key, (ids, there) in zip(plain, asked, strict=True)]

    def _rest(self, inputs: BatchFeature, shared: int, pictures: list[Any]) -> BatchFeature:
        rest: Any = super()._rest(inputs, shared, [])
        names = [name for name in inputs if name == "pixel_values" or name.startswith("qformer_")]
        rest.update({name: inputs[name][-len(pictures) :] for name in names if pictures})
        return rest

    @property
    def picture_parts(self) -> list:
        """Nothing, as what becomes of a picture depends on what is asked of it."""
        return []

    def picture_features(self, inputs: BatchFeature) -> torch.Tensor:
        """What the Q-Former makes of pictures and instructions, projected: `(pictures, queries, hidden)`."""
        return self.model.get_image_features(
            inputs["pixel_values"].to(self.model.dtype),
            qformer_input_ids=inputs["qformer_input_ids"],
            qformer_attention_mask=inputs["qformer_attention_mask"],
            return_dict=True,
        ).pooler_output


# Each stands behind the picture; `{question}` and `{answer}` are the data set's (appendix C).
CAPTION_TEMPLATES = (
    "A short image caption:",
    "A short image description:",
    "A photo of",
    "An image that shows",
    "Write a short description for the image.",
    "Write a description for the photo.",
    "Provide a description of what is presented in the photo.",
    "Briefly describe the content of the image.",
    "Can you briefly explain what you see in the image?",
    "Could you use a few words to describe what you perceive in the photo?",
    "Please provide a short depiction of the picture.",
    "Using language, provide a short account of the image.",
    "Use a few words to illustrate what is happening in the picture.",
)
QUESTION_TEMPLATES = (
    "{question}",
    "Question: {question}",
    "{question} A short answer to the question is",
    "Q: {question} A:",
    "Question: {question} Short answer:",
    "Given the image, answer the following question with no more than three words. {question}",
    "Based on the image, respond to this question with a short answer: {question}. Answer:",
    "Use the provided image to answer the question: {question} Provide your answer as short as possible:",
    'What is the answer to the following question? "{question}"',
    'The question "{question}" can be answered using the image. A short answer is',
)
ASKING_TEMPLATES = (
    "Given the image, generate a question whose answer is: {answer}. Question:",
    "Based on the image, provide a question with the answer: {answer}. Question:",
    'Given the visual representation, create a question for which the answer is "{answer}".',
    "From the image provided, craft a question that leads to the reply: {answer}. Question:",
    "Considering the picture, come up with a question where the answer is: {answer}.",
    "Taking the image into account, generate an question that has the answer: {answer}. Question:",
)


class DataSet(NamedTuple):
    """One of the 26 data sets.

    Args:
        task: its group (figure 2).
        held_out: whether the published model was judged on it without having seen it.
        templates: of its prompts; empty where the data set's own instructions are the prompts.
    """

    task: str
    held_out: bool
    templates: tuple[str, ...]


_SHORT = ("Question: {question} Short answer:",)
# The held-out ones have the one prompt that they were judged by (appendix E).
DATA_SETS = {
    "COCO Caption": DataSet("captions", False, CAPTION_TEMPLATES),
    "Web CapFilt": DataSet("captions", False, CAPTION_TEMPLATES),
    "NoCaps": DataSet("captions", True, ("A short image description:",)),
    "Flickr30K": DataSet("captions", True, ("A short image description:",)),
    "TextCaps": DataSet("captions of text", False, CAPTION_TEMPLATES),
    "VQAv2": DataSet("questions", False, QUESTION_TEMPLATES),
    "VizWiz": DataSet("questions", True, _SHORT),
    "OKVQA": DataSet("questions of knowledge", False, QUESTION_TEMPLATES),
    "A-OKVQA": DataSet("questions of knowledge", False, QUESTION_TEMPLATES),
    "ScienceQA": DataSet(
        "questions of knowledge", True, ("Context: {context} Question: {question} Options: {options}. Answer:",)
    ),
    "OCR-VQA": DataSet("questions of text", False, QUESTION_TEMPLATES),
    "TextVQA": DataSet("questions of text", True, ("OCR tokens: {tokens}. Question: {question} Short answer:",)),
    "GQA": DataSet("visual reasoning", True, _SHORT),
    "VSR": DataSet(
        "visual reasoning", True, ('Based on the image, is this statement true or false? "{question}" Answer:',)
    ),
    "IconQA": DataSet("visual reasoning", True, ("Question: {question} Options: {options}. Short answer:",)),
    "VQAv2 questions": DataSet("asking", False, ASKING_TEMPLATES),
    "OKVQA questions": DataSet("asking", False, ASKING_TEMPLATES),
    "A-OKVQA questions": DataSet("asking", False, ASKING_TEMPLATES),
    "MSVD-QA": DataSet("questions of films", True, _SHORT),
    "MSRVTT-QA": DataSet("questions of films", True, _SHORT),
    "iVQA": DataSet("questions of films", True, _SHORT),
    "Visual Dialog": DataSet("talks", True, ("Dialog history: {history}\n Question: {question} Short answer:",)),
    "HatefulMemes": DataSet(
        "classes", True, ('This is an image with: "{text}" written on it. Is it hateful? Answer:',)
    ),
    "LLaVA conversation": DataSet("instructions", False, ()),
    "LLaVA detail": DataSet("instructions", False, ()),
    "LLaVA reasoning": DataSet("instructions", False, ()),
}
"""The 26 data sets with the templates of their prompts (arXiv 2305.06500, appendices B, C and E)."""


@torch.no_grad()
def instructblip_of(
    minigpt4: Any, image_processor: Any, tokenizer: Any
) -> tuple[InstructBlipForConditionalGeneration, InstructBlipProcessor]:
    """InstructBLIP of MiniGPT-4's parts, whose Q-Former learns to read instructions; the parts' weights are copied.

    New is what the Q-Former has for text, its embeddings and feed-forward layers, published ones of which begin as
    BERT's. It reads by the language model's tokenizer.

    Args:
        minigpt4: a MiniGPT-4 or another BLIP-2 with a decoder.
        image_processor, tokenizer: of its processor; a copy of the tokenizer gets the mark of a picture, and in the
            place of its chat template stands MiniGPT-4's dialogue.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = _DIALOGUE
    words = copy.deepcopy(tokenizer)
    processor = InstructBlipProcessor(image_processor, tokenizer, words, minigpt4.config.num_query_tokens)
    vision, qformer = (getattr(minigpt4.config, f"{name}_config").to_dict() for name in ("vision", "qformer"))
    for own in (vision, qformer):
        del own["model_type"]
    config = InstructBlipConfig(
        vision_config=vision,
        qformer_config=qformer | {"vocab_size": len(words)},
        text_config=minigpt4.config.text_config.to_dict(),
        num_query_tokens=minigpt4.config.num_query_tokens,
        image_token_index=tokenizer.convert_tokens_to_ids(str(processor.image_token)),
    )
    model = InstructBlipForConditionalGeneration(config)
    state = minigpt4.state_dict()
    for kind in ("weight", "bias"):
        state[f"qformer.embeddings.layernorm.{kind}"] = state.pop(f"qformer.layernorm.{kind}")
    model.load_state_dict(state, strict=False)
    table: Any = model.get_input_embeddings()
    if len(tokenizer) > len(table.weight):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model.eval(), processor
