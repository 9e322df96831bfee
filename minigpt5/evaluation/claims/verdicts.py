"""Whether a claim holds: an interval decides each of its statements, all statements together the claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minigpt5.evaluation.claims.plan import CLAIMS, ENOUGH, FLOOR, RESOLVES, SYSTEMS, Claim, Statement
from minigpt5.evaluation.claims.report import cell
from minigpt5.evaluation.claims.rows import FIGURES, Rows
from minigpt5.metrics.intervals import Interval, hierarchical_interval

PASS, FAIL, UNDECIDED = "PASS", "FAIL", "UNDECIDED"
Measured = Mapping[str, Sequence[Mapping[str, Rows]]]
"""By system, of each seed: rows by task."""


def verdict_of(kind: str, interval: Interval, margin: float = 0.0) -> str:
    """What an interval says of a statement.

    "more": PASS above 0, FAIL below. "no less" (non-inferiority): PASS above minus the margin, FAIL below it. "as"
    (equivalence): PASS within the margin on both sides, FAIL outside. Otherwise UNDECIDED.
    """
    low, high = interval.low, interval.high
    if kind == "as":
        return PASS if -margin < low and high < margin else FAIL if low > margin or high < -margin else UNDECIDED
    bound = 0.0 if kind == "more" else -margin
    return PASS if low > bound else FAIL if high < bound else UNDECIDED


@dataclass(frozen=True)
class Decided:
    """A statement, the interval of its sum, and what that says; without an interval it was not measured.

    Args:
        all_seeds: whether the interval is of all seeds that the plan names.
        by_seed: the sum by each of them alone.
    """

    statement: Statement
    interval: Interval | None
    all_seeds: bool = True
    by_seed: tuple[float, ...] = ()

    @property
    def so_far(self) -> str:
        """What the seeds that are measured say; UNDECIDED where nothing was measured."""
        if self.interval is None:
            return UNDECIDED
        return verdict_of(self.statement.kind, self.interval, self.statement.margin)

    @property
    def verdict(self) -> str:
        """UNDECIDED until all seeds are measured."""
        return self.so_far if self.all_seeds else UNDECIDED


@dataclass(frozen=True)
class DecidedClaim:
    """A claim and what became of its statements."""

    name: str
    claim: Claim
    statements: tuple[Decided, ...]

    @property
    def verdict(self) -> str:
        """FAIL where a statement failed, PASS where all passed."""
        verdicts = {statement.verdict for statement in self.statements}
        return FAIL if FAIL in verdicts else PASS if verdicts == {PASS} else UNDECIDED

    @property
    def why(self) -> str:
        """The verdict in a plain sentence."""
        measured = [one for one in self.statements if one.interval is not None]
        if not measured:
            return "Not measured yet."
        if not all(one.all_seeds for one in measured):
            held, against = (sum(one.so_far == verdict for one in measured) for verdict in (PASS, FAIL))
            told = f"{held} of {len(self.statements)} statements hold, {against} are contradicted"
            return f"Not all seeds are measured; so far {told}."
        passed = [one for one in measured if one.verdict == PASS]
        if self.verdict == PASS:
            return f"All {len(passed)} statements hold; the closest is “{_told(min(passed, key=_room))}”."
        decisive = [one for one in measured if one.verdict == self.verdict]
        if not decisive:
            return f"{len(passed)} of {len(self.statements)} statements hold; the others are not measured yet."
        one = min(decisive, key=lambda one: one.interval.estimate if one.interval else 0)
        word = "cannot be told from chance"
        if self.verdict == FAIL:
            word = "is contradicted"
        elif one.statement.kind != "more":
            word = f"is undecided, as the interval holds the margin of {one.statement.margin:g}"
        elif one.interval and one.interval.low == one.interval.high == 0:
            word = "shows no difference at all"
        return f"{len(passed)} of {len(self.statements)} statements hold, but “{_told(one)}” {word}."


def _room(one: Decided) -> float:
    """Between the interval of a statement that holds and the bound that it holds by."""
    assert one.interval is not None
    below, above = one.interval.low + one.statement.margin, one.statement.margin - one.interval.high
    return min(below, above) if one.statement.kind == "as" else below


def _told(one: Decided) -> str:
    return f"{one.statement.told}: {cell(one.interval)}{f', by seed {seeds}' if (seeds := seeds_told(one)) else ''}"


def seeds_told(one: Decided) -> str:
    """A statement's sum by each seed."""
    return ", ".join(f"{value:.3f}" for value in one.by_seed)


