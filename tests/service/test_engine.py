"""Many requests at once: each reply is the one that the pipeline gives to the same request alone."""

import itertools
import random
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minigpt5.pipeline import ImageEvent
from minigpt5.readers.prompts import PromptTooLongError
from minigpt5.service.engine import (
    CancelledError,
    ClosedError,
    DeadlineError,
    Engine,
    FailedError,
    Limits,
    PreviewEvent,
    QueueFullError,
)
from minigpt5.service.pictures import PictureLimits
from minigpt5.service.store import Memory, Store
from minigpt5.service.stories import Teller
from minigpt5.vokens.decoding import DecodingBatch, TextEvent

WORDS = ["go on", "what does the red fox see in the forest at night?", "a cat", "tell me of <ImageHere>"]
SAMPLED = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.5}


@pytest.fixture
def measured():
    return []


@pytest.fixture
def start(pipe, measured):
    """Engines that are closed behind the test."""
    engines = []

    def start(**limits):
        engine = Engine(pipe, Limits(**limits), lambda name, value: measured.append((name, value)))
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        engine.close(drain=False)


def same(segments, expected):
    assert [part for part in segments if isinstance(part, str)] == [part for part in expected if isinstance(part, str)]
    assert list(map(type, segments)) == list(map(type, expected))
    for one, other in zip(segments, expected, strict=True):
        if not isinstance(one, str):
            # The last rounding to 8 bits may turn either way.
            difference = np.abs(np.asarray(one).astype(int) - np.asarray(other))
            assert difference.max() <= 1 and difference.mean() < 0.01


def requests(pictures):
    for seed, words in enumerate(WORDS):
        yield words, pictures[0] if "Image" in words else None, seed, {} if seed % 2 else SAMPLED


def test_replies_of_requests_that_come_while_others_are_answered_are_those_of_each_alone(
    pipe, start, pictures, measured, held
):
    options = {"image_mode": "always", "max_images": 2, "max_new_tokens": 12}
    engine, replies = start(batch_size=3), []
    for words, picture, seed, own in requests(pictures):
        replies.append(engine.submit(words, picture, seed=seed, **own, **options))
        time.sleep(0.02)
        if seed == 1:
            held.set()
    segments = [reply.segments() for reply in replies]
    engine.close()
    for reply, found, (words, picture, seed, own) in zip(replies, segments, requests(pictures), strict=True):
        alone = pipe(words, picture, generator=torch.Generator().manual_seed(seed), **own, **options)
        same(found, alone.segments[0])
        assert reply.prompt_tokens == pipe.encode_prompt([words], [[picture] if picture else []])["input_ids"].shape[1]
        assert reply.new_tokens <= 12
    assert any(isinstance(part, str) for found in segments for part in found)
    assert max(value for name, value in measured if name == "decoding_batch") > 1
    assert sum(value for name, value in measured if name == "pictures") == sum(len(r.features) for r in replies) >= 4


def test_features_that_pictures_are_painted_of_are_those_of_the_request_alone(pipe, start, pictures, monkeypatch):
    """In floating point, before pictures are rounded to 8 bits."""
    genuine = pipe._paint
    monkeypatch.setattr(pipe, "_paint", lambda features, **options: genuine(features, output_type="np", **options))
    options = {"image_mode": "always", "max_new_tokens": 4}
    engine = start()
    replies = [engine.submit(words, image, seed=seed, **options) for words, image, seed, _ in requests(pictures)]
    found = [reply.segments()[-1] for reply in replies]
    engine.close()
    monkeypatch.undo()
    for image, (words, picture, seed, _) in zip(found, requests(pictures), strict=True):
        generator = torch.Generator().manual_seed(seed)
        alone = pipe(words, picture, generator=generator, output_type="np", **options).images[0][-1]
        np.testing.assert_allclose(image, alone, atol=1e-5)


def test_pictures_that_are_painted_alike_denoise_together_and_others_apart(start, measured, held):
    engine = start(batch_size=4)
    asked = {"image_mode": "always", "max_new_tokens": 2}
    replies = [engine.submit("go on", num_inference_steps=steps, **asked) for steps in (2, 2, 3)]
    held.set()
    for reply in replies:
        reply.segments()
    assert [value for name, value in measured if name == "painting_batch"] == [2, 1]


