"""The files of `deploy/` name what there is."""

import json
import re
import shlex
from pathlib import Path

import yaml

from minigpt5.cli import build_parser
from minigpt5.service.metrics import COUNTERS, HISTOGRAMS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def test_the_dashboard_shows_measures_that_are_taken():
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    shown = {name for one in panels for t in one["targets"] for name in re.findall(r"minigpt5_(\w+)", t["expr"])}
    taken = {f"{name}_{kind}" for name in HISTOGRAMS for kind in ("bucket", "sum", "count")}
    taken |= {f"{name}_total" for name in (*COUNTERS, "responses")}
    assert shown - taken == {"queue_length", "conversations_bytes", "pictures_bytes"}
    places = [tuple(one["gridPos"].values()) for one in panels]
    assert len(set(places)) == len(panels) == len({one["id"] for one in panels})


def test_the_image_copies_files_that_are_there_and_serves():
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(" ", 1) for line in lines if line and line[0] not in "# "]
    copied = [name for step, rest in steps if step == "COPY" for name in shlex.split(rest)[:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    told = dict(steps)
    command = [*json.loads(told["ENTRYPOINT"])[1:], *json.loads(told["CMD"])]
    assert build_parser().parse_args(command).host == "0.0.0.0"


def test_the_composition_serves_on_the_cpu_and_on_a_card():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert services.keys() == {"cpu", "cuda"}
    for name, service in services.items():
        assert service["profiles"] == [name] and (DEPLOY / service["build"]["context"] / "deploy/Dockerfile").exists()
        arguments = [part.replace("${MODEL:-storyworld-mini}", "storyworld-mini") for part in service["command"]]
        assert build_parser().parse_args(["serve", *arguments]).port == 8000
