"""The page that tells stories: pages turn up one by one, and go on from any of them in other words."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from PIL import Image

from minigpt5.service.engine import CancelledError, Engine, Reply
from minigpt5.story import StoryStep, story_gif
from minigpt5.studio.pictures import Pictures, box, opened
from minigpt5.studio.settings import Controls
from minigpt5.studio.telling import tell
from minigpt5.studio.turns import ENDS, Choices
from minigpt5.utils.html import step_html, story_html

OPENING = "A red fox wakes up in the forest."
MOST_STEPS = 12


class _Telling:
    """A story on its way, which can be stopped between its pages too."""

    def __init__(self):
        self.stopped, self.reply = False, None

    def began(self, reply: Reply) -> None:
        """Take note of the page that is made."""
        self.reply = reply
        if self.stopped:
            reply.cancel()

    def stop(self) -> None:
        """Give up the page that is made, or the next one."""
        self.stopped = True
        if self.reply is not None:
            self.reply.cancel()


class StorybookPage:
    """Builds the page into the `gr.Blocks` in progress.

    Args:
        engine: what tells.
        model: its name, for the story's last line.
        pictures: where pictures and files are put for the browser.
    """

    def __init__(self, engine: Engine, model: str, pictures: Pictures):
        self.engine, self.model, self.pictures = engine, model, pictures
        self.running: dict[str, _Telling] = {}
        self.steps, self.seed = gr.State([]), gr.State(0)
        self.opening = box("opening", "How it begins, and perhaps a picture of whom it is about", OPENING)
        self.count = gr.Slider(1, MOST_STEPS, 5, step=1, label="Steps of the story", info="it may end sooner")
        self.controls = Controls(engine.pipe, story=True)
        self.book = gr.HTML(elem_id="book")
        with gr.Row(visible=False, equal_height=True) as self.change:
            self.page = gr.Dropdown([], label="Page", min_width=80, scale=1, elem_id="page")
            self.words = gr.Textbox(label="Its sentence", scale=5, elem_id="words", max_lines=3)
            self.go_on = gr.Button("Tell on from there", scale=2, elem_id="go-on")
        with gr.Row(visible=False) as self.downloads:
            self.html = gr.DownloadButton("Download as a page", elem_id="as-html")
            self.gif = gr.DownloadButton("Download as an animation", elem_id="as-gif")
        shown = [self.book, self.steps, self.seed, self.opening, self.change, self.page, self.downloads]
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        told = [self.opening, self.count, *self.controls.components]
        self.opening.submit(self.begin, told, [*shown, self.html, self.gif], **hidden)
        again = [self.steps, self.seed, self.page, self.words, *told]
        self.go_on.click(self.begin_at, again, [*shown, self.html, self.gif], **hidden)
        self.page.change(self.sentence, [self.steps, self.page], self.words, queue=False, **hidden)
        self.opening.stop(self.stop, None, None, queue=False, **hidden)

    def begin(self, request: gr.Request, opening: dict, count: int, *controls: Any) -> Iterator[tuple]:
        """Tell a story."""
        choices = self.controls.read(controls)
        seed = secrets.randbelow(2**31) if choices.seed is None else choices.seed
        yield from self._tell(request, [], opening["text"], count, seed, opened(opening), choices)

    def begin_at(
        self,
        request: gr.Request,
        steps: list[StoryStep],
        seed: int,
        page: int,
        words: str,
        opening: dict,
        count: int,
        *controls: Any,
    ) -> Iterator[tuple]:
        """Tell on from a page, in these words."""
        choices = self.controls.read(controls)
        seed = seed if choices.seed is None else choices.seed
        told, images = steps[: page - 1], opened(opening)
        yield from self._tell(request, told, words, max(count, page), seed, images, choices)

    def sentence(self, steps: list[StoryStep], page: int | None) -> str:
        """Of a page."""
        return steps[page - 1].text if page and page <= len(steps) else ""

    def stop(self, request: gr.Request) -> None:
        """Give up the story that is on its way."""
        telling = self.running.get(str(request.session_hash))
        if telling is not None:
            telling.stop()

    def _tell(
        self,
        request: gr.Request,
        told: Sequence[StoryStep],
        sentence: str,
        count: int,
        seed: int,
        images: Sequence[Image.Image],
        choices: Choices,
    ) -> Iterator[tuple]:
        session, steps, note = str(request.session_hash), list(told), ""
        if session in self.running:
            raise gr.Error("A story is being told; stop it first.", print_exception=False)
        telling = self.running[session] = _Telling()
        try:
            image, options = next(iter(images), None), choices.options() | {"image_mode": choices.image_mode}
            pages = tell(self.engine, told, sentence, int(count), seed, image, telling.began, **options)
            yield self._shown(steps, seed, int(count), running=True)
            for step in pages:
                steps.append(step)
                yield self._shown(steps, seed, int(count), running=True)
            if len(steps) < count:
                gr.Info(f"The story ended by itself after {len(steps)} of {int(count)} steps.")
        except CancelledError:
            note = "Stopped."
        except (*ENDS, TypeError, ValueError) as error:
            note = str(error)
        finally:
            del self.running[session]
            telling.stop()
        if note:
            gr.Warning(note)
        yield self._shown(steps, seed, int(count), running=False)

    def _shown(self, steps: list[StoryStep], seed: int, count: int, running: bool) -> tuple:
        """What stands on the page; while the story is told there is nothing to change or download."""
        done = bool(steps) and not running
        files = self._files(steps, seed) if done else (gr.skip(), gr.skip())
        numbers = [step.index for step in steps]
        return (
            self._book(steps, count if running else len(steps)),
            list(steps),
            seed,
            gr.MultimodalTextbox(submit_btn=not running, stop_btn=running),
            gr.Row(visible=done),
            gr.Dropdown(numbers, value=numbers[-1] if done else None),
            gr.Row(visible=done),
            *files,
        )

    def _book(self, steps: Sequence[StoryStep], count: int) -> str:
        pages = [step_html(step.index, step.text, self._picture(step)) for step in steps]
        coming = f'<p class="coming">Page {len(steps) + 1} of {count} …</p>' if len(steps) < count else ""
        return "".join(pages) + coming

    def _picture(self, step: StoryStep) -> str:
        shown = self.pictures.html(step.image, step.text) if step.image else ""
        return shown and f'<div class="picture">{shown}</div>'

    def _files(self, steps: Sequence[StoryStep], seed: int) -> tuple[str, str]:
        folder = self.pictures.folder / uuid.uuid4().hex
        folder.mkdir()
        page = story_html(steps[0].text, [(step.text, step.image) for step in steps], f"{self.model}, seed {seed}")
        (folder / "story.html").write_text(page, encoding="utf-8")
        (folder / "story.gif").write_bytes(story_gif(steps))
        return str(folder / "story.html"), str(folder / "story.gif")
