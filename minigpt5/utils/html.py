"""Self-contained HTML of text and pictures: no script, no file beside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# What all pages are coloured by.
LIGHT = """--ink: #2b2a33; --soft: #8b8577; --accent: #b4532f; --paper: #f4efe4; --card: #fffdf8; --line: #e7dfce;
  --shadow: 0 1px 2px #4a3b1e14, 0 12px 32px #4a3b1e14;"""
DARK = """--ink: #ece7dc; --soft: #969083; --accent: #eba27f; --paper: #17181d; --card: #212329; --line: #32353d;
  --shadow: 0 12px 32px #00000040;"""

# The steps of a story. Pictures are 20rem wide; smaller ones are enlarged smoothly.
CARDS = """
.step, .reply { background: var(--card); border: 1px solid var(--line); border-radius: 20px; box-shadow: var(--shadow);
  margin: 0 0 2rem; overflow-wrap: anywhere; }
.step { display: flex; align-items: center; gap: 2.5rem; padding: 1.25rem; }
.step:nth-of-type(even) { flex-direction: row-reverse; }
.step .words { flex: 1; padding: 0 1rem; font-size: 1.6rem; line-height: 1.4; text-wrap: pretty; }
.number { display: block; margin-bottom: .5rem; font-size: .95rem; font-style: italic; color: var(--soft); }
.picture { flex: none; }
.picture img { display: block; width: 20rem; max-width: 100%; border-radius: 12px; }
p { margin: 0; }
@media (max-width: 44rem) {
  .step, .step:nth-of-type(even) { flex-direction: column; align-items: stretch; gap: 1rem; }
  .step .picture img { width: 100%; } .step .words { padding: 0 .25rem .5rem; font-size: 1.3rem; } }
"""

_PAGE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1.25rem/1.55 'Iowan Old Style', Palatino, 'Palatino Linotype', 'Book Antiqua', Georgia, serif; }
main { max-width: 54rem; margin: 0 auto; padding: 4rem 1.5rem 3rem; }
header { text-align: center; margin: 0 auto 3rem; max-width: 38rem; }
header small { display: block; margin-bottom: .8rem; font-size: .85rem; letter-spacing: .18em;
  text-transform: uppercase; color: var(--accent); }
h1 { margin: 0; font-weight: 600; font-size: 2.2rem; line-height: 1.25; text-wrap: balance; }
header .picture { display: inline-block; margin: 1.2rem .4rem 0; padding: 0; }
header .picture img { width: 8rem; }
.reply { padding: 1.5rem 2rem; width: fit-content; min-width: min(100%, 24rem); margin-inline: auto; }
.reply .picture { margin: 1.2rem 0; }
.reply p { margin: .6rem 0; }
.prompt { width: fit-content; margin: 0 auto 1rem; color: var(--soft); overflow-wrap: anywhere; }
.prompt .picture { display: inline-block; margin: 0 .8rem .4rem 0; }
.prompt .picture img { width: 8rem; }
footer { margin-top: 3rem; font-size: .9rem; text-align: center; color: var(--soft); }
@media (max-width: 44rem) { main { padding: 2.5rem 1rem 2rem; } h1 { font-size: 1.7rem; } }
@media print { body { background: none; } .step, .reply { break-inside: avoid; box-shadow: none; } }
"""

_COLOURS = f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
"""
STYLE = _COLOURS + CARDS + _PAGE


def base64_png(image: Image.Image) -> str:
    """A picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def data_url(image: Image.Image) -> str:
    """A picture's file as its own address."""
    return f"data:image/png;base64,{base64_png(image)}"


def image_html(image: Image.Image, alt: str = "generated picture") -> str:
    """An `<img>` that carries its picture as PNG."""
    return f'<div class="picture"><img alt="{escape(alt)}" src="{data_url(image)}"></div>'


def segments_html(segments: Sequence[str | Image.Image], kind: str = "reply") -> str:
    """One "reply" or "prompt": paragraphs and pictures in order."""
    parts = [f"<p>{escape(part)}</p>" if isinstance(part, str) else image_html(part) for part in segments]
    return f'<section class="{kind}">{"".join(parts)}</section>'


def step_html(number: int, text: str, picture: str) -> str:
    """A story's step as a card, its picture as HTML."""
    return (
        f'<section class="step">{picture}'
        f'<div class="words"><span class="number">{number}</span><p>{escape(text)}</p></div></section>'
    )


def story_html(title: str, steps: Sequence[tuple[str, Image.Image | None]], footer: str) -> str:
    """A page that tells a story, a card a step."""
    cards = [
        step_html(number, text, image_html(image, text) if image else "")
        for number, (text, image) in enumerate(steps, start=1)
    ]
    return page(title, f"{_header('A story in pictures', title)}{''.join(cards)}<footer>{escape(footer)}</footer>")


def reply_html(prompt: str, images: Sequence[Image.Image], segments: Sequence[str | Image.Image], footer: str) -> str:
    """A page with a prompt, its pictures, and the reply."""
    shown = "".join(image_html(image, "picture of the prompt") for image in images)
    return page(prompt, f"{_header('Prompt', prompt, shown)}{segments_html(segments)}<footer>{escape(footer)}</footer>")


def page(title: str, body: str) -> str:
    """A whole HTML page around a body."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _header(label: str, title: str, pictures: str = "") -> str:
    return f"<header><small>{escape(label)}</small><h1>{escape(title)}</h1>{pictures}</header>"
