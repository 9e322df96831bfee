"""The service, asked by OpenAI's own client."""

import base64
import io
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import openai
import pytest
import requests
import torch
from PIL import Image
from uvicorn import Config, Server

from minigpt5 import MiniGPT5Pipeline, cli
from minigpt5.service import shapes, stories
from minigpt5.service.app import JSONLines, ServiceSettings, create_app
from minigpt5.service.client import ServiceError, tell_story_at
from minigpt5.service.engine import Engine, Limits
from minigpt5.service.feedback import FeedbackStore
from minigpt5.service.metrics import Metrics
from minigpt5.service.pictures import PictureLimits
from minigpt5.story import StoryStep, tell_story
from minigpt5.vokens.decoding import TextEvent

ASKED = [{"role": "user", "content": "tell me of a red fox"}]


@contextmanager
def service(pipe, limits=None, **settings):
    """A service on a port of its own; gives its address, its engine and its server."""
    metrics = Metrics()
    engine = Engine(pipe, limits or Limits(), metrics.measure)
    app = create_app(engine, ServiceSettings(model="tiny", **settings), metrics)
    server = Server(Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=60))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", engine, server
    finally:
        server.should_exit = True
        thread.join(90)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def own_pipe(tiny_pipe):
    return MiniGPT5Pipeline.from_pipe(tiny_pipe)


@pytest.fixture(scope="module")
def running(own_pipe):
    pictures = PictureLimits(max_bytes=20_000, max_pixels=10_000)
    limits = Limits(max_images=2, max_new_tokens=40)
    with service(own_pipe, limits, pictures=pictures, api_key="secret", max_body_mb=1) as (url, engine, _):
        yield url, engine


@pytest.fixture
def client(running):
    with openai.OpenAI(base_url=f"{running[0]}/v1", api_key="secret", max_retries=0, timeout=120) as client:
        yield client


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def opened(data):
    return Image.open(io.BytesIO(base64.b64decode(data.removeprefix("data:image/png;base64,"))))


def alike(one, other):
    difference = np.abs(np.asarray(one).astype(int) - np.asarray(other))
    assert difference.max() <= 1 and difference.mean() < 0.01


def url_of(picture):
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{shapes.base64_png(picture)}"}}


# Chats


def test_a_chat_is_the_pipeline_s_reply(client, own_pipe):
    options = {"max_tokens": 6, "seed": 1, "extra_body": {"image_mode": "never"}}
    made = client.chat.completions.create(model="tiny", messages=ASKED, **options)
    alone = own_pipe(ASKED, max_new_tokens=6, image_mode="never")
    (choice,) = made.choices
    assert choice.message.content == alone.text[0] and choice.finish_reason == "length"
    length = own_pipe.encode_prompt([ASKED])["input_ids"].shape[1]
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (length, 6)


def test_pictures_go_in_and_come_out_in_their_places(client, own_pipe, pictures):
    told = [{"type": "text", "text": "what is"}, url_of(pictures[0])]
    options = {"max_completion_tokens": 4, "temperature": 1.2, "top_p": 0.9, "seed": 5}
    made = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": told}], extra_body={"image_mode": "always"}, **options
    )
    decoding = {"do_sample": True, "temperature": 1.2, "top_p": 0.9, "max_new_tokens": 4, "image_mode": "always"}
    asked = [{"type": "text", "text": "what is"}, {"type": "image", "image": pictures[0]}]
    (alone,) = own_pipe([{"role": "user", "content": asked}], generator=seeded(5), **decoding).segments
    content = made.choices[0].message.content
    assert [part["type"] for part in content] == ["text" if isinstance(part, str) else "image_url" for part in alone]
    assert [part["text"] for part in content if part["type"] == "text"] == [p for p in alone if isinstance(p, str)]
    alike(opened(content[-1]["image_url"]["url"]), alone[-1])
    # What the service said, it reads.
    more = [
        {"role": "user", "content": told},
        {"role": "assistant", "content": content},
        {"role": "user", "content": "and then?"},
    ]
    again = client.chat.completions.create(
        model="tiny", messages=more, max_tokens=3, temperature=0, extra_body={"image_mode": "never"}
    )
    said = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in alone]
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}, more[2]]
    assert again.choices[0].message.content == own_pipe(turns, max_new_tokens=3, image_mode="never").text[0]
    assert again.usage.prompt_tokens_details.cached_tokens > 0


