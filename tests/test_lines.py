"""What is printed on a terminal breaks between words; what is piped does not break."""

from __future__ import annotations

import pytest
import typer

from peftsearch.cli.main import app
from peftsearch.cli.terminal import console
from peftsearch.lines import wrapped

SENTENCE = (
    "space 'nosuch': neither a file nor a shipped space; known: attention-vs-ffn, autopeft, "
    "sequential-vs-parallel, unified and /home/someone/with/a/path/that/has/no/end/at/all/x.yaml"
)
WIDTHS = (40, 60, 80, 120)
ROWS = [
    ("#0", "0", "0.7901 ± 0.0138", "head-only-mean: head only, mean pooling; lr head 5e-3"),
    (
        "#24",
        "0.017",
        "0.8062 ± 0.0134",
        "relu→ffn.out r=1, layers 3–5 + linear∥attn.out (reads projection) r=2 s=2; lr 9.8e-3",
    ),
]
HEADER = ("trial", "tuned %", "accuracy", "configuration")


@pytest.mark.parametrize("width", WIDTHS)
def test_words_stay_whole_and_in_order_at_any_width(width: int) -> None:
    lines = wrapped(SENTENCE, width)
    assert " ".join(lines).split() == SENTENCE.split()
    assert all(len(line) <= width or " " not in line.strip() for line in lines)


def test_what_fits_and_what_is_piped_is_left_as_it_is() -> None:
    assert wrapped(SENTENCE, None) == [SENTENCE]
    assert wrapped("  a  b", 6) == ["  a  b"]


def test_a_command_can_be_copied() -> None:
    command = "peftsearch search --study tweets --resume --studies /somewhere/else"
    lines = wrapped(f"interrupted; everything is saved. Continue with: {command}", 60)
    assert command in lines
    lines = wrapped(f"no study has this name; see: {command}, or look into the folder", 60)
    assert any(command in line for line in lines)


def test_lines_after_the_first_are_indented_and_the_firsts_indentation_stays() -> None:
    assert wrapped("  aaa bbb ccc", 9, "    ") == ["  aaa bbb", "    ccc"]


def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int | None
) -> list[str]:
    monkeypatch.setattr(console, "width_of", lambda _: width)
    console.print_table(HEADER, ROWS)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_keeps_within_a_terminal_and_loses_no_word(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(monkeypatch, capsys, width)
    assert max(map(len, lines)) <= width
    assert lines[0].split() == " ".join(HEADER).split()
    words = sorted(word for line in lines[1:] for word in line.split())
    assert words == sorted(word for row in ROWS for cell in row for word in cell.split())


def test_a_table_too_wide_even_so_has_a_paragraph_for_each_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(monkeypatch, capsys, 40)
    assert max(map(len, lines)) <= 40
    assert lines[0].startswith("#0: tuned % 0; accuracy 0.7901 ± 0.0138;")


def test_a_piped_table_has_a_line_for_each_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(monkeypatch, capsys, None)
    assert len(lines) == 3
    assert lines[2].endswith(ROWS[1][-1])


def test_every_command_of_the_tool_stays_whole() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) >= 12
    for name in commands:
        line = f"so do this: peftsearch {name} with some more words"
        assert f"peftsearch {name} with some more words" in wrapped(line, 20)
