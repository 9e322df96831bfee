"""Files that are there whole or not at all."""

import pytest

from minigpt5.utils.files import whole_file


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "index.json"
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_failed_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "index.json"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), whole_file(path) as temporary:
        temporary.write_text("ne")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