def test_a_streamed_chat_is_the_same_in_pieces(client):
    options = {"model": "tiny", "messages": ASKED, "seed": 2, "max_tokens": 5, "extra_body": {"image_mode": "always"}}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    *pieces, last = chunks
    deltas = [chunk.choices[0].delta for chunk in pieces]
    text = "".join(delta.content for delta in deltas if isinstance(delta.content, str))
    (picture,) = [delta.content[0] for delta in deltas if isinstance(delta.content, list)]
    content = whole.choices[0].message.content
    assert text.strip() == "".join(part["text"] for part in content[:-1])
    assert picture == content[-1] and deltas[0].role == "assistant"
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage.total_tokens == whole.usage.total_tokens and not last.choices


def test_several_system_messages_in_front_are_one(client, own_pipe):
    options = {"model": "tiny", "max_output_tokens": 5}
    said = [{"role": "developer", "content": "Be brief."}, *ASKED]
    made = client.responses.create(instructions="You are a painter.", input=said, **options)
    system = {"role": "system", "content": "You are a painter. Be brief."}
    assert made.output_text == own_pipe([system, *ASKED], max_new_tokens=5, image_mode="never").text[0]
    assert made.usage.input_tokens == own_pipe.encode_prompt([[system, *ASKED]])["input_ids"].shape[1]


def test_previews_are_of_the_picture_that_comes_next():
    """All pictures of a reply are painted together, but told one after another."""
    made, picture = shapes.ResponseEvents("resp_1", "tiny"), Image.new("RGB", (2, 2))
    told = [made.preview(1, 0, picture), made.preview(0, 0, picture), made.preview(1, 1, picture)]
    assert [[event["output_index"] for event in events] for events in told] == [[], [0] * 4, []]
    made.picture(picture)
    assert made.preview(0, 2, picture) == [] and made.preview(1, 2, picture)[-1]["output_index"] == 1


def test_a_stop_is_beside_the_model_s_own(client, script, own_pipe):
    assert own_pipe.reader.stop_strings == ("###",)
    for said, stop in (("a fox ### a cat", "dog"), ("a fox dog a cat", ["dog", "bird"])):
        script([said])
        made = client.chat.completions.create(
            model="tiny", messages=ASKED, stop=stop, max_tokens=30, extra_body={"image_mode": "never"}
        )
        assert made.choices[0].message.content == "a fox" and made.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="stop_strings must be strings, got int"):
        client.chat.completions.create(model="tiny", messages=ASKED, extra_body={"stop": 5})
    with pytest.raises(openai.BadRequestError, match="stop can be 16 texts at most, got 17"):
        client.chat.completions.create(model="tiny", messages=ASKED, stop=["dog"] * 17)


def test_a_reply_that_ends_with_its_last_token_is_whole_and_one_without_room_is_not(client, script, own_pipe):
    def ask(messages, **options):
        made = client.chat.completions.create(
            model="tiny", messages=messages, extra_body={"image_mode": "never"}, **options
        )
        return made.usage.completion_tokens, made.choices[0].finish_reason

    (said,) = script(["a fox"])
    assert ask(ASKED, max_tokens=len(said) + 1) == (len(said) + 1, "stop")
    assert ask(ASKED, max_tokens=len(said)) == (len(said), "length")
    script(["fox"] * 40)
    long = [{"role": "user", "content": "fox " * (own_pipe.reader.context_length - 30)}]
    tokens, reason = ask(long, max_tokens=40)
    assert 0 < tokens < 40 and reason == "length"


# Responses


