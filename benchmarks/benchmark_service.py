"""Replies a second and waits of the service under an open load, against one reply at a time; and a long load on it.

    python benchmarks/benchmark_service.py [--shares 0 1] [--loads 0.3 0.6 0.9 1.2] [--out benchmarks/service.json]
    python benchmarks/benchmark_service.py --soak 20 [--out benchmarks/soak.json]

Requests come by a Poisson process to `minigpt5 serve`, at shares of the rate that it makes of requests that all come at
once; 1.2 of it is more than it can do, so that its queue fills and the rest is told 429. The same requests then go to
a service with a batch limit of 1. With --soak one load lasts so many minutes. At half time, in the middle of replies
and of ratings, the service is killed with SIGKILL and started again; in the end every rating that was answered with 200
must be in its file.
"""

import os
import platform
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from minigpt5.service.feedback import RATINGS, FeedbackStore
from minigpt5.service.load import arrivals, full_speed, post, put_load, sample_kinds, started, summary
from minigpt5.utils.files import check_file, write_json
from minigpt5.utils.programs import ProgramError, run_program
from minigpt5.utils.settings import Settings, setting
from minigpt5.weights import check_model

# Seconds between two looks at the memory, and before the kill in which one rating follows the other.
LOOK, HURRY = 5, 2
COLUMNS = ("replies_per_s", "p50_s", "p95_s", "p99_s", "refused")


@dataclass(kw_only=True)
class ServiceBenchmark(Settings):
    """What is measured."""

    model: str = setting("storyworld-mini", help="shipped model, pipeline folder or hub repository")
    batch_size: int = setting(8, least=2, help="replies that are decoded together, and pictures painted together")
    shares: tuple[float, ...] = setting(
        (0.0, 1.0), least=0, most=1, help="of requests for a picture; others: for words"
    )
    loads: tuple[float, ...] = setting((0.3, 0.6, 0.9, 1.2), above=0, help="arrivals, as shares of full speed")
    seconds: float = setting(60.0, above=0, help="for which requests come, at each load")
    soak: float | None = setting(None, above=0, help="minutes of one long load, in place of the comparison")
    seed: int = setting(0, least=0, help="of the arrivals")
    out: Path | None = setting(None, help="JSON file for the figures")

    def __post_init__(self):
        super().__post_init__()
        check_model(self.model)


def service_of(config, batch_size, *options):
    """A service whose queue holds all that `full_speed` asks at once."""
    queue = 8 * config.batch_size
    return started(config.model, "--batch-size", batch_size, "--queue-size", queue, "--timeout", 3600, *options)


def poisson(rate, seconds, seed):
    """Arrivals, of which there are some."""
    if len(moments := arrivals(rate, seconds, seed)) < 3:
        raise ProgramError(f"{len(moments)} requests come in {seconds:g} s at {rate:.3g} a second; take more time")
    return moments


def compare(config):
    """Figures by share of pictures and load, of a service and of one that makes one reply at a time."""
    figures = []
    with service_of(config, config.batch_size) as together, service_of(config, 1) as alone:
        urls = {"together": together.url, "one at a time": alone.url}
        for share in config.shares:
            speeds = {name: full_speed(url, share, config.batch_size) for name, url in urls.items()}
            ratio = speeds["together"] / speeds["one at a time"]
            told = ", ".join(f"{name} {speed:.2f} replies/s" for name, speed in speeds.items())
            print(f"\n{share:.0%} pictures, at full speed {told}, ratio {ratio:.2f}")
            print(f"{'load':>5}{'arrive/s':>10}{'':>15}" + "".join(f"{column:>15}" for column in COLUMNS), flush=True)
            rows = []
            for number, load in enumerate(config.loads):
                rate = load * speeds["together"]
                moments = poisson(rate, config.seconds, config.seed)
                kinds = sample_kinds(share, len(moments), config.seed)
                rows.append({"load": load, "rate": rate})
                for name, url in urls.items():
                    one = rows[-1][name] = summary(moments, put_load(url, moments, kinds, seed=number))
                    cells = "".join(f"{one[column]:>15.3f}" for column in COLUMNS)
                    print(f"{load:>5}{rate:>10.2f}{name:>15}{cells}", flush=True)
            figures.append({"share": share, "full_speed": speeds, "ratio": ratio, "loads": rows})
    return figures


