"""JSON of others: read, or refused with its place."""

import pytest

from minigpt5.utils.json_files import field, parse_json, read_json


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"a\.json, line 1, column 1: not JSON \(Expecting value\)"),
        (b'{"a":\n,}', r"a\.json, line 2, column 1: not JSON"),
        (b'{"a": "\xff"}', r"a\.json, byte 7: not UTF-8"),
        (b'{\0"\0a\0', r"a\.json, line 1, column 2: not JSON"),
        (b"[" * 100_000, r"a\.json: JSON nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"a\.json: not JSON \(Exceeds the limit"),
        (b'{"a": "\\ud83d"}', r"a\.json: half a character, \\ud83d"),
        (b'{"\\UDC00": 1}', r"a\.json, line 1, column"),
        (b'{"\\udc00": 1}', r"a\.json: half a character, \\udc00"),
        (b'{"b": {"a": 1, "c": 2, "a": 3}}', r'a\.json: not JSON \(it says "a" twice\)'),
        (b"[1]", r"a\.json, line 1: expected an object, got \[1\]"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(tmp_path, content, told):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_json(tmp_path / "a.json")


def test_a_name_that_comes_again_among_many_is_found_at_once(tmp_path):
    names = ", ".join(f'"{i}": 0' for i in [*range(200_000), 199_999])
    (tmp_path / "a.json").write_text(f"{{{names}}}")
    with pytest.raises(ValueError, match='says "199999" twice'):
        read_json(tmp_path / "a.json")


def test_json_with_a_byte_order_mark_and_whole_characters_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": "\\ud83e\\udd8a"}')
    assert read_json(tmp_path / "a.json") == {"a": "🦊"}


def test_a_line_of_a_file_has_its_number():
    with pytest.raises(ValueError, match=r"a\.jsonl, line 7, column 2: not JSON"):
        parse_json(b"{", "a.jsonl", 7)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 7, byte 0: not UTF-8"):
        parse_json(b"\xff", "a.jsonl", 7)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ([], r"here: expected an object with a, got \[\]"),
        ({"b": 1}, "here: no a; the fields are b"),
        ({f"{i}": 1 for i in range(12)}, "here: no a; the fields are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
        ({"a": True}, "here: a is true, expected a whole number"),
        ({"a": 1.5}, "here: a is 1.5, expected a whole number"),
    ],
)
def test_a_field_that_is_not_what_it_should_be(entry, told):
    with pytest.raises(ValueError, match=told):
        field(entry, "a", int, "here")
