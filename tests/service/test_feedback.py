"""What people think of replies is kept, whole, whoever writes beside and whatever ends the process."""

import io
import sqlite3
import threading
from dataclasses import replace

import numpy as np
import pytest
from forking import run_forked

from minigpt5.loading import identity
from minigpt5.service.feedback import Feedback, FeedbackStore


@pytest.fixture
def store(tmp_path):
    return FeedbackStore(tmp_path / "feedback.sqlite")


@pytest.fixture
def feedback(pictures):
    part = {"type": "image", "image": pictures[0]}
    return Feedback(
        id="one",
        model={"name": "m", "revision": "sha256:0", "adapter": None},
        messages=[{"role": "user", "content": [part, {"type": "text", "text": "was ist „das“?"}]}],
        settings={"do_sample": True, "temperature": 0.5},
        seed=2**63 - 1,
        reply=["A fox.", pictures[1]],
        rating="down",
        correction=["A cat.", pictures[0]],
    )


def same(one, other):
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_a_row_is_read_as_it_was_put(store, feedback, pictures):
    assert list(store) == [] and not store.path.exists()
    store.put(feedback)
    (row,) = FeedbackStore(store.path)
    plain = ("id", "model", "settings", "seed", "rating")
    assert [getattr(row, name) for name in plain] == [getattr(feedback, name) for name in plain]
    picture, text = row.messages[0]["content"]
    assert text["text"] == "was ist „das“?" and same(picture["image"], pictures[0])
    assert row.reply[0] == "A fox." and same(row.reply[1], pictures[1])
    assert row.correction[0] == "A cat." and same(row.correction[1], pictures[0])
    assert row.time[:2] == "20" and row.time.endswith("+00:00")
    # A picture is kept once.
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT count(*) FROM pictures").fetchone() == (2,)


def test_the_folder_is_made_with_the_first_row(tmp_path, feedback):
    store = FeedbackStore(tmp_path / "not/there/feedback.sqlite")
    assert list(store) == [] and not store.path.parent.exists()
    store.put(feedback)
    assert [row.id for row in store] == ["one"]


def test_who_thinks_again_has_one_row_and_who_takes_it_back_none(store, feedback):
    store.put(replace(feedback, correction=None))
    store.put(replace(feedback, id="two", rating="up", correction=None))
    store.put(feedback)
    assert [(row.id, row.rating, row.correction is None) for row in store] == [
        ("two", "up", True),
        ("one", "down", False),
    ]
    store.remove("two")
    assert [row.id for row in store] == ["one"]


def test_pictures_go_with_the_last_row_that_has_them(store, feedback, pictures):
    def kept():
        with sqlite3.connect(store.path) as connection:
            return connection.execute("SELECT count(*) FROM pictures").fetchone()[0]

    store.put(feedback)
    store.put(replace(feedback, id="two", reply=["A cat."], correction=[pictures[2]]))
    assert kept() == 3
    # Put again without its correction's picture.
    store.put(replace(feedback, id="two", reply=["A cat."], correction=None))
    assert kept() == 2
    store.remove("one")
    assert kept() == 1 and same(next(iter(store)).messages[0]["content"][0]["image"], pictures[0])
    store.remove("two")
    store.remove("two")
    assert kept() == 0
    png = io.BytesIO()
    pictures[0].save(png, "PNG")
    assert png.getvalue()[-200:] not in store.path.read_bytes()


def test_what_is_no_feedback_is_refused(store, feedback, tmp_path):
    with pytest.raises(ValueError, match="rating must be one of up, down"):
        store.put(replace(feedback, rating="sideways"))
    (tmp_path / "text").write_text("no database, but long enough for the header of one" * 20)
    with sqlite3.connect(tmp_path / "other") as connection:
        connection.execute("CREATE TABLE feedback (id TEXT)")
    for name in ("text", "other"):
        with pytest.raises(ValueError, match=f"{name} is no file of feedback"):
            FeedbackStore(tmp_path / name)


def test_several_people_write_at_once(store, feedback):
    def write(person):
        for number in range(5):
            FeedbackStore(store.path).put(replace(feedback, id=f"{person}-{number}"))

    threads = [threading.Thread(target=write, args=(person,)) for person in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({row.id for row in store}) == 30


# A process is killed while it writes; it says each row once it is accepted.
KILLED_WRITER = """
import itertools, os, signal, sys
from minigpt5.service.feedback import Feedback, FeedbackStore

heard, said = os.pipe()
writer = os.fork()
if not writer:
    store = FeedbackStore(sys.argv[1])
    for number in itertools.count():
        store.put(Feedback(str(number), {}, [], {}, 0, ["text"], "up"))
        os.write(said, f"{number}\\n".encode())
os.close(said)
for line in open(heard):
    print(line, end="")
    if line == "20\\n":
        os.kill(writer, signal.SIGKILL)
"""


def test_what_was_accepted_outlives_a_kill(store, feedback, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(KILLED_WRITER)
    (output,) = run_forked(program, store.path)
    assert output.returncode == 0, output.stderr
    accepted = output.stdout.split()
    assert accepted[:21] == [str(number) for number in range(21)]
    assert set(accepted) <= {row.id for row in FeedbackStore(store.path)}
    # And who comes next writes on.
    store.put(feedback)
    assert "one" in {row.id for row in store}


def test_a_model_is_told_by_its_weights(tiny_folder, tmp_path):
    told = identity(tiny_folder)
    assert told["name"] == str(tiny_folder) and told["revision"].startswith("sha256:") and told["adapter"] is None
    (tmp_path / "adapter.json").write_text("{}")
    assert identity(tiny_folder, tmp_path)["adapter"]["revision"] != told["revision"]
