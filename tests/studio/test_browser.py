"""The Studio in a real browser: Debian's Chromium, in front of a tiny model that says anything."""

import re
import socket
import threading
import time

import pytest

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")

from PIL import Image  # noqa: E402
from uvicorn import Config, Server  # noqa: E402

from minigpt5.service.engine import Engine  # noqa: E402
from minigpt5.service.feedback import FeedbackStore  # noqa: E402
from minigpt5.studio.app import create_app  # noqa: E402

pytestmark = pytest.mark.slow
PATIENCE = 30_000
sync_api.expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def studio(tiny_pipe, tmp_path_factory):
    """An engine with a Studio in front of it, and the Studio's address."""
    engine = Engine(tiny_pipe)
    folder = tmp_path_factory.mktemp("pictures")
    store = FeedbackStore(folder / "feedback.sqlite")
    app = create_app(engine, {"name": "tiny"}, store, folder)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield engine, f"http://127.0.0.1:{listening.getsockname()[1]}", store
        server.should_exit = True
        thread.join()
    engine.close(drain=False)


@pytest.fixture
def visit(browser, studio):
    """Opens the Studio in a browser of its own, as somebody else would."""
    contexts = []

    def visit(**look):
        context = browser.new_context(**look)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(studio[1])
        page.wait_for_selector("#say textarea")
        return page

    yield visit
    for context in contexts:
        context.close()


def settings(page, pictures="always", seed=0):
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Seed").fill(str(seed))
    page.get_by_label(pictures, exact=True).check()


def say(page, text):
    page.fill("#say textarea", text)
    page.keyboard.press("Enter")


def whole(page, replies=1):
    """Wait until so many replies are there and the text box takes the next turn."""
    sync_api.expect(page.locator("#chat .user-row")).to_have_count(replies)
    sync_api.expect(page.locator("#chat .bot.message").last).to_be_visible()
    sync_api.expect(page.locator("#say .stop-button")).to_have_count(0)


def until(true, seconds=30):
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_picture_sharpens_and_the_reply_is_edited_taken_back_and_cleared(visit, studio, monkeypatch):
    gate, genuine = threading.Event(), Engine._hand_out

    def hand_out(engine, group, images):
        assert gate.wait(30)
        genuine(engine, group, images)

    monkeypatch.setattr(Engine, "_hand_out", hand_out)
    page = visit()
    settings(page)
    say(page, "a cat <b>sits</b>")
    picture = page.locator("#chat .bot img")
    preview = picture.get_attribute("src")
    gate.set()
    whole(page)
    sync_api.expect(picture).to_have_count(1)
    painted = picture.get_attribute("src")
    assert painted != preview
    # It is enlarged, and is there.
    assert picture.bounding_box()["width"] > 250 and picture.evaluate("image => image.naturalWidth") == 64
    sync_api.expect(page.locator("#chat .user").first).to_contain_text("a cat <b>sits</b>")

    page.get_by_role("button", name="Retry").click()
    until(lambda: picture.get_attribute("src") not in (painted, None))
    whole(page)
    painted = picture.get_attribute("src")

    page.get_by_role("button", name="Edit").first.click()
    page.locator("#chat textarea").fill("a dog")
    page.get_by_role("button", name="Submit").first.click()
    sync_api.expect(page.locator("#chat .user").first).to_contain_text("a dog")
    until(lambda: picture.count() and picture.get_attribute("src") != painted)
    whole(page)

    page.get_by_role("button", name="Undo").click()
    sync_api.expect(page.locator("#chat .user-row")).to_have_count(0)
    sync_api.expect(page.locator("#say textarea")).to_have_value("a dog")
    page.keyboard.press("Enter")
    page.locator("#say textarea").press("Enter")
    whole(page)
    page.get_by_role("button", name="Clear").first.click()
    sync_api.expect(page.locator("#chat .user-row")).to_have_count(0)


def test_stop_stops_in_the_middle(visit, studio, held):
    page = visit()
    say(page, "a cat")
    page.locator("#say .stop-button").click()
    time.sleep(0.5)
    held.set()
    sync_api.expect(page.locator("#chat .bot").first).to_contain_text("Stopped.")
    whole(page)
    until(lambda: not studio[0]._replies())
    held.clear()
    # Who closes the page has no use for the reply either.
    say(page, "a dog")
    until(studio[0]._replies)
    page.close()
    until(lambda: all(reply.cancelled for reply in studio[0]._replies()))
    held.set()


