"""Tables of two columns: every row as it was written, or an error that names the line."""

import csv

import pytest

from minigpt5.data.tables import read_table, table_row


@pytest.fixture
def read(tmp_path):
    def rows(content):
        path = tmp_path / "table.tsv"
        path.write_bytes(content if isinstance(content, bytes) else f"a\tb\n{content}".encode())
        return list(read_table(path, ("a", "b")))

    return rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('"stray\t1\nnext\t2\nlast"\t3\n', [(2, '"stray', "1"), (3, "next", "2"), (4, 'last"', "3")]),
        ('"the best" day\t1\n', [(2, '"the best" day', "1")]),
        ('say "cheese"\t1\n', [(2, 'say "cheese"', "1")]),
        ('12" record\t1\n', [(2, '12" record', "1")]),
        ('"\t1\n""\t2\n', [(2, '"', "1"), (3, "", "2")]),
        ('"all of ""it"""\t1\n', [(2, 'all of "it"', "1")]),
        ('"with\ttab"\t1\n', [(2, "with\ttab", "1")]),
        ('"two\nlines, ""two"""\t1\nnext\t2\n', [(2, 'two\nlines, "two"', "1"), (4, "next", "2")]),
        ('one\t"p""1"\n', [(2, "one", 'p"1')]),
        ("crlf\t1\r\nnext\t2\r\n", [(2, "crlf", "1"), (3, "next", "2")]),
        ("\nblank\t1\n\n  \nnext\t2", [(3, "blank", "1"), (6, "next", "2")]),
        ("a\0b\t1\n", [(2, "a\0b", "1")]),
        ("\u2028\x0b\x85\t1\n", [(2, "\u2028\x0b\x85", "1")]),
        ("\t1\n", [(2, "", "1")]),
        ("", []),
    ],
)
def test_rows_are_read_as_written(read, text, rows):
    assert [(line, *fields) for line, fields in read(text)] == rows


def test_a_byte_order_mark_is_no_part_of_the_header(read):
    assert read(b"\xef\xbb\xbfa\tb\nx\t1\n") == [(2, ["x", "1"])]


def test_a_long_field_is_read(read):
    ((_, fields),) = read(f'"{"x" * 1_000_000}"\t1\n')
    assert len(fields[0]) == 1_000_000


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"line 1: columns are \[\], expected a and b"),
        (b"x\ty\n", r'line 1: columns are \["x", "y"\]'),
        (b"a,b\n", r'line 1: columns are \["a,b"\]'),
        ("fine\t1\nnone\n", "line 3: 1 columns"),
        ("fine\t1\none\ttwo\tthree\n", "line 3: 3 columns"),
        ('fine\t1\n"open\ngood\t2\n', "line 3: 1 columns"),
        ('"open\nnever closed', "line 2: 1 columns"),
        (b"a\tb\nfine\t1\n\xe9t\xe9\t2\n", "line 3, byte 0: not UTF-8"),
        (b"\xff\xfea\0\t\0b\0\n\0", "line 1, byte 0: not UTF-8"),
    ],
)
def test_errors_name_the_line(read, content, told):
    with pytest.raises(ValueError, match=rf"table\.tsv, {told}"):
        read(content)


def test_what_csv_writers_write_is_read(tmp_path):
    captions = ["plain", 'a "quote"', '"begun', "tab\there", "two\nlines", '"', "", 'it"s\tall']
    with open(tmp_path / "table.tsv", "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([("a", "b"), *((caption, "1") for caption in captions)])
    assert [fields[0] for _, fields in read_table(tmp_path / "table.tsv", ("a", "b"))] == captions


def test_what_is_written_is_read(read):
    captions = ["plain", 'a "quote"', '"begun', "tab\there", '"', "", 'it"s\tall', "tab\tand\nline"]
    rows = read("".join(table_row(caption, "1") + "\n" for caption in captions))
    assert [fields[0] for _, fields in rows] == [caption.replace("\n", " ") for caption in captions]
