"""The simulator of the service, against closed forms of queueing, timelines by hand, and the engine itself."""

import random
import runpy
import statistics
from pathlib import Path

import pytest

from minigpt5.service import engine as engines
from minigpt5.service import simulation
from minigpt5.service.engine import Limits
from minigpt5.service.load import MOST_WORDS, PICTURE, WORDS, arrivals, chat, summary
from minigpt5.service.simulation import Costs, simulate, simulated_speed

PROGRAM = Path(__file__).parents[2] / "benchmarks/simulate_service.py"


def costs(read=0.0, step=0.0, begin=0.0, denoise=0.0, finish=0.0, words=(1,), http=0.0, steps=3):
    """Costs that do not grow with how many share them."""
    paid = {"read words": read, "read picture": read, "step": step}
    paid |= {"begin": begin, "denoise": denoise, "finish": finish}
    lengths = {WORDS: list(words), PICTURE: [1]}
    return Costs({name: {1: seconds} for name, seconds in paid.items()}, lengths, {WORDS: http, PICTURE: http}, steps)


def waits(moments, answers, service):
    """Mean seconds that requests wait before they are served."""
    return statistics.mean(answer.seconds for answer in answers) - service


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_reply_at_a_time_is_the_queue_m_d_1(load):
    service = 0.1
    moments = arrivals(load / service, 4000, seed=0)
    answers = simulate(costs(read=service), moments, [WORDS] * len(moments), 1, queue_size=10**6)
    # Pollaczek and Khinchine: the mean wait is load × service / (2 (1 - load)).
    assert waits(moments, answers, service) == pytest.approx(load * service / (2 * (1 - load)), rel=0.05)


def test_two_replicas_at_half_the_load_each():
    service, load = 0.1, 0.8
    moments = arrivals(2 * load / service, 2000, seed=0)
    answers = simulate(costs(read=service), moments, [WORDS] * len(moments), 1, replicas=2, queue_size=10**6)
    told = summary(moments, answers)
    assert told["replies_per_s"] == pytest.approx(2 * load / service, rel=0.02) and told["refused"] == 0
    # Each M/D/1 at half the arrivals, if they were chosen blindly; that they are not makes it better, but not better
    # than one queue for both. That is M/D/2, which waits at least half as long as M/M/2 does by Erlang's formula.
    blind = load * service / (2 * (1 - load))
    erlang = service * load**2 / (1 - load**2)
    assert erlang / 2 < waits(moments, answers, service) < 0.75 * blind


def test_full_batches_bound_what_a_replica_makes():
    paid = costs(read=0.01, step=0.05, words=(6,))
    # Eight are read one by one, then six steps are shared.
    assert simulated_speed(paid, 0, 8) == pytest.approx(8 / (8 * 0.01 + 6 * 0.05))
    assert simulated_speed(paid, 0, 1) == pytest.approx(1 / (0.01 + 6 * 0.05))
    paid = costs(read=0.01, step=0.05, begin=0.3, denoise=0.2, finish=0.1, steps=3)
    assert simulated_speed(paid, 1, 4) == pytest.approx(4 / (4 * 0.01 + 0.05 + 0.3 + 2 * 0.2 + 0.1))


def test_a_batch_that_costs_more_with_more_rows():
    paid = costs(words=(2,))
    paid.tables["step"] = {1: 0.1, 2: 0.16, 4: 0.2}
    # Alone for a step, then together with one that came meanwhile.
    first, second = simulate(paid, [0.0, 0.05], [WORDS] * 2, 4)
    assert first.seconds == pytest.approx(0.1 + 0.16) and second.seconds == pytest.approx(0.05 + 0.16 + 0.1)


def test_prompts_are_read_and_words_decoded_between_denoising_steps():
    paid = costs(read=1, step=2, begin=10, denoise=10, finish=5, words=(2,), http=0.5)
    picture, words = simulate(paid, [0.0, 4.0], [PICTURE, WORDS], 4)
    # HTTP and read 1.5, step 3.5, first denoising step 13.5; the other is read 15, step 17; second 27, its last step
    # 29; third 39, the end 44.
    assert words.seconds == pytest.approx(29 - 4) and picture.seconds == pytest.approx(44)


