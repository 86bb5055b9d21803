"""Paths as users write them, made whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.paths import absolute, existing_files, is_same_file


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("said", "whole"),
    [
        ("data.csv", "{}/here/data.csv"),
        ("./a/b.csv", "{}/here/a/b.csv"),
        ("../x.csv", "{}/x.csv"),
        ("../here/./a//b.csv", "{}/here/a/b.csv"),
        ("../no such/x.csv", "{}/here/../no such/x.csv"),
        ("../no such/../x.csv", "{}/here/../no such/../x.csv"),
        ("~/x.csv", "{}/home/x.csv"),
        ("~", "{}/home"),
        ("/x/y", "/x/y"),
        ("a b,c.csv", "{}/here/a b,c.csv"),
        ("", ""),
        ("~nobody-has-this-name/x", "~nobody-has-this-name/x"),
    ],
)
def test_a_path_is_made_whole_and_nothing_else(said: str, whole: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("")
    (tmp_path / "here" / "a").mkdir()
    (tmp_path / "here" / "a" / "b.csv").write_text("")
    assert absolute(said) == whole.format(tmp_path)


def test_a_path_with_dots_is_found_once_the_working_folder_has_gone(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1")
    whole = absolute("../x.csv")
    (tmp_path / "here").rename(tmp_path / "elsewhere")
    assert Path(whole).read_text() == "1"


def test_dots_after_a_link_are_those_of_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "far" / "real").mkdir(parents=True)
    (tmp_path / "here" / "link").symlink_to(tmp_path / "far" / "real")
    (tmp_path / "far" / "x.csv").write_text("far")
    (tmp_path / "here" / "x.csv").write_text("here")
    assert absolute("link/../x.csv") == f"{tmp_path}/here/link/../x.csv"
    assert Path(absolute("link/../x.csv")).read_text() == "far"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "real")
    assert absolute("link") == f"{tmp_path}/here/link"
    assert is_same_file(absolute("link"), str(tmp_path / "real"))


def test_two_names_of_one_file_are_the_same_and_two_missing_ones_are_not() -> None:
    Path("a").write_text("a")
    Path("b").write_text("a")
    assert is_same_file(absolute("a"), absolute("../here/a"))
    assert not is_same_file(absolute("a"), absolute("b"))
    assert not is_same_file("nothing", "no such")
    assert is_same_file("nothing", "nothing")


def test_a_path_in_a_file_is_looked_for_beside_it_and_in_the_working_folder(tmp_path: Path) -> None:
    beside = tmp_path / "recipes"
    beside.mkdir()
    assert existing_files("x", beside) == []
    (beside / "x").write_text("1")
    assert existing_files("x", beside) == [f"{beside}/x"]
    (tmp_path / "here" / "x").write_text("2")
    assert existing_files("x", beside) == [f"{beside}/x", f"{tmp_path}/here/x"]
    assert existing_files("x", Path(".")) == [f"{tmp_path}/here/x"]
    assert existing_files(str(beside / "x"), Path(".")) == [f"{beside}/x"]
    assert existing_files("y" * 5000, beside) == []