def test_a_response_paints_by_the_tool_alone(client, own_pipe):
    plain = client.responses.create(model="tiny", input="go on", max_output_tokens=5)
    assert plain.output_text == own_pipe("go on", max_new_tokens=5, image_mode="never").text[0]
    assert plain.status == "incomplete" and plain.incomplete_details.reason == "max_output_tokens"
    tool = {"type": "image_generation", "size": "64x64"}
    made = client.responses.create(
        model="tiny",
        input="go on",
        instructions="You are a painter.",
        tools=[tool],
        tool_choice={"type": "image_generation"},
        max_output_tokens=3,
        extra_body={"seed": 4},
    )
    asked = [{"role": "system", "content": "You are a painter."}, {"role": "user", "content": "go on"}]
    (alone,) = own_pipe(asked, max_new_tokens=3, image_mode="always", generator=seeded(4)).segments
    kinds = ["message" if isinstance(part, str) else "image_generation_call" for part in alone]
    assert [item.type for item in made.output] == kinds
    alike(opened(made.output[-1].result), alone[-1])
    # As a part of the conversation that goes on.
    said = [{"role": "user", "content": "go on"}, *(item.model_dump() for item in made.output)]
    again = client.responses.create(
        model="tiny", input=[*said, {"role": "user", "content": "what is it?"}], max_output_tokens=2
    )
    assert again.output_text


def test_a_streamed_response_has_partial_pictures_and_ends_with_the_whole(client, monkeypatch):
    tool = {"type": "image_generation", "partial_images": 2}
    asked = {
        "model": "tiny",
        "input": "go on",
        "tools": [tool],
        "tool_choice": "required",
        "max_output_tokens": 3,
        "extra_body": {"seed": 4, "num_inference_steps": 6},
    }
    monkeypatch.setattr(shapes, "time", SimpleNamespace(time=itertools.count(1000).__next__))
    events = list(client.responses.create(**asked, stream=True))
    assert {event.response.created_at for event in (*events[:2], events[-1])} == {1000}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.incomplete"
    partial = [event for event in events if event.type == "response.image_generation_call.partial_image"]
    assert [event.partial_image_index for event in partial] == [0, 1]
    assert [opened(event.partial_image_b64).size for event in partial] == [(64, 64)] * 2
    whole, last = client.responses.create(**asked), events[-1].response
    assert last.output_text == whole.output_text == "".join(e.delta for e in events if e.type.endswith("text.delta"))
    assert last.output[-1].result == whole.output[-1].result
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.id for item in done] == [item.id for item in last.output]


# Pictures


def test_pictures_are_generated(client, own_pipe):
    made = client.images.generate(
        model="tiny", prompt="a red fox", n=2, size="64x64", response_format="b64_json", extra_body={"seed": 7}
    )
    for seed, one in zip((7, 8), made.data, strict=True):
        alone = own_pipe("a red fox", image_mode="always", max_images=1, generator=seeded(seed)).images[0][0]
        alike(opened(one.b64_json), alone)


# What is refused


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"messages": []}, "messages must be a list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "item 1: role must be one of"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "parts are of type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "must be a string"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"max_tokens": 41}, "max_new_tokens must be at most 40"),
        ({"n": 2}, "n can only be 1"),
        ({"tools": [{"type": "function"}]}, "tools is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format can only be text"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported"),
        ({"presence_penalty": -1}, "presence_penalty is not supported"),
        ({"stop": ""}, "holds an empty string"),
        ({"stream": "yes"}, "stream must be True or False"),
    ],
)
def test_what_cannot_be_done_is_told(client, wrong, told):
    asked = {"model": "tiny", "messages": ASKED} | wrong
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**asked)
    assert told in refused.value.body["message"] and refused.value.body["type"] == "invalid_request_error"


def test_what_front_ends_send_without_a_wish_is_no_wish(client):
    asked = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": False, "stop": None, "logit_bias": {}}
    asked |= {"response_format": {"type": "text"}, "stream": False, "max_tokens": 2, "user": "somebody"}
    assert client.chat.completions.create(model="tiny", messages=ASKED, **asked).choices[0].message.content


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, "text.format can only be text"),
        ({"text": "plain"}, "text must be an object"),
        ({"top_logprobs": 3}, "top_logprobs is not supported"),
        ({"tools": [{"type": "image_generation", "output_format": "jpeg"}]}, "output_format can only be png"),
        ({"tools": [{"type": "image_generation", "background": "transparent"}]}, "background can only be opaque"),
    ],
)
def test_what_a_response_cannot_be_is_told(client, wrong, told):
    with pytest.raises(openai.BadRequestError, match=told):
        client.responses.create(model="tiny", input="go on", **wrong)
    assert client.responses.create(model="tiny", input="go on", text={"format": {"type": "text"}}, max_output_tokens=1)