def test_a_picture_waits_for_others_only_so_long():
    paid = costs(step=0.1, begin=1, steps=1, words=(40,))
    picture, words = simulate(paid, [0.0, 0.0], [PICTURE, WORDS], 4)
    # Spoken at 0.1 s, when the other is read; after three more steps it has waited for more than a quarter of a second.
    assert picture.seconds == pytest.approx(0.4 + 1 + 0.1)
    assert words.seconds == pytest.approx(0.1 + 40 * 0.1 + 1)


def test_a_full_queue_refuses():
    answers = simulate(costs(read=1), [0.0, 0.1, 0.2, 1.5], [WORDS] * 4, 1, queue_size=1)
    assert [answer.status for answer in answers] == [200, 200, 429, 200]
    assert [answer.seconds for answer in answers if answer.status == 200] == pytest.approx([1, 1.9, 1.5])


def test_replicas_have_one_queue_behind_two_batches_each():
    answers = simulate(costs(read=1), [0.0] * 6 + [1.5], [WORDS] * 7, 1, replicas=2, queue_size=1)
    # Two are read at once and two wait in the replicas, of the others one; it makes room when a second has passed.
    assert [answer.status for answer in answers] == [200] * 5 + [429, 200]
    assert [answer.seconds for answer in answers if answer.status == 200] == pytest.approx([1, 1, 2, 2, 3, 1.5])


@pytest.mark.parametrize(("many", "seconds"), [(1, 1.0), (2, 2.0), (3, 2.5), (4, 3.0), (8, 5.0)])
def test_costs_between_and_beyond_what_was_measured(many, seconds):
    paid = costs()
    paid.tables["step"] = {1: 1.0, 2: 2.0, 4: 3.0}
    assert paid.of("step", many) == pytest.approx(seconds)


@pytest.fixture(scope="module")
def program():
    return runpy.run_path(str(PROGRAM))


@pytest.mark.parametrize("kinds", [[PICTURE] * 5, [WORDS] * 5, [WORDS, PICTURE, PICTURE, WORDS, PICTURE, WORDS]])
def test_it_goes_step_by_step_where_the_engine_goes(pipe, program, kinds, monkeypatch):
    # How long a machine takes must not matter.
    for module in (engines, simulation):
        monkeypatch.setattr(module, "PICTURE_WAIT", 1000)
    engine = program["TimedEngine"](pipe, Limits(batch_size=2))
    done = []

    class Log(dict):
        """In the order of time."""

        def __missing__(self, key):
            return Noted(key)

    class Noted:
        def __init__(self, key):
            self.append = lambda seconds: done.append(key)

    engine.taken = Log()
    replies = program["ask_together"](engine, [chat(kind, number, 0) for number, kind in enumerate(kinds)])
    engine.close()
    lengths = iter([engine.steps[reply] for reply in replies])
    monkeypatch.setattr(random.Random, "choice", lambda self, some: next(lengths))
    asked = []

    class Noting(Costs):
        def of(self, what, many):
            asked.append((what, many))
            return 1e-3

    paid = Noting(**vars(costs(steps=pipe._steps(None))))
    answers = simulate(paid, [0.0] * len(kinds), kinds, 2)
    assert asked == done and len(answers) == len(kinds)


def test_costs_are_measured_for_all_that_an_engine_does(pipe, program):
    measured = program["engine_costs"](pipe, batch_size=2, rounds=1)
    assert {name: set(table) for name, table in measured.tables.items()} == {
        name: {1, 2} for name in ("read words", "read picture", "step", "begin", "denoise", "finish")
    }
    assert all(seconds > 0 for table in measured.tables.values() for seconds in table.values())
    assert measured.denoising_steps == 2 and len(measured.lengths[WORDS]) == len(measured.lengths[PICTURE]) == 6
    # The tiny model never paints by itself: its picture is the last thing that it may choose.
    assert set(measured.lengths[PICTURE]) == {MOST_WORDS} and 1 <= max(measured.lengths[WORDS]) <= MOST_WORDS
