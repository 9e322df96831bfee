"""The Studio as a whole: its pages around one engine, and a server for them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Mapping
from contextlib import closing
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from uvicorn import Config, Server

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.service.engine import Engine
from minigpt5.service.feedback import FeedbackStore
from minigpt5.studio.chat import ChatPage
from minigpt5.studio.inside import InsidePage
from minigpt5.studio.pictures import Pictures
from minigpt5.studio.storybook import StorybookPage
from minigpt5.utils.html import CARDS, DARK, LIGHT
from minigpt5.weights import title_of

LARGEST_UPLOAD = "10mb"
# Replies that browsers wait for at the same time.
MOST_LISTENERS = 32

# Small pictures are enlarged smoothly, and all are as wide as on the library's other pages.
CSS = f"""
:root {{ {LIGHT} }}
.dark, :root:has(.dark) {{ {DARK} }}
.gradio-container {{ width: 100%; max-width: 64rem !important; margin: 0 auto !important; }}
#chat .bot .image-container {{ width: 20rem; max-width: 100%; }}
#chat .user .image-container {{ width: 10rem; max-width: 100%; }}
.image-frame {{ width: 100% !important; padding: 0 !important; }}
.image-frame img {{ width: 100% !important; height: 100%; object-fit: contain !important; }}
#chat button[aria-label="Share"] {{ display: none; }}
#book {{ {CARDS} .coming {{ text-align: center; color: var(--soft); }} }}
.token {{ display: inline-block; line-height: 1.3; margin: .2rem .3rem; padding: .2rem .5rem; border-radius: 8px;
  border: 1px solid var(--line); text-align: center; }}
.token small {{ display: block; color: var(--soft); }}
.side-by-side {{ display: flex; flex-wrap: wrap; gap: 1.5rem; }}
.side-by-side figure {{ margin: 0; text-align: center; }}
.side-by-side img {{ width: 18rem; max-width: 100%; border-radius: 12px; }}
#chat .user.message {{ background: var(--paper); border-color: var(--line); }}
"""


def theme() -> gr.themes.Base:
    """The colours of the library's other pages; fonts are the machine's own, so that nothing is fetched."""
    colours = {"color_accent": "var(--accent)"}
    for name, colour in {
        "body_background_fill": "paper",
        "block_background_fill": "card",
        "background_fill_primary": "card",
        "background_fill_secondary": "paper",
        "body_text_color": "ink",
        "body_text_color_subdued": "soft",
        "border_color_primary": "line",
        "block_border_color": "line",
        "button_primary_background_fill": "accent",
        "button_primary_background_fill_hover": "accent",
        "button_primary_text_color": "card",
    }.items():
        colours |= {name: f"var(--{colour})", f"{name}_dark": f"var(--{colour})"}
    font = ("system-ui", "sans-serif")
    return gr.themes.Base(
        primary_hue="orange", neutral_hue="stone", font=font, font_mono=("ui-monospace", "monospace")
    ).set(**colours)


def build(engine: Engine, model: Mapping[str, Any], store: FeedbackStore, folder: Path) -> gr.Blocks:
    """The pages.

    Args:
        model: which it is, of `minigpt5.loading.identity`.
        store: where feedback goes.
        folder: for pictures on their way to browsers.
    """
    with gr.Blocks(title="MiniGPT-5 Studio", analytics_enabled=False) as blocks:
        name, pictures = title_of(model["name"]), Pictures(folder)
        gr.Markdown(f"## MiniGPT-5 Studio\n{escape(name)}")
        with gr.Tab("Chat"):
            chat = ChatPage(engine, model, store, pictures)
        with gr.Tab("Storybook"):
            storybook = StorybookPage(engine, name, pictures)
        with gr.Tab("Look inside"):
            InsidePage(engine, pictures)
        for page in (chat, storybook):
            blocks.unload(page.stop)
    return blocks.queue(default_concurrency_limit=MOST_LISTENERS)


def create_app(engine: Engine, model: Mapping[str, Any], store: FeedbackStore, folder: Path) -> FastAPI:
    """The Studio as an ASGI application; arguments as for `build`."""
    # What people upload goes where the pictures are.
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return gr.mount_gradio_app(
        FastAPI(),
        build(engine, model, store, folder),
        path="/",
        allowed_paths=[str(folder)],
        max_file_size=LARGEST_UPLOAD,
        footer_links=[],
        ssr_mode=False,
        theme=theme(),
        # Gradio's own argument for styles puts its container in front of every selector.
        head=f"<style>{CSS}</style>",
    )


def serve(
    pipe: MiniGPT5Pipeline,
    listening: socket.socket,
    model: Mapping[str, Any],
    store: FeedbackStore,
    browser: str | None,
) -> None:
    """Show the Studio until SIGTERM or SIGINT; then its pictures and uploads are gone.

    Args:
        listening: a socket that is bound.
        model, store: as for `build`.
        browser: the address to open in this machine's browser, if any.
    """
    # The server hands the signal on to what was there before it, once it has ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    engine = Engine(pipe)
    with closing(engine), tempfile.TemporaryDirectory(prefix="minigpt5-studio-") as folder:
        app = create_app(engine, model, store, Path(folder))
        if browser is not None:
            webbrowser.open(browser)
        # Browsers hold connections open for as long as their pages are.
        Server(Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[listening])