def interval_of(
    figure: str, terms: Sequence[tuple[float, str, str]], measured: Measured, draws: int | None = None
) -> Interval | None:
    """The interval over seeds and items of a signed sum of a figure; `None` where one of its terms has no value.

    Terms of one system are the same trainings. It is of the seeds that are measured of all terms, of one seed over
    items alone.
    """
    tables = _tables(figure, terms, measured)
    if tables is None:
        return None

    def total(given: Sequence[np.ndarray]) -> float:
        return _total(figure, terms, given)

    # A run beside itself has no spread over seeds.
    tables = [table if len(table) > 1 else np.repeat(table, 2, axis=0) for table in tables]
    return hierarchical_interval(tables, total, [system for _, system, _ in terms], draws=draws)


def sums_by_seed(figure: str, terms: Sequence[tuple[float, str, str]], measured: Measured) -> tuple[float, ...]:
    """A signed sum of a figure by each seed alone; nothing where one of its terms has no value."""
    tables = _tables(figure, terms, measured) or [np.empty(0)]
    return tuple(_total(figure, terms, [table[seed : seed + 1] for table in tables]) for seed in range(len(tables[0])))


def _tables(figure: str, terms: Sequence[tuple[float, str, str]], measured: Measured) -> list[np.ndarray] | None:
    """The rows of each term, of the seeds that are measured of all; `None` where one has no value."""
    taken, tables, seeds = FIGURES[figure], [], seeds_of(terms, measured)
    if not seeds:
        return None
    for _, system, task in terms:
        runs = [run.get(task, {}).get(taken.part) for run in measured[system][:seeds]]
        if any(run is None for run in runs):
            return None
        tables.append(np.stack([run for run in runs if run is not None]))
    return tables if all(np.isfinite(taken.of_runs(table)) for table in tables) else None


def _total(figure: str, terms: Sequence[tuple[float, str, str]], tables: Sequence[np.ndarray]) -> float:
    return sum(weight * FIGURES[figure].of_runs(rows) for (weight, _, _), rows in zip(terms, tables, strict=True))


def seeds_of(terms: Sequence[tuple[float, str, str]], measured: Measured) -> int:
    """How many seeds are measured of every system among the terms."""
    return min(len(measured.get(system, ())) for _, system, _ in terms)


def decide(measured: Measured, seeds: int, draws: int | None = None) -> list[DecidedClaim]:
    """All claims, with what is measured; figures of which less is better are turned, so that above 0 is better.

    Args:
        seeds: that the plan names; before all of them are measured nothing is decided.
    """

    def decided(one: Statement) -> Decided:
        sign = FIGURES[one.figure].sign
        terms = [(sign * weight, system, task) for weight, system, task in one.terms]
        interval = interval_of(one.figure, terms, measured, draws)
        by_seed = sums_by_seed(one.figure, terms, measured)
        return Decided(one, interval, seeds_of(one.terms, measured) == seeds, by_seed)

    return [DecidedClaim(name, claim, tuple(map(decided, claim.statements))) for name, claim in CLAIMS.items()]


@dataclass(frozen=True)
class Gate:
    """Whether a system that should be right is, and by shuffled truths is not."""

    told: str
    right: Interval | None
    shuffled: Interval | None

    @property
    def open(self) -> bool:
        """The bench resolves: from `ENOUGH` down to `FLOOR`."""
        if self.right is None or self.shuffled is None:
            return False
        return self.right.estimate >= ENOUGH and self.shuffled.estimate <= FLOOR


def gates(measured: Measured, draws: int | None = None) -> list[Gate]:
    """What has to hold before any claim is read."""
    return [
        Gate(
            f"{SYSTEMS[system].told}, {task}",
            interval_of("frame", [(1, system, task)], measured, draws),
            interval_of("shuffled", [(1, system, task)], measured, draws),
        )
        for system, task in RESOLVES
    ]