def test_large_and_unknown_pictures_are_refused(client, pictures):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8))
    wrong = {
        "over 20,000 bytes": url_of(noise),
        "over 10,000 pixels": url_of(Image.new("RGB", (200, 100))),
        "not a picture": {"type": "image_url", "image_url": {"url": "data:text/plain;base64,aGVsbG8="}},
        "not base64": {"type": "image_url", "image_url": {"url": "data:image/png;base64,$$$"}},
        "not fetched from addresses": {"type": "image_url", "image_url": {"url": "https://example.org/fox.png"}},
        "begins with data": {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        "is a string": {"type": "image_url"},
    }
    for told, part in wrong.items():
        with pytest.raises(openai.BadRequestError, match=told):
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": [part]}])


def test_a_key_is_asked_for(running):
    url, _ = running
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="guessed", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()
    assert requests.post(f"{url}/v1/responses", json={"input": "go on"}).status_code == 401
    assert requests.get(f"{url}/health").json() == {"status": "ok"}


def test_another_model_is_not_found(client):
    for ask in (
        lambda: client.chat.completions.create(model="gpt-4o", messages=ASKED),
        lambda: client.responses.create(model="gpt-4o", input="go on"),
        lambda: client.images.generate(model="gpt-4o", prompt="a red fox"),
    ):
        with pytest.raises(openai.NotFoundError, match="'gpt-4o' is not served here, only tiny") as refused:
            ask()
        assert (refused.value.code, refused.value.type) == ("model_not_found", "invalid_request_error")


def test_bodies_are_json_objects_of_a_bounded_size(running):
    url, head = f"{running[0]}/v1/responses", {"Authorization": "Bearer secret"}
    assert requests.post(url, data=b"{", headers=head).status_code == 400
    assert requests.post(url, data=b"[]", headers=head).status_code == 400
    assert requests.post(url, data=b" " * (2**20 + 1), headers=head).status_code == 413


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="the model 'owner/other' is not served here, only tiny"):
        client.models.retrieve("owner/other")


def test_a_route_that_there_is_not_is_told_in_openai_s_shape(client):
    with pytest.raises(openai.NotFoundError, match="there is no POST /v1/embeddings here") as refusal:
        client.embeddings.create(model="tiny", input="a fox")
    assert refusal.value.body["type"] == "invalid_request_error"
    with pytest.raises(openai.APIStatusError, match="there is no GET /v1/chat/completions here") as refusal:
        client.get("/chat/completions", cast_to=object)
    assert refusal.value.status_code == 405


def test_a_rated_reply_is_kept_with_what_repeats_it(own_pipe, pictures, tmp_path):
    store, model = FeedbackStore(tmp_path / "feedback.sqlite"), {"name": "tiny", "revision": "1", "adapter": None}
    content = [{"type": "text", "text": "what is it?"}, url_of(pictures[0])]
    asked = {"messages": [{"role": "user", "content": content}], "image_mode": "always", "temperature": 0}
    with service(own_pipe, feedback=store, identity=model) as (url, *_):

        def post(route, **body):
            return requests.post(f"{url}/v1/{route}", json=body, timeout=120)

        chat = post("chat/completions", **asked, seed=3, timeout=60).json()
        spoken = post("responses", input="a cat", seed=4, stream=True).text
        response = json.loads(spoken.split("data: ")[-1])["response"]["id"]
        assert post("feedback", id=chat["id"], rating="up").json()["rating"] == "up"
        corrected = [{"type": "text", "text": "A fox."}, url_of(pictures[1])]
        assert post("feedback", id=chat["id"], rating="down", correction=corrected).status_code == 200
        assert post("feedback", id=response, rating="up").status_code == 200
        unknown = post("feedback", id="chatcmpl-0", rating="up")
        assert unknown.status_code == 404 and "chatcmpl-0" in unknown.json()["error"]["message"]
        for wrong in ({"rating": "up"}, {"id": response, "rating": "so so"}, {"id": response, "rating": "down"}):
            assert post("feedback", **{"correction": [{"type": "text", "text": ""}], **wrong}).status_code == 400
        for wrong, told in {" \n": "must say or show something", 5: "text of a part must be a string"}.items():
            refused = post("feedback", id=response, rating="down", correction=[{"type": "text", "text": wrong}])
            assert refused.status_code == 400 and told in refused.json()["error"]["message"]
    first, second = store
    assert (first.id, first.rating, first.seed, first.model) == (chat["id"], "down", 3, model)
    assert (second.id, second.rating, second.seed) == (response, "up", 4)
    assert first.correction[0] == "A fox." and np.array_equal(first.correction[1], pictures[1])
    again = own_pipe(first.messages, generator=seeded(first.seed), **first.settings).segments[0]
    assert list(map(type, first.reply)) == list(map(type, again))
    for one, other in zip(first.reply, again, strict=True):
        assert one == other if isinstance(one, str) else np.array_equal(one, other)


