"""Self-contained HTML of text and pictures: no script, no file beside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

# Miniature pictures are enlarged with hard pixel edges; large ones are shown smoothly.
_PIXEL_ART = 128

STYLE = """
:root { color-scheme: light dark; --ink: #23252b; --paper: #faf7f0; --card: #fffdf8; --line: #e6dfd0; }
@media (prefers-color-scheme: dark) { :root { --ink: #ece8df; --paper: #17181c; --card: #202228; --line: #34363d; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 19px/1.55 Georgia, 'Times New Roman', serif; }
main { max-width: 46rem; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
h1 { font-weight: 600; font-size: 1.9rem; line-height: 1.25; margin: 0 0 2rem; text-align: center; }
footer { margin-top: 3rem; font-size: .8rem; text-align: center; opacity: .65; }
.reply, .step { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.2rem;
  margin: 0 0 1.6rem; box-shadow: 0 6px 24px #0000000f; }
.step { display: grid; grid-template-columns: 16rem 1fr; gap: 1.4rem; align-items: center; }
.step:nth-of-type(even) { grid-template-columns: 1fr 16rem; }
.step:nth-of-type(even) .picture { order: 2; }
.picture img { width: 100%; max-width: 20rem; border-radius: 10px; display: block; }
.pixels { image-rendering: pixelated; }
p { margin: .5rem 0; }
@media (max-width: 36rem) { .step, .step:nth-of-type(even) { grid-template-columns: 1fr; }
  .step:nth-of-type(even) .picture { order: 0; } }
"""


def image_html(image: Image.Image, alt: str = "generated picture") -> str:
    """An `<img>` that carries its picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    pixels = ' class="pixels"' if max(image.size) <= _PIXEL_ART else ""
    return f'<div class="picture"><img{pixels} alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}"></div>'


def segments_html(segments: Sequence[str | Image.Image]) -> str:
    """One reply: paragraphs and pictures in order."""
    parts = [f"<p>{escape(part)}</p>" if isinstance(part, str) else image_html(part) for part in segments]
    return f'<section class="reply">{"".join(parts)}</section>'


def story_html(title: str, steps: Sequence[tuple[str, Image.Image | None]], footer: str) -> str:
    """A page that tells a story, a card a step."""
    cards = [
        f'<section class="step">{image_html(image, text) if image else ""}<p>{escape(text)}</p></section>'
        for text, image in steps
    ]
    body = f"<h1>{escape(title)}</h1>{''.join(cards)}<footer>{escape(footer)}</footer>"
    return page(title, body)


def page(title: str, body: str) -> str:
    """A whole HTML page around a body."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )
