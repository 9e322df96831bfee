"""A simulator of the service: what batch size, replicas and arrivals come to, from the costs of what an engine does.

    python benchmarks/simulate_service.py --measure true [--model storyworld-mini] [--costs benchmarks/costs.json]
    python benchmarks/simulate_service.py --check true [--out benchmarks/simulated.json]
    python benchmarks/simulate_service.py --gpus 8 64 [--batch_sizes 1 8] [--loads 0.5 0.8 0.95]

The first measures, on the machine that it runs on, what an engine of `minigpt5.service.engine` takes to read a prompt,
for a decoding step and for a denoising step, by how many share it, and writes these costs to a file. From that file the
others simulate engines, one a GPU (`minigpt5.service.simulation`): what they print is computed. --check sets it against
a real service under the same requests.
"""

import json
import os
import platform
import statistics
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from minigpt5.loading import ModelSettings, open_model
from minigpt5.service.engine import Engine, Limits
from minigpt5.service.load import PICTURE, WORDS, arrivals, chat, post, put_load, sample_kinds, started, summary
from minigpt5.service.pictures import PictureLimits
from minigpt5.service.shapes import read_chat
from minigpt5.service.simulation import Costs, simulate, simulated_speed
from minigpt5.utils.files import check_file, write_json
from minigpt5.utils.json_files import read_json
from minigpt5.utils.programs import ProgramError, run_program
from minigpt5.utils.settings import setting

QUEUE = 64
COLUMNS = ("replies_per_s", "p50_s", "p95_s")
# How far from a real service the simulated one may be.
GOAL = 0.2


class TimedEngine(Engine):
    """Notes down what it takes, and the decoding steps of each reply."""

    def __init__(self, pipe, limits):
        self.taken, self.steps, self.since, self.pictures = defaultdict(list), Counter(), 0.0, 0
        super().__init__(pipe, limits, self.measured)

    def measured(self, name, value):
        """Hear how many pictures are about to be painted."""
        if name == "painting_batch":
            self.pictures, self.since, self.what = int(value), self.clock(), "begin"

    def clock(self):
        """Seconds, all that was asked of the device being done."""
        if self.pipe.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, what, count, work):
        """What some work gives; note down its seconds."""
        began = self.clock()
        result = work()
        self.taken[what, count].append(self.clock() - began)
        return result

    def _read(self, reply):
        kind = WORDS if reply.decoder.config.image_mode == "never" else PICTURE
        self.timed(f"read {kind}", len(self._speaking) + 1, lambda: super(TimedEngine, self)._read(reply))

    def _step(self):
        self.steps.update(self._speaking.values())
        self.timed("step", len(self._speaking), super()._step)

    def _between(self, group, step, tensors):
        self.taken[self.what, self.pictures].append(self.clock() - self.since)
        result = super()._between(group, step, tensors)
        self.since, self.what = self.clock(), "denoise"
        return result

    def _hand_out(self, group, images):
        super()._hand_out(group, images)
        self.taken["finish", self.pictures].append(self.clock() - self.since)


def engine_costs(pipe, batch_size, rounds):
    """The costs of a pipeline's engine on this machine, without HTTP."""
    engine = TimedEngine(pipe, Limits(batch_size=batch_size, queue_size=batch_size))
    sizes = sorted({batch_size, *(2**power for power in range(batch_size.bit_length()))})
    lengths = {kind: [] for kind in (WORDS, PICTURE)}
    for again in range(rounds + 1):
        if again == 1:
            # The first round was to warm up.
            engine.taken.clear()
        for kind in lengths:
            for size in sizes:
                replies = ask_together(engine, [chat(kind, number, 100 * again + size) for number in range(size)])
                lengths[kind] += [engine.steps[reply] for reply in replies]
    engine.close()
    tables = defaultdict(dict)
    for what, count in sorted(engine.taken):
        tables[what][count] = statistics.mean(engine.taken[what, count])
    # A scheduler of one step has no others.
    tables["denoise"] = tables["denoise"] or tables["begin"]
    return Costs(dict(tables), lengths, dict.fromkeys(lengths, 0.0), pipe._steps(None))


def measure(config):
    """The costs of a model's service on this machine."""
    most = max(config.batch_sizes)
    pipe = open_model(config.model, config.adapter)
    costs = engine_costs(pipe, most, config.rounds)
    where = torch.cuda.get_device_name() if pipe.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    costs.source = f"{config.model} on {platform.machine()}, {where}, torch {torch.__version__}"
    bodies = {kind: [chat(kind, number, seed=-1) for number in range(2 + 20)] for kind in costs.http}
    engine = Engine(pipe, Limits(batch_size=most))
    alone = {kind: [engine_wait(engine, body) for body in asked] for kind, asked in bodies.items()}
    engine.close()
    # The service has a model of its own.
    del engine, pipe
    with started(config.model, "--batch-size", most) as service:
        for kind, asked in bodies.items():
            waits = [post(service.url, "/v1/chat/completions", body).seconds for body in asked]
            # Of the same requests; the first were to warm up.
            costs.http[kind] = statistics.median(np.subtract(waits, alone[kind])[2:])
            if costs.http[kind] < 0:
                raise ProgramError(f"{kind}: the service took less than its engine alone; measure on a quiet machine")
    return costs


def submit(engine, body):
    """The reply of an engine to what the service would be asked."""
    asked = read_chat(body, PictureLimits())
    return engine.submit(asked.prompt, **asked.options)


def engine_wait(engine, body):
    """Seconds to the reply of an engine that has nothing else to do."""
    began = time.perf_counter()
    submit(engine, body).segments()
    return time.perf_counter() - began


