"""The load that is put on a service: when requests come, and what is told of the answers."""

import itertools
import json
import statistics
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

import pytest

from minigpt5.service.load import (
    PICTURE,
    WORDS,
    Answer,
    arrivals,
    chat,
    full_speed,
    post,
    put_load,
    sample_kinds,
    started,
    summary,
)
from minigpt5.utils.programs import ProgramError

SECONDS = 0.2


@contextmanager
def answering(server, answer):
    """A server whose every answer is made by a function of the number of the request and its body."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status = answer(len(asked) - 1)
            if status:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b'{"id": "one"}')

        def log_message(self, *_):
            pass

    with server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", asked
        finally:
            running.shutdown()
            thread.join()


def slowly(_):
    time.sleep(SECONDS)
    return 200


def test_arrivals_are_a_poisson_process():
    moments = arrivals(rate=50, seconds=200, seed=0)
    assert moments == sorted(moments) == arrivals(50, 200, 0) != arrivals(50, 200, 1)
    assert moments[0] > 0 and moments[-1] < 200
    # 10,000 of them, with a standard deviation of 100; gaps of 1/50 s that vary as much as they are long.
    assert abs(len(moments) - 10_000) < 400
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.04)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.04)
    # By seconds, the counts' variance is their mean.
    counts = [sum(second <= moment < second + 1 for moment in moments) for second in range(200)]
    assert statistics.variance(counts) == pytest.approx(50, rel=0.4)


def test_kinds_have_their_share():
    assert set(sample_kinds(0, 50, 0)) == {WORDS} and set(sample_kinds(1, 50, 0)) == {PICTURE}
    kinds = sample_kinds(0.25, 10_000, 0)
    assert kinds.count(PICTURE) == pytest.approx(2500, abs=200)
    assert chat(PICTURE, 1, 0) == chat(PICTURE, 1, 0) != chat(PICTURE, 1, 1)
    assert chat(PICTURE, 1, 0)["image_mode"] == "always" and chat(WORDS, 1, 0)["image_mode"] == "never"


def test_a_summary_by_hand():
    waits = [1.0, 2.0, 3.0, 4.0, 5.0]
    answers = [Answer(200, wait) for wait in waits]
    told = summary([10.0, 11.0, 12.0, 13.0, 13.5, 14.0, 14.0], [*answers, Answer(429, 0.1), Answer(0, 0.1)])
    # From 10 s to 13.5 + 5 s; between the fourth and the fifth wait, linearly.
    assert told == pytest.approx(
        {"replies_per_s": 5 / 8.5, "p50_s": 3.0, "p95_s": 4.8, "p99_s": 4.96, "refused": 1 / 7, "failed": 1 / 7}
    )
    with pytest.raises(ValueError, match="no request was answered"):
        summary([0.0], [Answer(0, 1.0)])


def test_requests_do_not_wait_for_earlier_ones():
    # None is answered before all are there.
    together, told = threading.Barrier(5), []
    with answering(ThreadingHTTPServer, lambda _: 200 if together.wait(60) >= 0 else 0) as (url, asked):
        answers = put_load(url, [0.02 * number for number in range(5)], [WORDS] * 5, seed=3, then=told.append)
    assert [answer.status for answer in answers] == [200] * 5 and sorted(map(id, told)) == sorted(map(id, answers))
    assert all(answer.seconds >= 0.08 - 0.02 * number for number, answer in enumerate(answers))
    assert sorted(map(str, asked)) == sorted(str(chat(WORDS, number, 3)) for number in range(5))


def test_a_wait_counts_from_when_a_request_was_to_be_sent():
    with answering(HTTPServer, slowly) as (url, _):
        answers = put_load(url, [0.0, 0.01, 0.02], [WORDS] * 3)
        # One after the other.
        for number, wait in enumerate(sorted(answer.seconds for answer in answers), 1):
            assert wait >= number * SECONDS - 0.02
        # Two answers to warm up, then eight.
        assert 0.2 / SECONDS < full_speed(url, 0, 2) <= 1 / SECONDS


def test_what_is_no_reply_is_told_by_its_status():
    with answering(ThreadingHTTPServer, [200, 429, 0].__getitem__) as (url, _):
        answers = [post(url, "/", {}) for _ in range(3)]
    assert [(answer.status, answer.content) for answer in answers] == [(200, {"id": "one"}), (429, None), (0, None)]
    assert post(url, "/", {}).status == 0


def test_a_service_that_does_not_start_says_why():
    with (
        pytest.raises(ProgramError, match=r"the service did not start: minigpt5: error: .*--port"),
        started("storyworld-mini", "--port", "no number"),
    ):
        pass
