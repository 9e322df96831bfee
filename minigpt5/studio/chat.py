"""The page to chat on: text and pictures in, text and pictures out as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any

import gradio as gr

from minigpt5.readers.prompts import IMAGE_MARK
from minigpt5.service.engine import Engine, Reply
from minigpt5.service.feedback import FeedbackStore
from minigpt5.studio.pictures import Pictures, box, opened
from minigpt5.studio.settings import Controls
from minigpt5.studio.turns import ENDS, Turn, answer, ask

FOX = str(Path(__file__).with_name("fox.png"))
EXAMPLES = (
    ("Draw this: a red fox in the forest.", []),
    ("What do you see?", [FOX]),
    ("A red fox wakes up in the forest. What happens next?", []),
)
PLACEHOLDER = f"Say something; {IMAGE_MARK} marks where a picture stands"

History = list[dict[str, Any]]


class ChatPage:
    """Builds the page into the `gr.Blocks` in progress.

    Args:
        engine: what answers.
        model: which it is, for feedback.
        store: where feedback goes.
        pictures: where pictures are put for the browser.
    """

    def __init__(self, engine: Engine, model: Mapping[str, Any], store: FeedbackStore, pictures: Pictures):
        self.engine, self.model, self.store, self.pictures = engine, model, store, pictures
        # Replies that are on their way, by the browser session that waits for each.
        self.running: dict[str, Reply] = {}
        self.turns = gr.State([])
        # Of which feedback is being given, and the rating.
        self.judged = gr.State(None)
        self.chatbot = gr.Chatbot(
            show_label=False,
            elem_id="chat",
            height="60vh",
            min_height="20rem",
            editable="user",
            buttons=["copy"],
            examples=[{"text": text, "display_text": text, "files": [*files]} for text, files in EXAMPLES],
            placeholder="### Say something, or show a picture",
        )
        with gr.Column(visible=False, elem_id="correction") as self.correction:
            gr.Markdown("Thank you, it is kept. **What should it have said or shown?**")
            self.better = box("better", "Better words, a better picture, or both", submit_btn=False)
            with gr.Row():
                self.keep = gr.Button("Keep the correction", variant="primary", size="sm", elem_id="keep")
                self.leave = gr.Button("No, thanks", size="sm")
        self.box = box("say", PLACEHOLDER, file_count="multiple", autofocus=True)
        self.controls = Controls(engine.pipe)
        self._wire()

    def _wire(self) -> None:
        controls = self.controls.components
        shown = [self.chatbot, self.turns, self.box]
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        answers: list[dict[str, Any]] = [
            self.box.submit(self.said, [self.box, self.turns, *controls], shown, **hidden),
            self.chatbot.example_select(self.example, [self.turns, *controls], shown, **hidden),
            self.chatbot.retry(self.retry, [self.turns, *controls], shown, **hidden),
            self.chatbot.edit(self.edit, [self.turns, *controls], shown, **hidden),
        ]
        self.chatbot.undo(self.undo, [self.turns], shown, **hidden)
        self.chatbot.clear(self.clear, None, shown, cancels=answers, **hidden)
        judging = [self.judged, self.correction, self.better]
        self.chatbot.like(self.like, [self.turns], judging, **hidden)
        self.keep.click(self.correct, [self.judged, self.better], judging, **hidden)
        self.leave.click(self._no_correction, None, judging, queue=False, **hidden)
        self.box.stop(self.stop, None, None, queue=False, **hidden)

    # What the page's events do

    def said(self, request: gr.Request, said: dict, turns: list[Turn], *controls: Any) -> Iterator[tuple]:
        """Answer what stands in the text box."""
        turn = Turn(said["text"], opened(said), self.controls.read(controls))
        yield from self._answer([*turns, turn], request)

    def example(self, request: gr.Request, event: gr.SelectData, turns: list[Turn], *controls: Any) -> Iterator[tuple]:
        """Answer an example that is clicked."""
        text, files = EXAMPLES[event.index]
        turn = Turn(text, opened({"files": files}), self.controls.read(controls))
        yield from self._answer([*turns, turn], request)

    def retry(self, request: gr.Request, event: gr.RetryData, turns: list[Turn], *controls: Any) -> Iterator[tuple]:
        """Answer a turn once more, with what is set now and, if no seed is, another one."""
        number = _turn_of(event.index)
        yield from self._answer([*turns[:number], turns[number].again(choices=self.controls.read(controls))], request)

    def edit(self, request: gr.Request, event: gr.EditData, turns: list[Turn], *controls: Any) -> Iterator[tuple]:
        """Answer a turn in other words; what came behind it is forgotten."""
        number = _turn_of(event.index)
        turn = turns[number].again(unescape(str(event.value)), self.controls.read(controls))
        yield from self._answer([*turns[:number], turn], request)

    def undo(self, request: gr.Request, turns: list[Turn]) -> tuple:
        """Take back the last turn into the text box."""
        self._check_free(request)
        last = turns[-1]
        box = {"text": last.text, "files": [self.pictures.file(image) for image in last.images]}
        return self.history(turns[:-1]), turns[:-1], box

    def clear(self, request: gr.Request) -> tuple:
        """Begin anew; a reply that is on its way is given up, and shown no more."""
        self.stop(request)
        self.running.pop(str(request.session_hash), None)
        return [], [], self._box(False)

    def stop(self, request: gr.Request) -> None:
        """Give up the reply that is on its way, and what the model does for it."""
        reply = self.running.get(str(request.session_hash))
        if reply is not None:
            reply.cancel()

    def like(self, request: gr.Request, event: gr.LikeData, turns: list[Turn]) -> tuple:
        """Keep a thumb up or down, ask what would have been better behind one that is down, or take it back."""
        self._check_free(request)
        turn = turns[_turn_of(event.index)]
        if event.liked == "":
            self.store.remove(turn.id)
            return self._no_correction()
        if event.liked:
            self.store.put(turn.feedback(self.model, "up", None))
            gr.Info("Thank you, it is kept.")
            return self._no_correction()
        self.store.put(turn.feedback(self.model, "down", None))
        text = " ".join(part for part in turn.reply if isinstance(part, str))
        return turn, gr.Column(visible=True), {"text": text, "files": []}

    def correct(self, turn: Turn, better: dict) -> tuple:
        """Keep what a reply should have been: in these words, with these pictures for those that it has."""
        self.store.put(turn.feedback(self.model, "down", turn.corrected(better["text"], opened(better))))
        gr.Info("The correction is kept.")
        return self._no_correction()

    def _no_correction(self) -> tuple:
        return None, gr.Column(visible=False), None

    # How

    def _check_free(self, request: gr.Request) -> None:
        if str(request.session_hash) in self.running:
            raise gr.Error("A reply is on its way; stop it first.", print_exception=False)

    def _answer(self, turns: list[Turn], request: gr.Request) -> Iterator[tuple]:
        self._check_free(request)
        session, turn = str(request.session_hash), turns[-1]
        try:
            reply = ask(self.engine, turns)
        except (*ENDS, TypeError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from None
        self.running[session] = reply
        try:
            yield self.history(turns), turns, self._box(True)
            for _ in answer(turn, reply):
                if self.running.get(session) is not reply:  # the chat was cleared
                    return
                yield self.history(turns), gr.skip(), gr.skip()
        finally:
            if self.running.get(session) is reply:
                del self.running[session]
        yield self.history(turns), turns, self._box(False)

    def _box(self, running: bool) -> Any:
        """The text box: empty, with the button to stop while a reply is on its way."""
        return gr.MultimodalTextbox(value=None, submit_btn=not running, stop_btn=running, interactive=True)

    def history(self, turns: Sequence[Turn]) -> History:
        """Turns as the chat shows them: two messages each."""
        told: History = []
        for turn in turns:
            pictures = [self._picture(image, "picture of the prompt") for image in turn.images]
            # Gradio offers to edit a turn only where text comes last, and does so only where it comes first.
            last = [""] if pictures else []
            told.append({"role": "user", "content": [escape(turn.text, quote=False), *pictures, *last]})
            reply = [part if isinstance(part, str) else self._picture(part, "painted picture") for part in turn.reply]
            note = [f"*{escape(turn.note)}*"] if turn.note else []
            told.append({"role": "assistant", "content": [*reply, *note] or "…"})
        return told

    def _picture(self, image: Any, alt: str) -> dict[str, str]:
        return {"path": self.pictures.file(image), "alt_text": alt}


def _turn_of(index: int | Sequence[int]) -> int:
    """The turn of a message, or of a part of one."""
    message = index if isinstance(index, int) else index[0]
    return message // 2
