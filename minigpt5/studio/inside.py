"""The page that shows what a model did: how sure it was of words and vokens, and what guidance does to a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import gradio as gr

from minigpt5.chat import user_turn
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.service.engine import Engine
from minigpt5.studio.pictures import Pictures, box, opened
from minigpt5.studio.turns import ENDS
from minigpt5.vokens.inspection import Choice, Inspection, inspect_reply

PROMPT = "Draw this: a red fox in the forest."
EXPLANATION = (
    "The likeliest reply, token by token: the darker, the surer the model was; point at a token for what else it might "
    "have said. A picture is a block of *vokens*: `[IMG0]` is chosen like a word, the others follow by themselves, "
    "however probable they are. What the model makes of them is painted twice from the same noise: without guidance, "
    "and with it."
)
# Where the model itself paints without guidance.
SHOWN_SCALE = 2.5
_SECTION = '<section class="inside"><h3>{}</h3>{}</section>'


class InsidePage:
    """Builds the page into the `gr.Blocks` in progress.

    Args:
        engine: whose model is looked into.
        pictures: where pictures are put for the browser.
    """

    def __init__(self, engine: Engine, pictures: Pictures):
        self.engine, self.pictures = engine, pictures
        pipe = engine.pipe
        own = pipe.config["guidance_scale"]
        # A guider of diffusers has its scale itself, and is not to be turned off.
        self.scales: Sequence[float | None] = (None,) if pipe.guider else (1.0, own if own > 1 else SHOWN_SCALE)
        gr.Markdown(EXPLANATION)
        prompt = box("inside-prompt", "What is answered, and perhaps pictures", PROMPT, file_count="multiple")
        seed = gr.Number(0, label="Seed of the pictures", precision=0, minimum=0)
        shown = gr.HTML(elem_id="inside")
        prompt.submit(self.look, [prompt, seed], shown, show_progress="hidden", api_visibility="private")

    def look(self, prompt: dict, seed: float | None) -> Iterator[str]:
        """What was said, then each picture without guidance and with it."""
        images = opened(prompt)
        try:
            messages = [user_turn(prompt["text"], images)]

            def inspect(pipe: MiniGPT5Pipeline) -> Inspection:
                inputs = pipe.encode_prompt([messages]).to(pipe.device)
                return inspect_reply(pipe.reader, inputs, pipe.decoding_config())

            told = _inspection_html(self.engine.use(inspect))
            yield told
            options = {"seed": int(seed or 0), "do_sample": False}
            replies = [self.engine.submit(messages, guidance_scale=scale, **options) for scale in self.scales]
            pictures = [[part for part in reply.segments() if not isinstance(part, str)] for reply in replies]
        except (*ENDS, TypeError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from None
        for number, same in enumerate(zip(*pictures, strict=True), 1):
            told += _SECTION.format(f"Picture {number}", self._side_by_side(same))
        yield told

    def _side_by_side(self, same: Sequence[Any]) -> str:
        figures = [
            f"<figure>{self.pictures.html(image, 'painted picture')}<figcaption>{_named(scale)}</figcaption></figure>"
            for scale, image in zip(self.scales, same, strict=True)
        ]
        return f'<div class="side-by-side">{"".join(figures)}</div>'


def _named(scale: float | None) -> str:
    if scale is None:
        return "as its guider guides it"
    return "without guidance" if scale <= 1 else f"guidance {scale:g}"


def _inspection_html(inspection: Inspection) -> str:
    """Tokens and vokens, each on a ground as strong as it was probable."""
    words = "".join(map(_choice_html, inspection.choices))
    parts = [_SECTION.format("What was chosen", f'<p class="tokens">{words}</p>')]
    for number, block in enumerate(inspection.vokens, 1):
        vokens = "".join(
            _token_html(name, share, "not told" if share is None else f"{share:.1%}") for name, share in block
        )
        parts.append(_SECTION.format(f"The vokens of picture {number}", f'<p class="tokens">{vokens}</p>'))
    return "".join(parts)


def _choice_html(choice: Choice) -> str:
    others = ", ".join(f"{token.strip() or repr(token)} {share:.1%}" for token, share in choice.others)
    return _token_html(choice.token, choice.probability, f"{choice.probability:.1%}; or {others}")


def _token_html(token: str, share: float | None, title: str) -> str:
    percent = "" if share is None else f"<small>{share:.0%}</small>"
    ground = f"color-mix(in srgb, var(--accent) {round(60 * (share or 0))}%, transparent)"
    spelt = escape(token.strip()) or "␣"
    return f'<span class="token" title="{escape(title)}" style="background: {ground}">{spelt}{percent}</span>'
