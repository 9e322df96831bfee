"""Work in actors of a Ray cluster: that of RAY_ADDRESS, or one that is started here."""

import json
import os
import sys
from pathlib import Path

import pytest
from datasets import load_dataset

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


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_actors_reply_to_what_an_evaluation_asks(tiny_folder, tmp_path, run_program, monkeypatch):
    monkeypatch.chdir(tmp_path)  # after the cluster's start, so that its processes are elsewhere
    export_cc3m(Path("data/cc3m"), "validation", 5)
    painted = ("evaluate_alignment", "--data", "data/cc3m", "--num-inference-steps", 2)
    said = ("evaluate_reading", "--layout", "cc3m", "--data", "data/cc3m/cc3m_validation.tsv")
    for name, *given in (painted, said):
        told = []
        for out, more in ((f"{name}-one", ()), (f"{name}-many", ("--ray", "--actors", 2))):
            given_and_more = (*given, "--judge", "storyworld", "--model", tiny_folder, "--batch-size", 2, *more)
            run_program(f"evaluation/{name}", *given_and_more, "--out", out)
            told.append(json.loads(Path(out, "results.json").read_text())["tasks"])
        (task,) = told[0].values()
        assert told[0] == told[1] and task["items"] == 5 and task["figures"]