def test_a_chat_that_is_cleared_amid_a_reply_stays_so(visit, studio, held):
    page = visit()
    say(page, "a cat")
    until(studio[0]._replies)
    sync_api.expect(page.locator("#chat .user-row")).to_have_count(1)
    page.get_by_role("button", name="Clear").first.click()
    sync_api.expect(page.locator("#chat .user-row")).to_have_count(0)
    held.set()
    until(lambda: not studio[0]._replies())
    time.sleep(1)
    sync_api.expect(page.locator("#chat .user-row")).to_have_count(0)
    say(page, "a dog")
    whole(page)
    sync_api.expect(page.locator("#chat .user").first).to_contain_text("a dog")


def test_several_pictures_are_read_and_what_is_none_is_refused(visit, pictures, tmp_path):
    files = [tmp_path / f"{name}.png" for name in ("one", "two", "broken")]
    for picture, file in zip(pictures, files[:2], strict=False):
        picture.save(file)
    files[2].write_bytes(b"no picture")
    page = visit(color_scheme="dark")
    page.set_input_files("#say input[type=file]", files[2])
    page.wait_for_selector("#say .thumbnail-item")
    say(page, "what is this?")
    refusal = page.get_by_text(re.compile("broken.png: not a picture"))
    sync_api.expect(refusal.first).to_be_visible()
    page.get_by_label("Remove file").first.click()
    page.set_input_files("#say input[type=file]", files[:2])
    sync_api.expect(page.locator("#say .thumbnail-item")).to_have_count(2)
    say(page, "what are these?")
    whole(page)
    sync_api.expect(page.locator("#chat .user img")).to_have_count(2)
    page.get_by_role("button", name="Edit").first.click()
    page.locator("#chat textarea").first.fill("are these cats?")
    page.get_by_role("button", name="Submit").first.click()
    sync_api.expect(page.locator("#chat .user").first).to_contain_text("are these cats?")
    whole(page)
    sync_api.expect(page.locator("#chat .user img")).to_have_count(2)
    # Dark is dark.
    red = page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]")
    assert int(red) < 60