def test_text_is_told_as_it_comes_and_behind_a_picture_once_that_is_painted(pipe, start, script, tiny_processor):
    image = tiny_processor.voken_ids[0]
    script(["a red fox", image, "in the", image, "forest"])
    events = list(start().submit("go on", max_images=2, max_new_tokens=30))
    kinds = [type(event) for event in events]
    first = kinds.index(ImageEvent)
    assert first > 1 and kinds.count(ImageEvent) == 2 and kinds[-1] is TextEvent
    texts = "".join("|" if isinstance(event, ImageEvent) else event.text for event in events)
    assert texts == "a red fox|in the|forest"


def test_previews_become_the_picture(start):
    events = list(start().submit("go on", image_mode="always", num_inference_steps=8, previews=3, seed=0))
    previews = [event for event in events if isinstance(event, PreviewEvent)]
    (picture,) = [event.image for event in events if isinstance(event, ImageEvent)]
    assert [(event.picture, event.number) for event in previews] == [(0, 0), (0, 1), (0, 2)]
    apart = [np.abs(np.asarray(event.image).astype(int) - np.asarray(picture)).mean() for event in previews]
    assert apart == sorted(apart, reverse=True) and apart[-1] < apart[0]


def test_decoding_goes_on_while_pictures_are_painted(start, pipe, monkeypatch):
    engine, painting, asked = start(), threading.Event(), threading.Event()
    genuine = engine._between

    def between(group, step, tensors):
        painting.set()
        assert asked.wait(60)
        return genuine(group, step, tensors)

    monkeypatch.setattr(engine, "_between", between)
    told = []
    first = engine.submit("go on", image_mode="always", max_new_tokens=1, num_inference_steps=6, listener=told.append)
    assert painting.wait(60)
    second = engine.submit("a cat", image_mode="never", max_new_tokens=2, listener=told.append)
    asked.set()
    engine.close()
    assert first.over and second.over
    ends = [event for event in told if event is None or isinstance(event, ImageEvent)]
    assert ends[0] is None and isinstance(ends[1], ImageEvent)


# What is kept


def test_a_conversation_that_goes_on_is_not_read_again(pipe, start, pictures):
    turn = [
        {"role": "user", "content": [{"type": "image", "image": pictures[0]}, {"type": "text", "text": "what is it"}]}
    ]
    options = {"image_mode": "never", "max_new_tokens": 5}
    engine = start()
    first = engine.submit(turn, **options)
    (said,) = first.segments()
    turns = [*turn, {"role": "assistant", "content": said}, {"role": "user", "content": "and then?"}]
    second = engine.submit(turns, **options)
    segments = second.segments()
    assert first.cached_tokens == 0 and second.cached_tokens >= first.prompt_tokens
    assert segments == pipe(turns, **options).segments[0]
    again = engine.submit(turns, **options)
    assert again.segments() == segments and again.cached_tokens == again.prompt_tokens - 1


def test_a_conversation_may_go_on_in_two_ways(pipe, start):
    options = {"image_mode": "never", "max_new_tokens": 5}
    engine = start()
    engine.submit("tell me of a red fox in the forest", **options).segments()
    for words in ("tell me of a red fox at night", "tell me of a red fox in the forest and a cat"):
        reply = engine.submit(words, **options)
        assert reply.segments() == pipe(words, **options).segments[0] and reply.cached_tokens > 5


def test_a_picture_that_was_read_is_not_looked_at_again(pipe, start, pictures, count_calls, measured):
    looks = count_calls(pipe.comprehension.vision_model)
    options = {"image_mode": "never", "max_new_tokens": 3}
    engine = start()
    for words in ("<ImageHere> what is this?", "tell me of <ImageHere>", "<ImageHere> and <ImageHere>"):
        own = pictures[: words.count("<")]
        assert engine.submit(words, own, **options).segments() == engine.submit(words, own, **options).segments()
    assert [kwargs["pixel_values"].shape[0] if kwargs else args[0].shape[0] for args, kwargs in looks] == [1, 1]
    assert sum(value for name, value in measured if name == "pictures_cached") == 6


