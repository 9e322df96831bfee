"""An interpreter of small programs that call tools, for programs that a model has written.

Its language is a part of Python in which nothing can be reached but the tools: plain values (strings, numbers, truth
values, `None`, and lists of these), names that the program gives, `if`, `for` over lists and `range`, arithmetic,
comparisons, f-strings without formats, `len` and `str`. There are no attributes, imports, functions, classes or
comprehensions. What is not listed here is refused before anything runs, and how long it runs and how large values grow
is bounded. Nothing is handed to Python's own `eval` or `exec`.
"""

from __future__ import annotations

import ast
import math
import operator
import time
from collections.abc import Callable, Mapping
from typing import Any

from minigpt5.tools.tools import Tools, call
from minigpt5.utils.checks import real_number, some_text, whole_number

LONGEST_PROGRAM, DEEPEST = 10_000, 40
LONGEST_TEXT, LONGEST_LIST, LARGEST_NUMBER = 10_000, 1_000, 2**63
ANSWER = "answer"
_SCALARS = (str, int, float, bool, type(None))
_FUNCTIONS = ("len", "range", "str")

_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, other: one in other,
    ast.NotIn: lambda one, other: one not in other,
}
_ALLOWED = (
    *(ast.Module, ast.Assign, ast.AugAssign, ast.If, ast.For, ast.Break, ast.Continue, ast.Pass, ast.Expr),
    *(ast.Constant, ast.Name, ast.Load, ast.Store, ast.List, ast.Subscript, ast.Call, ast.keyword, ast.IfExp),
    *(ast.JoinedStr, ast.FormattedValue, ast.BinOp, ast.UnaryOp, ast.Not, ast.USub),
    *(ast.BoolOp, ast.And, ast.Or, ast.Compare, *_ARITHMETIC, *_COMPARISONS),
)


class InterpreterError(ValueError):
    """A program that is refused or has failed; the message names the line and is for the model that wrote it."""


class _Break(InterpreterError):
    """Leaves a loop, or is an error where there is none."""


class _Continue(InterpreterError):
    """Goes on with a loop's next turn, or is an error where there is none."""


def run_program(source: str, tools: Tools, max_steps: int = 10_000, timeout: float = 60.0) -> Any:
    """Run a program that calls tools.

    Args:
        source: the program; its result is what it has called `answer`.
        tools: functions that it may call, of plain values.
        max_steps: expressions and statements that it may take.
        timeout: seconds after which it goes no further; a tool that is at work is not interrupted.

    Returns:
        The value of `answer`.

    Raises:
        InterpreterError: if the program is refused, fails, takes too long or leaves no `answer`.
        TypeError, ValueError: for an argument of another kind or out of its range.
    """
    whole_number("max_steps", max_steps, 1)
    program = _parse(some_text("source", source), tools)
    run = _Run(tools, max_steps, time.monotonic() + real_number("timeout", timeout, 0))
    run.block(program.body)
    if ANSWER not in run.names:
        raise InterpreterError(f"the program leaves no {ANSWER!r}: give its result that name")
    return run.names[ANSWER]