def test_an_example_is_answered_on_a_phone_and_two_people_have_replies_of_their_own(visit, studio, held):
    phone = visit(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    desktop = visit(viewport={"width": 1200, "height": 900})
    phone.locator("#chat .example").nth(1).click()
    say(desktop, "a cat at night")
    until(lambda: len(studio[0]._replies()) == 2)
    held.set()
    whole(phone)
    whole(desktop)
    sync_api.expect(phone.locator("#chat .user").first).to_be_visible()
    assert "a cat at night" in desktop.locator("#chat").inner_text()
    assert "a cat at night" not in phone.locator("#chat").inner_text()
    # Nothing sticks out.
    assert phone.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_thumbs_and_a_correction_are_kept_and_can_be_taken_back(visit, studio, pictures, tmp_path):
    pictures[3].save(tmp_path / "better.png")
    page = visit()
    settings(page, seed=11)
    say(page, "a cat by the sea")
    whole(page)
    page.get_by_label("Dislike").last.click()
    page.locator("#better textarea").fill("A cat sits by the sea.")
    page.set_input_files("#better input[type=file]", tmp_path / "better.png")
    page.wait_for_selector("#better .thumbnail-item")
    page.click("#keep")
    sync_api.expect(page.locator("#correction")).to_be_hidden()
    (row,) = studio[2]
    assert row.rating == "down" and row.seed == 11 and row.model == {"name": "tiny"}
    text, picture = row.correction
    assert text == "A cat sits by the sea." and picture.tobytes() == pictures[3].tobytes()
    # It repeats the reply.
    again = studio[0].submit(row.messages, seed=row.seed, **row.settings).segments()
    assert [part if isinstance(part, str) else part.size for part in again] == [
        part if isinstance(part, str) else part.size for part in row.reply
    ]
    page.get_by_label("Like", exact=True).last.click()
    until(lambda: [row.rating for row in studio[2]] == ["up"])
    page.get_by_label("Liked", exact=True).last.click()
    until(lambda: list(studio[2]) == [])


def test_a_story_ends_by_itself(visit, studio, tmp_path, monkeypatch):
    genuine = Engine.submit

    def paints_where_it_must(engine, prompt, image_mode, **options):
        return genuine(engine, prompt, image_mode="never" if image_mode == "auto" else image_mode, **options)

    monkeypatch.setattr(Engine, "submit", paints_where_it_must)
    page = visit()
    page.get_by_role("tab", name="Storybook").click()
    page.locator("#opening textarea").press("Enter")
    sync_api.expect(page.get_by_text("ended by itself after 2 of 5 steps")).to_be_visible()
    sync_api.expect(page.locator("#as-gif")).to_be_visible()
    steps = page.locator("#book .step")
    assert [steps.nth(number).locator("img").count() for number in range(steps.count())] == [1, 0]
    for name in ("#as-html", "#as-gif"):
        with page.expect_download() as download:
            page.click(name)
        download.value.save_as(tmp_path / name[1:])
    assert (tmp_path / "as-html").read_text().count("<img") == 1
    assert Image.open(tmp_path / "as-gif").n_frames == 2


def test_a_story_is_told_page_by_page_changed_and_taken_along(visit, studio, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page = visit()
    page.get_by_role("tab", name="Storybook").click()
    settings(page)
    page.set_input_files("#opening input[type=file]", tmp_path / "broken.png")
    page.wait_for_selector("#opening .thumbnail-item")
    page.locator("#opening textarea").press("Enter")
    sync_api.expect(page.get_by_text("not a picture").first).to_be_visible()
    page.get_by_label("Remove file").first.click()
    page.get_by_label("number input for Steps of the story").fill("3")
    page.locator("#opening textarea").press("Enter")
    steps = page.locator("#book .step")
    sync_api.expect(steps).to_have_count(3)
    sync_api.expect(page.locator("#as-gif")).to_be_visible()
    first = steps.nth(0).locator("img").get_attribute("src")
    assert steps.nth(2).locator("img").evaluate("image => image.naturalWidth") == 64
    page.locator("#page input").click()
    page.get_by_role("option", name="2").click()
    page.locator("#words textarea").fill("A cat & a dog sit <there>.")
    page.click("#go-on")
    sync_api.expect(steps.nth(1)).to_contain_text("A cat & a dog sit <there>.")
    sync_api.expect(page.locator("#as-gif")).to_be_visible()
    assert steps.count() == 3 and steps.nth(0).locator("img").get_attribute("src") == first
    for name, head in (("#as-html", b"<!DOCTYPE html>"), ("#as-gif", b"GIF89a")):
        with page.expect_download() as download:
            page.click(name)
        download.value.save_as(tmp_path / "file")
        content = (tmp_path / "file").read_bytes()
        assert content.startswith(head)
        assert name != "#as-html" or b"A cat &amp; a dog sit &lt;there&gt;." in content


def test_what_the_model_did_is_shown_inside(visit, studio):
    page = visit()
    page.get_by_role("tab", name="Look inside").click()
    page.locator("#inside-prompt textarea").fill("a cat")
    studio[0].pipe.comprehension.generation_config.image_mode = "always"
    try:
        page.locator("#inside-prompt textarea").press("Enter")
        pictures = page.locator("#inside img")
        sync_api.expect(pictures).to_have_count(2)
    finally:
        del studio[0].pipe.comprehension.generation_config.image_mode
    sync_api.expect(page.locator("#inside figcaption")).to_have_text(["without guidance", "guidance 2.5"])
    off, on = (
        pictures.nth(number).evaluate("image => fetch(image.src).then(file => file.text())") for number in (0, 1)
    )
    assert off != on and off[1:4] == on[1:4] == "PNG"
    vokens = page.locator("#inside .tokens").last.locator(".token")
    sync_api.expect(vokens).to_have_count(8)
    sync_api.expect(vokens.first).to_contain_text(re.compile(r"\[IMG0\]\d+%"))
    # Six words, or five and what ended the reply.
    assert 1 <= page.locator("#inside .tokens").first.locator(".token").count() <= 6