def test_half_a_surrogate_pair_is_refused_wherever_it_stands(own_pipe, tmp_path):
    with service(own_pipe, feedback=FeedbackStore(tmp_path / "feedback.sqlite")) as (url, *_):

        def refusal(route, **body):
            answer = requests.post(f"{url}/v1/{route}", json=body, timeout=120)
            return answer.status_code, answer.json()["error"]["message"]

        half = "\ud83d"
        assert refusal("feedback", id=half, rating="up")[0] == 404
        for route, body in {
            "chat/completions": {"messages": [{"role": half, "content": half}]},
            "responses": {"input": half},
            "images/generations": {"prompt": half},
            "stories": {"opening": "A fox.", half: 1},
        }.items():
            assert refusal(route, **body)[0] == 400


def test_measures_are_told(running, client):
    client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=2, extra_body={"image_mode": "always"})
    text = requests.get(f"{running[0]}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for name in ("request_seconds", "queue_seconds", "tokens_per_second", "pictures_per_second", "painting_batch"):
        assert float(values[f"minigpt5_{name}_count"]) > 0
    assert float(values["minigpt5_pictures_total"]) > 0 and float(values["minigpt5_prompt_tokens_cached_total"]) > 0
    assert float(values['minigpt5_responses_total{route="/v1/chat/completions",status="200"}']) > 0
    assert float(values["minigpt5_queue_length"]) == 0 and float(values["minigpt5_conversations_bytes"]) > 0


# Stories

OPENING = "A red fox wakes up in the forest."


def test_the_command_s_story_is_told_by_a_service_without_torch(own_pipe, pictures, tmp_path):
    pictures[0].save(tmp_path / "fox.png")
    # The name of the model that the service has; nothing of it is opened.
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model_index.json").touch()
    options = {"steps": 3, "seed": 7, "image_mode": "always"}
    alone = list(tell_story(own_pipe, OPENING, pictures[0], do_sample=True, temperature=0.8, **options))
    assert len(alone) == 3
    code = (
        "import sys; from minigpt5.cli import main; code = main(sys.argv[1:])\n"
        "print(code, {'torch', 'transformers', 'diffusers'} & set(sys.modules))"
    )
    words = ["--image", "fox.png", "--steps", "3", "--seed", "7", "--image-mode", "always"]
    words += ["--temperature", "0.8"]
    with service(own_pipe, api_key="secret") as (url, _, _):
        done = subprocess.run(
            [sys.executable, "-c", code, "story", OPENING, *words, "--model", "tiny", "--out", "out"],
            env=os.environ | {"MINIGPT5_SERVER": url, "MINIGPT5_API_KEY": "secret"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert (done.stdout, done.stderr) == ("out/index.html\n0 set()\n", "")
    record = json.loads((tmp_path / "out" / "story.json").read_text())
    assert (record["model"], record["seed"], record["temperature"]) == ("tiny", 7, 0.8)
    assert [step["text"] for step in record["steps"]] == [step.text for step in alone]
    for step, other in zip(record["steps"], alone, strict=True):
        alike(Image.open(tmp_path / "out" / step["image"]), other.image)


def test_a_story_that_ends_has_a_last_step_without_a_picture(own_pipe, monkeypatch):
    told = [StoryStep(1, OPENING, Image.new("RGB", (2, 2), "red")), StoryStep(2, "The end.", None)]
    monkeypatch.setattr(stories, "tell_story", lambda *_, **options: iter(told[: options["steps"]]))
    with service(own_pipe) as (url, _, _):
        first, last = tell_story_at(f"{url}/", OPENING, steps=2)
    assert (first.index, first.text, first.image.getpixel((0, 0))) == (1, OPENING, (255, 0, 0))
    assert last == told[1]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"key": "guessed"}, "says: the API key is missing or wrong"),
        ({"model": "big"}, "has the model tiny, not big"),
        ({"steps": 0}, "says: steps must be at least 1, got 0"),
        ({"words": 3}, "says: a story is told by opening, .*, got 'words'"),
        ({"opening": OPENING * 100}, r"says: the prompt is \d+ tokens long"),
        ({"opening": " "}, "says: the opening is empty"),
        ({"temperature": "much"}, "says: temperature must be a number, got str"),
        ({"image": Image.new("RGB", (101, 100))}, "says: too large a picture"),
    ],
)
def test_a_service_s_refusal_of_a_story_is_told(running, asked, told):
    options = {"opening": OPENING, "key": "secret", "steps": 1} | asked
    with pytest.raises(ServiceError, match=f"^the service at {running[0]} {told}"):
        list(tell_story_at(running[0], **options))


