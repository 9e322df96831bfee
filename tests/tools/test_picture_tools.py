"""What a pipeline offers a chat model, and how it is told and called."""

import pytest
from PIL import ImageChops

from minigpt5.tools.tools import PictureTools, ToolError, call, call_as_told, describe


@pytest.fixture
def bench(tiny_pipe, pictures):
    return PictureTools(tiny_pipe, pictures[:2], seed=3)


def same(one, other):
    return ImageChops.difference(one, other).getbbox() is None


def test_tools_are_told_by_their_signature_and_docstring(bench):
    assert describe("compare", bench.tools["compare"]) == {
        "type": "function",
        "function": {
            "name": "compare",
            "description": "Say whether a question has the same answer for two pictures.",
            "parameters": {
                "type": "object",
                "properties": {
                    "one": {"type": "string", "description": "the name of a picture."},
                    "other": {"type": "string", "description": "the name of another picture."},
                    "question": {"type": "string", "description": 'such as "What do you see?".'},
                },
                "required": ["one", "other", "question"],
                "additionalProperties": False,
            },
        },
    }
    assert [describe(*tool)["function"]["name"] for tool in bench.tools.items()] == [
        "read",
        "paint",
        "change",
        "compare",
    ]


def test_types_defaults_and_long_lines_are_told():
    def grow(size: float, times: int = 2, fast: bool = False) -> float:
        """Make something larger.

        Args:
            size: how large it is, which is told
                in two lines.
            times: how often.
            fast: whether at once.
        """
        return size * times

    told = describe("grow", grow)["function"]
    assert told["description"] == "Make something larger."
    assert told["parameters"]["required"] == ["size"]
    kinds = {name: entry["type"] for name, entry in told["parameters"]["properties"].items()}
    assert kinds == {"size": "number", "times": "integer", "fast": "boolean"}
    assert told["parameters"]["properties"]["size"]["description"] == "how large it is, which is told in two lines."


def test_functions_that_cannot_be_told_are_refused():
    def untold(size: int) -> int:
        """Do something."""
        return size

    def odd(sizes: dict) -> int:
        """Do something.

        Args:
            sizes: of other kinds.
        """
        return len(sizes)

    with pytest.raises(TypeError, match=r"untold cannot be a tool: size needs a line in its docstring"):
        describe("untold", untold)
    with pytest.raises(TypeError, match=r"odd cannot be a tool: sizes .* one of str, int, float, bool"):
        describe("odd", odd)


def test_what_is_painted_and_changed_gets_a_name(bench, tiny_pipe, pictures):
    assert call_as_told(bench.tools, "paint", '{"description": "a red fox."}') == "picture-3"
    assert call_as_told(bench.tools, "change", '{"picture": "picture-1", "wish": "Make it blue."}') == "picture-4"
    assert list(bench.pictures) == ["picture-1", "picture-2", "picture-3", "picture-4"]
    assert same(bench.pictures["picture-1"], pictures[0])
    again = PictureTools(tiny_pipe, pictures[:2], seed=3)
    again.paint("a red fox.")
    again.change("picture-1", "Make it blue.")
    assert all(same(again.pictures[name], bench.pictures[name]) for name in bench.pictures)
    other = PictureTools(tiny_pipe, seed=4)
    assert not same(other.pictures[other.paint("a red fox.")], bench.pictures["picture-3"])


def test_reading_is_the_pipeline_s_and_comparing_compares_it(bench, tiny_pipe, pictures, monkeypatch):
    assert bench.read("picture-2", "What?") == tiny_pipe("What?", pictures[1], image_mode="never").text[0]
    asked = []

    def answered(picture, question):
        asked.append((picture, question))
        return {"picture-1": "a fox", "picture-2": "a cat"}[picture]

    monkeypatch.setattr(bench, "read", answered)
    assert bench.compare("picture-1", "picture-2", "Who?") is False
    assert bench.compare("picture-1", "picture-1", "Who?") is True
    assert asked == [("picture-1", "Who?"), ("picture-2", "Who?"), ("picture-1", "Who?"), ("picture-1", "Who?")]


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("erase", "{}", "there is no tool 'erase', only read, paint, change, compare"),
        ("read", "{", "read: the arguments are no JSON"),
        ("read", "[" * 100_000, "read: the arguments are no JSON"),
        ("read", "[]", "read: the arguments must be a JSON object, got list"),
        ("read", '{"picture": "picture-1"}', "read: missing a required argument: 'question'"),
        ("read", '{"picture": "picture-1", "question": 3}', "read: question must be str, got int"),
        ("paint", '{"description": "x", "size": 3}', "paint: got an unexpected keyword argument 'size'"),
        ("paint", '{"description": "\\ud800"}', "paint: description is no text"),
        (
            "read",
            '{"picture": "picture-9", "question": "?"}',
            "there is no picture 'picture-9', only picture-1, picture-2",
        ),
        ("change", '{"picture": "/etc/passwd", "wish": "?"}', "there is no picture '/etc/passwd'"),
    ],
)
def test_a_wrong_call_is_one_error(bench, name, arguments, told):
    with pytest.raises(ToolError, match=told.replace("(", r"\(")):
        call_as_told(bench.tools, name, arguments)
    assert list(bench.pictures) == ["picture-1", "picture-2"]


def test_a_whole_number_is_a_number_and_a_truth_value_is_none():
    def half(number: float) -> float:
        """Half of a number."""
        return number / 2

    assert call({"half": half}, "half", [3]) == 1.5
    with pytest.raises(ToolError, match="half: number must be float, got bool"):
        call({"half": half}, "half", [True])


def test_a_fault_of_a_tool_itself_is_no_wrong_call():
    def broken(number: int) -> int:
        """Fail."""
        return number + None  # pyright: ignore[reportOperatorIssue]

    with pytest.raises(TypeError, match="unsupported operand"):
        call({"broken": broken}, "broken", [1])


def test_a_workbench_takes_pictures_and_a_seed(tiny_pipe):
    with pytest.raises(ValueError, match="seed must be at least 0"):
        PictureTools(tiny_pipe, seed=-1)
    with pytest.raises((TypeError, ValueError)):
        PictureTools(tiny_pipe, ["no picture"])