def ask_together(engine, bodies):
    """Replies to requests that the engine finds at once, when they are whole."""
    held, go = threading.Event(), threading.Event()
    holding = threading.Thread(target=engine.use, args=(lambda _: (held.set(), go.wait()),))
    holding.start()
    held.wait()
    replies = [submit(engine, body) for body in bodies]
    go.set()
    for reply in replies:
        reply.segments()
    holding.join()
    return replies


def read_costs(path):
    """The costs that were written to a file.

    Raises:
        ValueError: if it holds no such.
    """
    try:
        told = read_json(path)
        tables = {what: {int(n): float(s) for n, s in table.items()} for what, table in told.pop("tables").items()}
        return Costs(tables=tables, **told)
    except (KeyError, TypeError, AttributeError) as error:
        raise ProgramError(f"{path} has no costs of this program ({error}); make it with --measure true") from None


@dataclass(kw_only=True)
class Simulation(ModelSettings):
    """What is simulated."""

    costs: Path = setting(Path("benchmarks/costs.json"), help="JSON file of costs")
    measure: bool = setting(False, help="measure the costs of the model here and write them to that file")
    check: bool = setting(False, help="set one replica against a real service on this machine, under the same requests")
    gpus: tuple[int, ...] = setting((1,), least=1, most=1000, help="replicas, one a GPU")
    batch_sizes: tuple[int, ...] = setting((1, 8), least=1, most=256, help="of each replica")
    shares: tuple[float, ...] = setting((0.0, 1.0), least=0, most=1, help="of requests for a picture; the rest: words")
    loads: tuple[float, ...] = setting((0.5, 0.8, 0.95, 1.2), above=0, help="arrivals, as shares of full speed")
    requests: int = setting(500, least=10, most=10**5, help="that are simulated, for each replica")
    seconds: float = setting(60.0, above=0, help="for which requests come to the real service, at each load")
    rounds: int = setting(5, least=1, help="of measuring")
    out: Path | None = setting(None, help="JSON file for the figures")


def table(costs, config):
    """Figures by share of pictures, batch size, GPUs and load."""
    rows = []
    print(f"{'pictures':>9}{'batch':>6}{'GPUs':>5}{'load':>6}{'arrive/s':>10}", end="")
    print("".join(f"{name:>15}" for name in (*COLUMNS, "p99_s", "refused")))
    for share in config.shares:
        for batch_size in config.batch_sizes:
            speed = simulated_speed(costs, share, batch_size)
            for gpus in config.gpus:
                for load in config.loads:
                    rate, count = load * speed * gpus, config.requests * gpus
                    moments = arrivals(rate, count / rate, seed=0)
                    kinds = sample_kinds(share, len(moments), seed=0)
                    told = summary(moments, simulate(costs, moments, kinds, batch_size, gpus))
                    rows.append({"share": share, "batch": batch_size, "gpus": gpus, "load": load, "rate": rate} | told)
                    cells = "".join(f"{told[name]:>15.3f}" for name in (*COLUMNS, "p99_s", "refused"))
                    print(f"{share:>9.0%}{batch_size:>6}{gpus:>5}{load:>6}{rate:>10.2f}{cells}", flush=True)
    return rows


def check(costs, config):
    """Simulated over real figures, by share of pictures and load."""
    rows, batch_size = [], max(config.batch_sizes)
    print(
        f"{'pictures':>9}{'load':>6}"
        + "".join(f"{f'{name}, real':>22}{'simulated':>11}{'ratio':>7}" for name in COLUMNS)
    )
    with started(config.model, "--batch-size", batch_size, "--queue-size", QUEUE, "--timeout", 3600) as service:
        for share in config.shares:
            warming = [0.0] * batch_size
            put_load(service.url, warming, sample_kinds(share, batch_size, 1), seed=-1)
            speed = simulated_speed(costs, share, batch_size)
            for number, load in enumerate(config.loads):
                moments = arrivals(load * speed, config.seconds, seed=number)
                kinds = sample_kinds(share, len(moments), seed=number)
                # Of no two loads the requests are the same: the service would have read them.
                real = summary(moments, put_load(service.url, moments, kinds, seed=len(rows)))
                simulated = summary(moments, simulate(costs, moments, kinds, batch_size))
                ratios = {name: simulated[name] / real[name] for name in COLUMNS}
                near = all(abs(ratio - 1) <= GOAL for ratio in ratios.values())
                rows.append({"share": share, "load": load, "real": real, "simulated": simulated, "near": near})
                cells = "".join(f"{real[name]:>22.3f}{simulated[name]:>11.3f}{ratios[name]:>7.2f}" for name in COLUMNS)
                print(f"{share:>9.0%}{load:>6}{cells}  {'' if near else 'MISSED'}", flush=True)
    print(f"{sum(row['near'] for row in rows)} of {len(rows)} within {GOAL:.0%}")
    return rows


def main(config: Simulation):
    for path in (config.out, config.costs if config.measure else None):
        if path:
            check_file(path)
    if config.measure:
        costs = measure(config)
        write_json(config.costs, vars(costs))
        print(json.dumps({"source": costs.source, "http": costs.http, **costs.tables}, indent=1))
        return
    costs = read_costs(config.costs)
    print(f"{'' if config.check else 'COMPUTED, from '}costs of {costs.source}; {os.cpu_count()} CPUs here")
    figures = check(costs, config) if config.check else table(costs, config)
    if config.out:
        write_json(config.out, {"costs": costs.source, "computed": not config.check, "figures": figures})


if __name__ == "__main__":
    run_program(main, Simulation, __doc__)
