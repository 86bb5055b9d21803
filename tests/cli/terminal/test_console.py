"""What is printed reaches a terminal as text, whatever the user's files hold."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from peftsearch.cli.main import run
from peftsearch.cli.terminal import console

ESCAPES = "\x1b[31mred\x07\x9b2J\x7f\r\udcff"


def controls(text: str) -> list[str]:
    """Every control character but the newline, as Unicode classes them, and lone surrogates."""
    return [c for c in text if ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000]


@pytest.mark.parametrize("told", [console.print_line, console.print_note, console.print_error])
def test_control_characters_are_shown_as_escapes_on_one_line(
    told: object, capsys: pytest.CaptureFixture[str]
) -> None:
    told(f"a\n{ESCAPES}")  # type: ignore[operator]
    printed = "".join(capsys.readouterr())
    assert printed.count("\n") == 1
    assert controls(printed.removesuffix("\n")) == []
    assert r"\x1b[31mred\x07\x9b2J\x7f" in printed


def test_a_json_document_has_no_control_characters_and_reads_back_equal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.print_json("x", {"label": f"é{ESCAPES}"})
    printed = capsys.readouterr().out
    assert controls(printed.replace("\n", "")) == []
    assert json.loads(printed) == {"schema": "peftsearch.x/1", "label": f"é{ESCAPES}"}


def test_a_cell_with_a_line_break_stays_one_line_of_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.print_table(("a", "b"), [("x\ny\tz", ESCAPES), ("w", "v")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert controls("".join(lines)) == []


def test_a_text_of_several_lines_keeps_them_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.print_text("a:\n\tb\x1b[2J")
    assert capsys.readouterr().out == "a:\n\tb\\x1b[2J\n"


def test_an_endless_quotation_is_cut_in_its_middle(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_error(f"what {'x' * 100_000}; do that")
    line = capsys.readouterr().err
    assert len(line) < 1500
    assert line.startswith("error: what x")
    assert line.endswith("x; do that\n")


def test_a_stdout_that_knows_only_ascii_gets_escapes_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    assert run(["show", "lora"]) == 0
    sys.stdout.flush()
    assert rb"linear\u2225attn" in written.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_stdout_is_one_sentence() -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "peftsearch", "show", "lora"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )
    assert ended.returncode == 3
    assert ended.stderr == "error: standard output or a file: No space left on device\n"


def test_memory_that_does_not_suffice_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_much(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("peftsearch.space.space.load_space", too_much)
    assert run(["check", "demo"]) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory")
    assert error.count("\n") == 1


def test_an_interrupt_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("peftsearch.space.space.load_space", interrupted)
    assert run(["check", "demo"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"
