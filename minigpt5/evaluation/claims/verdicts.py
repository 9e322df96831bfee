"""Whether a claim holds: a paired interval decides each statement it makes, all statements together the claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigpt5.metrics.intervals import Interval

PASS, FAIL, UNDECIDED = "PASS", "FAIL", "UNDECIDED"


@dataclass(frozen=True)
class Statement:
    """One comparison: what is said, the interval of the difference, and what that says of it."""

    text: str
    difference: Interval
    verdict: str


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and the statements it stands or falls with."""

    number: int
    title: str
    statements: tuple[Statement, ...]

    @property
    def verdict(self) -> str:
        """FAIL where a statement failed, PASS where all passed."""
        verdicts = {statement.verdict for statement in self.statements}
        return FAIL if FAIL in verdicts else PASS if verdicts == {PASS} else UNDECIDED


def more(text: str, difference: Interval) -> Statement:
    """Says that a difference is above 0."""
    return Statement(text, difference, PASS if difference.low > 0 else FAIL if difference.high < 0 else UNDECIDED)


def no_less(text: str, difference: Interval, margin: float) -> Statement:
    """Says that a difference is not below `-margin`: non-inferiority."""
    verdict = PASS if difference.low > -margin else FAIL if difference.high < -margin else UNDECIDED
    return Statement(f"{text} (margin {margin:g})", difference, verdict)


def flat(text: str, difference: Interval, margin: float) -> Statement:
    """Says that a difference is within `margin` of 0: equivalence."""
    inside = -margin < difference.low and difference.high < margin
    outside = difference.low > margin or difference.high < -margin
    return Statement(f"{text} (margin {margin:g})", difference, PASS if inside else FAIL if outside else UNDECIDED)


def counts(claims: Sequence[Claim]) -> str:
    """How many claims have which verdict, in words."""
    found = [claim.verdict for claim in claims]
    return ", ".join(f"{found.count(verdict)} {verdict}" for verdict in (PASS, FAIL, UNDECIDED))