def _parse(source: str, tools: Tools) -> ast.Module:
    """The program, if it is of the language."""
    if len(source) > LONGEST_PROGRAM:
        raise InterpreterError(f"the program has {len(source)} characters, and may have {LONGEST_PROGRAM}")
    try:
        program = ast.parse(source)
    except SyntaxError as error:
        raise InterpreterError(f"line {error.lineno or 1}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise InterpreterError(f"the program cannot be read: {str(error) or 'it is nested too deeply'}") from error
    # Without recursion, as it is not known yet how deep it is.
    waiting: list[tuple[ast.AST, int, int]] = [(program, 0, 1)]
    while waiting:
        node, depth, line = waiting.pop()
        line = getattr(node, "lineno", line)
        reason = _why_not(node, tools) if depth <= DEEPEST else "nested too deeply"
        if reason:
            raise InterpreterError(f"line {line}: {reason}")
        waiting += [(child, depth + 1, line) for child in ast.iter_child_nodes(node)]
    return program


def _why_not(node: ast.AST, tools: Tools) -> str | None:
    """What of a node, its children left out, is not of the language."""
    known = {*tools, *_FUNCTIONS}
    match node:
        case _ if not isinstance(node, _ALLOWED):
            return f"{type(node).__name__} is not of this language; call the tools {', '.join(tools)}"
        case ast.Constant(value=value) if _refusal(value):
            return _refusal(value)
        case ast.Name(id=name) if name.startswith("_"):
            return f"the name {name} begins with _"
        case ast.Name(id=name, ctx=ast.Store()) if name in known:
            return f"{name} cannot be given another meaning"
        case ast.Assign(targets=targets) if len(targets) > 1 or not isinstance(targets[0], ast.Name):
            return "only a single name can be given a value"
        case ast.AugAssign(target=target) if not isinstance(target, ast.Name):
            return "only a single name can be given a value"
        case ast.For(target=target, orelse=rest) if rest or not isinstance(target, ast.Name):
            return "a for loop has a single name, and no else"
        case ast.Call(func=function) if not isinstance(function, ast.Name) or function.id not in known:
            return f"only {', '.join(sorted(known))} can be called"
        case ast.keyword(arg=None):
            return "** cannot be used in a call"
        case ast.FormattedValue(format_spec=spec, conversion=conversion) if spec or conversion != -1:
            return "values in f-strings can have no format"
    return None


def _refusal(value: Any) -> str | None:
    """Why a value is not one that a program may hold."""
    if isinstance(value, list):
        if len(value) > LONGEST_LIST:
            return f"a list may have {LONGEST_LIST} entries"
        # Lists of lists of the same lists would be small in memory, and endless to compare.
        return next(
            (_refusal(item) or "a list can hold no list" for item in value if isinstance(item, list) or _refusal(item)),
            None,
        )
    if type(value) not in _SCALARS:
        return f"a value of type {type(value).__name__} cannot be used"
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"a text may have {LONGEST_TEXT} characters"
    if type(value) is int and abs(value) > LARGEST_NUMBER:
        return "a whole number may be 2**63 at most"
    if type(value) is float and not math.isfinite(value):
        return "a number must be finite"
    return None


class _Run:
    """A program that runs: what it has named, and what is left to it of steps and time."""

    def __init__(self, tools: Tools, steps: int, deadline: float):
        self.tools, self.steps, self.deadline = tools, steps, deadline
        self.names: dict[str, Any] = {}

    def step(self, node: ast.stmt | ast.expr) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise InterpreterError(f"line {node.lineno}: the program takes too many steps")
        if time.monotonic() > self.deadline:
            raise InterpreterError(f"line {node.lineno}: the program takes too long")

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.step(statement)
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.names[name] = self.value(value)
            case ast.AugAssign(target=ast.Name() as target, op=op, value=value):
                one = ast.copy_location(ast.Name(target.id, ast.Load()), node)
                self.names[target.id] = self.value(ast.copy_location(ast.BinOp(one, op, value), node))
            case ast.If(test=test, body=body, orelse=rest):
                self.block(body if self.value(test) else rest)
            case ast.For():
                self.loop(node)
            case ast.Expr(value=value):
                self.value(value)
            case ast.Break():
                raise _Break(f"line {node.lineno}: break outside a loop")
            case ast.Continue():
                raise _Continue(f"line {node.lineno}: continue outside a loop")

    def loop(self, node: ast.For) -> None:
        assert isinstance(node.target, ast.Name)
        items = self.value(node.iter)
        if not isinstance(items, list):
            raise InterpreterError(f"line {node.lineno}: a for loop goes over a list or a range")
        for item in items:
            self.names[node.target.id] = item
            try:
                self.block(node.body)
            except _Continue:
                continue
            except _Break:
                break

    def value(self, node: ast.expr) -> Any:
        self.step(node)
        try:
            value = self.evaluate(node)
        except InterpreterError:
            raise
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise InterpreterError(f"line {node.lineno}: {error}") from error
        if reason := _refusal(value):
            raise InterpreterError(f"line {node.lineno}: {reason}")
        return value

    def evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                if name not in self.names:
                    raise LookupError(f"nothing is called {name}")
                return self.names[name]
            case ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.Subscript(value=of, slice=at):
                return self.value(of)[self.value(at)]
            case ast.BinOp(left=left, op=op, right=right):
                return self.arithmetic(node, op, self.value(left), self.value(right))
            case ast.UnaryOp(op=op, operand=operand):
                return not self.value(operand) if isinstance(op, ast.Not) else -self.value(operand)
            case ast.BoolOp(op=op, values=values):
                value = None
                for each in values:
                    value = self.value(each)
                    if bool(value) is isinstance(op, ast.Or):
                        break
                return value
            case ast.Compare(left=left, ops=ops, comparators=others):
                one = self.value(left)
                for op, each in zip(ops, others, strict=True):
                    other = self.value(each)
                    if not _COMPARISONS[type(op)](one, other):
                        return False
                    one = other
                return True
            case ast.IfExp(test=test, body=body, orelse=rest):
                return self.value(body if self.value(test) else rest)
            case ast.JoinedStr(values=parts):
                return "".join(_text(self.value(part)) for part in parts)
            case ast.FormattedValue(value=inner):
                return self.value(inner)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
                given = [self.value(argument) for argument in arguments]
                return self.call(name, given, {str(keyword.arg): self.value(keyword.value) for keyword in keywords})
        raise AssertionError(f"{type(node).__name__} was let through")

    def arithmetic(self, node: ast.stmt | ast.expr, op: ast.operator, one: Any, other: Any) -> Any:
        numbers = all(isinstance(value, (int, float)) for value in (one, other))
        alike = isinstance(op, ast.Add) and type(one) is type(other) and isinstance(one, (str, list))
        # `%` of a text would format it, and `*` would repeat it.
        if not numbers and not alike:
            raise InterpreterError(
                f"line {node.lineno}: {type(op).__name__} of {type(one).__name__} and {type(other).__name__}"
            )
        return _ARITHMETIC[type(op)](one, other)

    def call(self, name: str, arguments: list[Any], named: dict[str, Any]) -> Any:
        if name in self.tools:
            return call(self.tools, name, arguments, named)
        if named:
            raise TypeError(f"{name} takes no argument by its name")
        if name == "range":
            # Not as a list before it is known how long it is.
            numbers = range(*arguments)
            if len(numbers) > LONGEST_LIST:
                raise ValueError(f"a range may have {LONGEST_LIST} numbers")
            return list(numbers)
        if len(arguments) != 1:
            raise TypeError(f"{name} takes one value, got {len(arguments)}")
        (value,) = arguments
        return len(value) if name == "len" else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        raise TypeError("a list is no text; take its entries one by one")
    return str(value)