def test_no_service_is_told_in_a_line(running, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def refusal(server, *more):
        assert cli.main(["story", OPENING, "--server", server, *more]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        return told.removeprefix("minigpt5: error: ")

    with socket.create_server(("127.0.0.1", 0)) as other:
        closed = f"http://127.0.0.1:{other.getsockname()[1]}"
    assert refusal(closed).startswith(f"the service at {closed} does not answer")
    assert refusal("localhost:8000").startswith("argument --server: not an address such as http://127.0.0.1:8000")
    assert refusal(f"{running[0]}/health").startswith(
        f"the service at {running[0]}/health says: there is no GET /health/v1/models here"
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "adapter.json").touch()
    assert refusal(running[0], "--adapter", "in").startswith("--adapter is of a model that is opened here")
    assert not (tmp_path / "story").exists()


def test_a_story_that_nobody_waits_for_is_given_up(own_pipe, count_calls):
    steps = count_calls(own_pipe.unet)
    with service(own_pipe) as (url, engine, _):
        story = tell_story_at(url, OPENING, steps=500, image_mode="always")
        assert next(story).index == 1
        story.close()
        while any(thread.name == "minigpt5-story" for thread in threading.enumerate()):
            time.sleep(0.02)
        assert not engine._replies()
    assert 0 < len(steps) < 100


# Waiting


def test_a_full_queue_and_a_deadline_have_their_own_answers(own_pipe, held):
    with service(own_pipe, Limits(batch_size=1, queue_size=1)) as (url, engine, _):
        asked = {"messages": ASKED, "max_tokens": 2}
        answers = []

        def ask(**more):
            answers.append(requests.post(f"{url}/v1/chat/completions", json=asked | more, timeout=90))

        threads = [threading.Thread(target=ask), threading.Thread(target=ask, kwargs={"timeout": 0.5})]
        for number, thread in enumerate(threads):
            thread.start()
            while len(engine._speaking) + engine.queue_length < number + 1 or not engine._speaking:
                time.sleep(0.01)
        full = requests.post(f"{url}/v1/chat/completions", json=asked)
        assert full.status_code == 429 and full.headers["Retry-After"] == "1"
        assert full.json()["error"]["type"] == "rate_limit_error"
        time.sleep(0.6)
        held.set()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200, 504]


def test_more_pictures_than_may_wait_are_refused_for_good(own_pipe):
    with service(own_pipe, Limits(batch_size=1, queue_size=2)) as (url, _, _):
        told = requests.post(f"{url}/v1/images/generations", json={"prompt": "a fox", "n": 3})
        assert told.status_code == 400 and "n is 3, and no more than 2 requests may wait" in told.text


def test_a_key_may_have_any_letters(own_pipe):
    key = "cl\u00e9-\u043a\u043b\u044e\u0447"
    with service(own_pipe, api_key=key) as (url, _, _):
        for given, status in ((key, 200), ("cl\u00e9", 401)):
            head = {"Authorization": f"Bearer {given}".encode()}
            assert requests.get(f"{url}/v1/models", headers=head).status_code == status


def test_a_client_that_goes_is_no_longer_answered(own_pipe, count_calls):
    steps = count_calls(own_pipe.unet)
    with service(own_pipe) as (url, engine, _):
        for stream in (True, False):
            # Seconds without a byte.
            asked = {"input": "go on", "tools": [{"type": "image_generation"}], "stream": stream}
            asked |= {"tool_choice": "required", "num_inference_steps": 500, "max_output_tokens": 1}
            with pytest.raises((requests.ReadTimeout, requests.ConnectionError)):
                requests.post(f"{url}/v1/responses", json=asked, timeout=3)
            while engine._replies():
                time.sleep(0.02)
    assert 0 < len(steps) < 1000


def test_a_client_that_goes_amid_the_words_is_no_longer_answered(own_pipe, monkeypatch):
    replies = []

    def submit(prompt, listener, **options):
        def speak():
            while not reply.cancelled:
                listener(TextEvent(0, "word "))
                time.sleep(0.01)

        reply = SimpleNamespace(cancelled=False)
        reply.cancel = lambda: setattr(reply, "cancelled", True)
        replies.append(reply)
        threading.Thread(target=speak, daemon=True).start()
        return reply

    with service(own_pipe) as (url, engine, _):
        monkeypatch.setattr(engine, "submit", submit)
        with pytest.raises((requests.ReadTimeout, requests.ConnectionError)):
            requests.post(f"{url}/v1/chat/completions", json={"messages": ASKED}, timeout=1)
        ends = time.monotonic() + 30
        while not replies[0].cancelled and time.monotonic() < ends:
            time.sleep(0.02)
        given_up = replies[0].cancelled
        replies[0].cancel()
    assert given_up


def test_a_client_that_goes_amid_its_request_is_no_failure(own_pipe, caplog):
    caplog.set_level(logging.INFO, "minigpt5.service")
    with service(own_pipe) as (url, _, _):
        place = url.removeprefix("http://").split(":")
        with socket.create_connection((place[0], int(place[1]))) as connection:
            connection.sendall(b"POST /v1/responses HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.5)
    (told,) = [record for record in caplog.records if record.name == "minigpt5.service"]
    assert told.fields["status"] == 499


def test_a_service_that_ends_answers_whom_it_has_taken(own_pipe, held):
    with service(own_pipe) as (url, engine, server):
        answers = []
        body = {"messages": ASKED, "max_tokens": 2}
        ask = lambda: answers.append(requests.post(f"{url}/v1/chat/completions", json=body, timeout=90))  # noqa: E731
        thread = threading.Thread(target=ask)
        thread.start()
        while not engine._speaking:
            time.sleep(0.01)
        # What SIGTERM does.
        server.should_exit = True
        time.sleep(0.3)
        held.set()
        thread.join()
        assert answers[0].status_code == 200
    assert not engine.running
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/health")


# The log


@pytest.mark.parametrize("log_prompts", [False, True])
def test_the_log_tells_prompts_only_if_it_is_asked_to(own_pipe, log_prompts, caplog):
    caplog.set_level(logging.INFO, "minigpt5.service")
    with service(own_pipe, log_prompts=log_prompts) as (url, _, _):
        body = {"messages": ASKED, "max_tokens": 3, "seed": 9, "image_mode": "never"}
        assert requests.post(f"{url}/v1/chat/completions", json=body, timeout=90).status_code == 200
        assert requests.post(f"{url}/v1/chat/completions", json={}, timeout=90).status_code == 400
    records = [record for record in caplog.records if record.name == "minigpt5.service"]
    good, bad = [json.loads(JSONLines().format(record)) for record in records]
    assert (good["event"], good["status"], good["new_tokens"], good["seeds"]) == ("request", 200, 3, [9])
    assert bad["status"] == 400 and good["route"] == bad["route"] == "/v1/chat/completions"
    assert ("red fox" in json.dumps(good)) == log_prompts == ("replies" in good)