def test_without_room_nothing_is_kept(start, pictures, pipe):
    options = {"image_mode": "never", "max_new_tokens": 3}
    engine = start(cache_mb=0)
    for _ in range(2):
        reply = engine.submit("what is <ImageHere>", pictures[0], **options)
        assert reply.segments() == pipe("what is <ImageHere>", pictures[0], **options).segments[0]
        assert reply.cached_tokens == 0


def test_what_was_used_least_recently_is_forgotten():
    store = Store(10)
    for key in "abc":
        store.put(key, key.upper(), 4)
    assert store.get("a") is None and store.get("b") == "B" and store.nbytes == 8
    store.put("d", "D", 4)
    assert [key for key, _ in store.values()] == ["b", "d"]
    store.put("b", "larger", 9)
    assert [key for key, _ in store.values()] == ["b"] and store.nbytes == 9
    store.put("b", "too large", 11)
    assert len(store) == 0 and store.nbytes == 0


# Limits


def test_a_full_queue_takes_no_more(start, held):
    engine = start(queue_size=2, batch_size=1)
    engine.submit("go on")
    while engine.queue_length:
        time.sleep(0.01)
    for _ in range(2):
        engine.submit("go on")
    with pytest.raises(QueueFullError, match="2 requests are waiting"):
        engine.submit("go on")
    reply = engine.submit("go on", goes_on=True)
    held.set()
    assert reply.segments()


def test_a_story_that_was_taken_on_goes_on_where_the_queue_is_full(start, held):
    engine = start(queue_size=1, batch_size=1)
    asked = {"opening": "A fox.", "steps": 2, "image_mode": "always"}
    held.set()
    steps = Teller(engine, asked, PictureLimits()).steps
    assert next(steps).index == 1
    held.clear()
    engine.submit("go on")
    while engine.queue_length:
        time.sleep(0.01)
    engine.submit("go on")
    with pytest.raises(QueueFullError):
        next(Teller(engine, asked, PictureLimits()).steps)
    threading.Timer(0.1, held.set).start()
    assert next(steps).index == 2


def test_a_request_has_so_much_time(start, held):
    engine = start(batch_size=1)
    speaking, waiting = engine.submit("go on", timeout=0.2), engine.submit("a cat", timeout=0.2)
    time.sleep(0.3)
    held.set()
    for reply in (speaking, waiting):
        with pytest.raises(DeadlineError, match="not whole after"):
            reply.segments()
    assert engine.submit("go on").segments()


def test_cancelled_requests_end_and_others_go_on(start, held, pipe):
    engine = start()
    given_up, other = engine.submit("go on", max_new_tokens=50), engine.submit("a cat", seed=3)
    given_up.cancel()
    held.set()
    with pytest.raises(CancelledError):
        given_up.segments()
    same(other.segments(), pipe("a cat", generator=torch.Generator().manual_seed(3)).segments[0])


def test_denoising_ends_where_nobody_waits_for_its_pictures(start, pipe, count_calls):
    steps = count_calls(pipe.unet)
    engine = start()
    reply = engine.submit("go on", image_mode="always", num_inference_steps=50, previews=3, max_new_tokens=1)
    with pytest.raises(CancelledError):
        for event in reply:
            if isinstance(event, PreviewEvent):
                reply.cancel()
    engine.close()
    assert len(steps) < 50


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"max_new_tokens": 9}, ValueError),
        ({"max_images": 3}, ValueError),
        ({"seed": -1}, ValueError),
        ({"previews": 4}, ValueError),
        ({"timeout": 1e9}, ValueError),
        ({"guidance_scale": -1}, ValueError),
        ({"height": 7}, ValueError),
        ({"num_inference_steps": 0}, ValueError),
        ({"temperature": "hot"}, TypeError),
    ],
)
def test_what_is_beyond_the_limits_is_refused_at_once(start, wrong, error):
    engine = start(max_new_tokens=8, max_images=2)
    with pytest.raises(error, match=next(iter(wrong))):
        engine.submit("go on", **wrong)


