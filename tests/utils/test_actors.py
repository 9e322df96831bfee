"""Work in actors of a Ray cluster: that of RAY_ADDRESS, or one that is started here."""

import json
import os
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from minigpt5.evaluation.generation import generate
from minigpt5.evaluation.items import alignment_items
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.storyworld.export import export_cc3m
from minigpt5.utils.actors import ActorSettings, map_in_actors
from minigpt5.utils.programs import ProgramError


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
    else:
        ray.init(num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    # Actors cannot import a file of tests.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.shutdown()


def test_without_ray_the_work_is_done_here():
    assert list(map_in_actors(str, [3, 1, 2], ActorSettings())) == ["3", "1", "2"]


def test_ray_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"Ray is not installed: pip install 'minigpt5\[ray\]'"):
        list(map_in_actors(str, [1], ActorSettings(ray=True)))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_what_an_actor_had_in_hand_when_it_died_is_done_by_another(tmp_path):
    def work(number):
        if number == 3 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(1)
        return number, number * 2

    done = list(map_in_actors(work, range(6), ActorSettings(ray=True, actors=2)))
    assert sorted(done) == [(number, number * 2) for number in range(6)] and (tmp_path / "died").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_an_actor_keeps_the_memory_that_tensors_leave():
    def faults(size):
        np.ones(size)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            np.ones(size)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert next(map_in_actors(faults, [5 * 2**20], ActorSettings(ray=True))) < 100


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_what_the_user_can_put_right_is_told_in_its_own_words():
    def work(number):
        raise FileNotFoundError(f"{number} is missing")

    with pytest.raises(ProgramError, match=r"^3 is missing$"):
        list(map_in_actors(work, [3], ActorSettings(ray=True)))
    with pytest.raises(ProgramError, match=r"^gpus_per_actor is 60.0, and the cluster has "):
        list(map_in_actors(work, [3], ActorSettings(ray=True, gpus_per_actor=60)))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_actors_make_the_data_set_that_one_process_makes(tiny_folder, tmp_path, run_program, capsys):
    lines = [{"prompt": f"A fox number {number}."} for number in range(5)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    given = ("--rows", tmp_path / "rows.jsonl", "--model", tiny_folder, "--image-mode", "always", "--part-rows", 2)
    made = []
    for out, more in (("one", ()), ("many", ("--ray", "--actors", 2, "--batch-size", 1))):
        run_program("pipelines/generate_dataset", *given, "--out", tmp_path / out, *more)
        assert capsys.readouterr().out.startswith("5 rows in ")
        rows = load_dataset("parquet", data_files=f"{tmp_path}/{out}/part-*.parquet", split="train").sort("id")
        made.append([[part["text"] or part["image"].size for part in row["reply"]] for row in rows])
    assert made[0] == made[1] and len(made[0]) == 5


class Echo:
    """Replies with the last text of each prompt and a picture that its generator draws."""

    def __call__(self, prompts, *, generator, image_mode):
        from torch import randint

        shades = [tuple(randint(256, (3,), generator=own).tolist()) for own in generator]
        said = [prompt[-1]["content"][-1]["text"] for prompt in prompts]
        segments = [[text, Image.new("RGB", (8, 8), shade)] for text, shade in zip(said, shades, strict=True)]
        return SimpleNamespace(segments=segments)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_actors_reply_to_what_an_evaluation_asks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the cluster's processes were started elsewhere
    export_cc3m(Path("data"), "validation", 6)
    items = alignment_items(Path("data"), "validation")
    Path(items[2].picture).write_text("broken")
    made = {}
    for name, actors in (("here", ActorSettings()), ("far", ActorSettings(ray=True, actors=2))):
        replies = ReplyFolder(name)
        replies.claim({})
        assert generate(Echo, items, replies, batch_size=2, max_bad_share=0.5, actors=actors) == 5
        made[name] = {file.name: file.read_bytes() for file in Path(name, "replies").iterdir()}
    assert len(made["here"]) == 11 and made["here"] == made["far"]
