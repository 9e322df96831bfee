"""A scripted chat model answers with the tools; its messages have the shapes of OpenAI's client."""

import json
from types import SimpleNamespace

import pytest
from openai.types.chat import ChatCompletion

from minigpt5.tools.orchestrate import TooManyTurnsError, orchestrate
from minigpt5.tools.tools import PictureTools


class Scripted:
    """A chat model that says what is written; keeps what it was asked."""

    def __init__(self, *turns):
        self.turns, self.asked = list(turns), []
        self.chat = SimpleNamespace(completions=self)

    def create(self, *, model, messages, tools):
        # As they are sent: what goes on in the conversation changes them no more.
        self.asked.append(json.loads(json.dumps({"model": model, "messages": messages, "tools": tools})))
        turn = self.turns.pop(0)
        said = (
            {"role": "assistant", "content": turn} if isinstance(turn, str) else {"role": "assistant", "content": None}
        )
        if not isinstance(turn, str):
            said["tool_calls"] = [
                {"id": f"call-{len(self.turns)}-{i}", "type": "function", "function": {"name": n, "arguments": a}}
                for i, (n, a) in enumerate(turn)
            ]
        choice = {"index": 0, "finish_reason": "stop", "message": said}
        return ChatCompletion.model_validate(
            {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
        )


@pytest.fixture
def bench(tiny_pipe, pictures):
    return PictureTools(tiny_pipe, pictures[:1])


def test_calls_are_answered_in_order_until_the_model_knows(bench):
    client = Scripted(
        [("read", '{"picture": "picture-1", "question": "Who?"}'), ("paint", '{"description": "a cat"}')],
        [("paint", '{"description": "a dog"}')],
        "First picture-3, then picture-2; picture-3 is best, and picture-7 is not there.",
    )
    answer = orchestrate(client, "any", "Paint a cat and a dog.", bench)
    assert [one.name for one in answer.calls] == ["read", "paint", "paint"]
    assert [one.result for one in answer.calls] == [
        json.dumps(bench.read("picture-1", "Who?")),
        '"picture-2"',
        '"picture-3"',
    ]
    assert list(answer.pictures) == ["picture-3", "picture-2"]
    assert answer.pictures["picture-2"] is bench.pictures["picture-2"]
    assert answer.text.startswith("First picture-3")

    first, second, third = client.asked
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert "picture-1" in first["messages"][0]["content"]
    assert [tool["function"]["name"] for tool in first["tools"]] == [
        "read",
        "paint",
        "change",
        "compare",
        "run_program",
    ]
    assert [message["role"] for message in second["messages"][2:]] == ["assistant", "tool", "tool"]
    asked = [one["id"] for one in second["messages"][2]["tool_calls"]]
    assert [message["tool_call_id"] for message in second["messages"][3:]] == asked
    assert third["messages"][:5] == second["messages"]


def test_a_program_is_run_with_the_tools(bench):
    program = "made = []\nfor what in ['a cat', 'a dog']:\n    made += [paint(f'{what} by day')]\nanswer = made"
    client = Scripted([("run_program", json.dumps({"source": program}))], "picture-2 and picture-3")
    answer = orchestrate(client, "any", "Paint two.", bench)
    assert json.loads(answer.calls[0].result) == ["picture-2", "picture-3"]
    assert list(answer.pictures) == ["picture-2", "picture-3"]


def test_a_model_is_told_what_it_calls_wrongly_and_goes_on(bench):
    client = Scripted(
        [("read", '{"picture": "picture-5", "question": "Who?"}')],
        [
            ("run_program", json.dumps({"source": "import os"})),
            ("run_program", json.dumps({"source": "run_program('')"})),
        ],
        "I cannot.",
    )
    answer = orchestrate(client, "any", "Look.", bench)
    assert [one.result.partition(":")[0] for one in answer.calls] == ["error"] * 3
    assert "there is no picture 'picture-5', only picture-1" in answer.calls[0].result
    assert "line 1: Import is not of this language" in answer.calls[1].result
    assert "line 1: only change, compare, len, paint, range, read, str can be called" in answer.calls[2].result
    assert client.asked[1]["messages"][-1]["content"] == answer.calls[0].result
    assert (answer.text, answer.pictures) == ("I cannot.", {})


def test_a_model_that_never_answers_is_stopped(bench):
    client = Scripted(*[[("read", "{}")]] * 5)
    with pytest.raises(TooManyTurnsError, match="any came to no answer in 3 turns; its last call was read"):
        orchestrate(client, "any", "Look.", bench, max_turns=3)
    assert len(client.asked) == 3


def test_arguments_are_checked(bench):
    with pytest.raises(TypeError, match="question must be a string"):
        orchestrate(Scripted(), "any", None, bench)
    with pytest.raises(ValueError, match="max_turns must be at least 1"):
        orchestrate(Scripted(), "any", "Look.", bench, max_turns=0)