def test_prompts_are_checked_at_once(start):
    engine = start()
    with pytest.raises(ValueError, match="the prompt is empty"):
        engine.submit(" ")
    with pytest.raises(ValueError, match="tokens long"):
        engine.submit("fox " * 3000)
    with pytest.raises(PromptTooLongError, match="characters long, and the model's context holds"):
        engine.submit("a" * (32 * engine.pipe.reader.context_length + 1))
    with pytest.raises(ValueError, match="one prompt, got 2"):
        engine.submit(["go on", "a cat"])


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"queue_size": 0}, {"timeout": 0}, {"cache_mb": -1}])
def test_limits_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)


# Ends


def test_a_closing_engine_answers_those_that_it_took_and_no_other(start, held):
    engine = start(batch_size=1)
    replies = [engine.submit("go on", max_new_tokens=3, image_mode="never") for _ in range(3)]
    held.set()
    engine.close()
    assert not engine.running and len({reply.segments()[0] for reply in replies}) == 1
    with pytest.raises(ClosedError):
        engine.submit("go on")


def test_a_model_that_fails_once_answers_the_next_request(start, pipe, monkeypatch, caplog):
    engine = start()
    genuine = DecodingBatch.step
    monkeypatch.setattr(DecodingBatch, "step", lambda batch: 1 / 0)
    with pytest.raises(FailedError, match="failed to decode"):
        engine.submit("go on").segments()
    monkeypatch.setattr(DecodingBatch, "step", genuine)
    monkeypatch.setattr(pipe, "_paint", lambda *args, **options: 1 / 0)
    with pytest.raises(FailedError, match="failed to paint"):
        engine.submit("go on", image_mode="always").segments()
    monkeypatch.undo()
    assert engine.submit("go on", image_mode="always").segments()
    assert [record.getMessage() for record in caplog.records] == ["decoding failed", "painting failed"]


def test_an_errand_has_the_pipeline_between_two_steps_of_others(pipe, start, held):
    engine = start()
    assert engine.use(lambda pipe: threading.current_thread().name) == "minigpt5-engine"
    reply = engine.submit("go on", image_mode="never", max_new_tokens=6)
    held.set()
    assert engine.use(lambda pipe: pipe) is pipe
    assert reply.segments() == pipe("go on", image_mode="never", max_new_tokens=6).segments[0]
    with pytest.raises(ZeroDivisionError):
        engine.use(lambda pipe: 1 / 0)
    engine.close()
    with pytest.raises(ClosedError):
        engine.use(lambda pipe: pipe)


def test_the_longest_conversation_is_found_without_asking_of_each():
    asked = []

    def alike(one, other):
        pairs = zip(one, other[:-1], strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    class Reader:
        def held(self, cache, inputs, keys):
            asked.append(cache)
            return alike(cache.ids[0].tolist(), inputs["input_ids"][0].tolist())

    def kept(ids):
        cache = SimpleNamespace(ids=torch.tensor([ids]), pictures=[], source=None, nbytes=8)
        cache.select = lambda rows: SimpleNamespace(ids=cache.ids)
        return cache

    memory, rng = Memory(Reader(), 10**6), random.Random(0)
    conversations = [[7, 7, 7, *(rng.randrange(3) for _ in range(6))] for _ in range(300)]
    for ids in conversations:
        memory.keep(kept(ids))
    for prompt in ([7, 7, 7, 0, 1, 2, 0, 1, 2, 5], [7, 7, 7, 2, 2, 9]):
        asked.clear()
        found = memory.recall({"input_ids": torch.tensor([prompt])}, [])
        assert alike(found.ids[0].tolist(), prompt) == max(alike(ids, prompt) for ids in conversations)
        assert 1 <= len(asked) <= 10
    asked.clear()
    assert len(memory.recall({"input_ids": torch.tensor([[5, 5]])}, [])) == 0 and not asked