class Ratings:
    """Ratings that are given to a service, and what became of them."""

    def __init__(self):
        # The last rating of each reply: that was sent, and that was answered with 200.
        self.sent, self.accepted = {}, {}
        self.refused = 0
        self._guard = threading.Lock()

    def give(self, url, reply):
        """Rate a reply, otherwise than the last time; says whether there was an answer."""
        rating = RATINGS[self.sent.get(reply) == RATINGS[0]]
        self.sent[reply] = rating
        status = post(url, "/v1/feedback", {"id": reply, "rating": rating}).status
        with self._guard:
            self.refused += status not in (0, 200)
            if status == 200:
                self.accepted[reply] = rating
        return status != 0

    def of(self, url, answer):
        """Rate what came of a request, if a reply did."""
        if answer.status == 200:
            self.give(url, answer.content["id"])

    def hurry(self, url):
        """Rate one reply after the other, until nobody answers."""
        while replies := list(self.accepted)[-50:]:
            for reply in replies:
                if not self.give(url, reply):
                    return

    def lost(self, path):
        """How many accepted ratings are not in a file; what was sent later may stand in a rating's place."""
        kept = {row.id: row.rating for row in FeedbackStore(path)}
        return sum(kept.get(reply) not in (rating, self.sent[reply]) for reply, rating in self.accepted.items())


def thirds(memory):
    """How much more there is in the last third of a series than in the first, in medians."""
    third = max(1, len(memory) // 3)
    return statistics.median(memory[-third:]) - statistics.median(memory[:third])


def life(config, store, ratings, rate, killed):
    """One half of the long load, on a service of its own: what it answered, and its memory."""
    seconds, share = config.soak * 30, statistics.mean(config.shares)
    memory, over = [], threading.Event()
    with service_of(config, config.batch_size, "--feedback", store) as service:
        # The second half comes at the first one's rate.
        rate = rate or 0.7 * full_speed(service.url, share, config.batch_size)
        moments = poisson(rate, seconds, config.seed + killed)

        def look():
            while not over.wait(min(LOOK, seconds / 10)):
                kept = sum(service.metric(f"{name}_bytes") for name in ("conversations", "pictures", "rateable"))
                memory.append((service.resident_mib, kept / 2**20))
                print(f"memory {memory[-1][0]:8.1f} MiB, of which {memory[-1][1]:6.1f} in caches", flush=True)

        def kill():
            hurry = min(HURRY, seconds / 2)
            time.sleep(seconds - hurry)
            rating.start()
            time.sleep(hurry)
            over.set()
            looking.join()
            service.process.kill()

        looking, killing = threading.Thread(target=look), threading.Thread(target=kill)
        rating = threading.Thread(target=ratings.hurry, args=(service.url,))
        looking.start()
        if killed:
            killing.start()
        kinds = sample_kinds(share, len(moments), config.seed)
        answers = put_load(service.url, moments, kinds, killed, lambda answer: ratings.of(service.url, answer))
        if killed:
            killing.join()
            rating.join()
        over.set()
        looking.join()
    resident, own = [one for one, _ in memory], [one - kept for one, kept in memory]
    told = {"rate": rate, **summary(moments, answers), "broken_off": sum(one.status == 0 for one in answers)}
    told |= {"memory_mib": resident, "growth_mib": thirds(resident), "growth_beside_caches_mib": thirds(own)}
    print(f"{len(answers)} requests, {told['replies_per_s']:.2f} replies/s, {told['broken_off']} broken off")
    print(f"memory, its last third over its first: {told['growth_mib']:+.1f} MiB, ", end="")
    print(f"caches left out {told['growth_beside_caches_mib']:+.1f} MiB", flush=True)
    return told


def soak(config):
    """A long load with a kill in the middle, and whether all ratings are there in the end."""
    ratings = Ratings()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "feedback.sqlite")
        first = life(config, store, ratings, None, killed=True)
        lost_by_kill = ratings.lost(store)
        print(
            f"killed: of {len(ratings.accepted)} replies with an accepted rating {lost_by_kill} lost theirs", flush=True
        )
        second = life(config, store, ratings, first["rate"], killed=False)
        lost = ratings.lost(store)
    print(f"in the end: {len(ratings.accepted)} replies had an accepted rating, {lost} lost it")
    print(f"ratings that were refused: {ratings.refused}")
    feedback = {"rated": len(ratings.accepted), "lost_by_the_kill": lost_by_kill, "lost": lost}
    return {"halves": [first, second], "feedback": feedback | {"refused": ratings.refused}}


def main(config: ServiceBenchmark):
    if config.out:
        check_file(config.out)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs"
    print(f"{config.model} on {machine}, batches of up to {config.batch_size}")
    lost = 0
    if config.soak:
        figures = soak(config)
        lost = figures["feedback"]["lost"]
    else:
        figures = compare(config)
    if config.out:
        write_json(config.out, {"machine": machine, "model": config.model, "figures": figures})
    if lost:
        raise ProgramError(f"{lost} ratings were accepted and are not in the file")


if __name__ == "__main__":
    run_program(main, ServiceBenchmark, __doc__)
