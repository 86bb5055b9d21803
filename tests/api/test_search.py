"""`peftsearch.search`: the command line's options from Python, and data in memory."""

from __future__ import annotations

import inspect
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pandas as pd
import pytest

import peftsearch
from peftsearch.api.defaults import BOUNDS, DEFAULTS
from peftsearch.api.keywords import flags_to_keywords
from peftsearch.api.options import CHANGEABLE, FIXED, NEUTRAL
from peftsearch.cli.main import run
from peftsearch.cli.search import search as command
from peftsearch.study.new_study import NewStudy
from peftsearch.workers.limits import WorkerSettings

COMMAND_ONLY = {"dry_run", "json"}
"""Printed documents: from Python the same is read off a `Study`."""
PYTHON_ONLY = {"progress"}
SWITCHED_OFF = {"stopping": "no_stopping"}
"""On by default: `stopping=False` is `--no-stopping`."""


def search(**options: Any) -> peftsearch.Study:
    """A search of one configuration, of which nothing is shown."""
    usual = {"model": "tiny-bert", "train": "reviews.csv", "trials": 1, "progress": False}
    return peftsearch.search("space.yaml", **{**usual, **options})


def test_the_options_are_those_of_the_command_line_in_name_order_and_default() -> None:
    signature = inspect.signature(peftsearch.search).parameters
    here = {SWITCHED_OFF.get(name, name): one.default for name, one in signature.items()}
    here |= {flag: not signature[name].default for name, flag in SWITCHED_OFF.items()}
    there = inspect.signature(command).parameters
    assert [n for n in here if n not in PYTHON_ONLY] == [n for n in there if n not in COMMAND_ONLY]
    shared = here.keys() - PYTHON_ONLY
    assert {n: here[n] for n in shared} == {n: there[n].default for n in shared}
    assert here.keys() - PYTHON_ONLY == {o.name for o in FIXED} | {
        *CHANGEABLE,
        *(name for name in NEUTRAL if name not in COMMAND_ONLY),
    }


def test_what_an_option_is_when_left_out_stands_once() -> None:
    fields = NewStudy.__dataclass_fields__
    assert (fields["seed"].default, fields["device"].default) == (DEFAULTS.seed, DEFAULTS.device)
    assert WorkerSettings().threads == DEFAULTS.threads


def test_the_bounds_are_those_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for name, bounds in BOUNDS.items():
        flag = f"--{name.replace('_', '-')}"
        assert run(["search", flag, str(bounds.least - 1)]) == 2
        assert f"'{flag}'" in capsys.readouterr().err
        with pytest.raises(peftsearch.UsageError, match=f"{name}= must be a.* {bounds.least}"):
            peftsearch.search(**{name: bounds.least - 1})


@pytest.mark.slow
def test_a_search_and_the_same_command_find_the_same(home: Path) -> None:
    words = "search space.yaml --model tiny-bert --train reviews.csv --trials 2 --seed 3"
    assert run([*words.split(), "--study", "command"]) == 0
    here = search(trials=2, seed=3, study="here")
    there = peftsearch.open_study("command")
    columns = ["tuned_pct", "tuned_parameters", "metric", "metric_se", "configuration"]
    pd.testing.assert_frame_equal(here.frontier()[columns], there.frontier()[columns])
    same = ["model", "task", "seed", "space_hash", "device", "max_length"]
    one, other = (s._folder.read_info().model_dump() for s in (here, there))
    assert {key: one[key] for key in same} == {key: other[key] for key in same}


def test_a_study_is_resumed_by_name_and_refuses_what_differs(home: Path) -> None:
    assert len(search(study="s").trials()) == 1
    with pytest.raises(peftsearch.UsageError) as refused:
        peftsearch.search(study="s", seed=4, max_length=8, resume=True, progress=False)
    assert "created with seed=0, not seed=4; with " in str(refused.value)
    with pytest.raises(peftsearch.UsageError, match=r"search\(study='s', resume=True\)"):
        search(study="s")
    study = peftsearch.search(study="s", trials=2, resume=True, progress=False)
    assert len(study.trials()) == 2


def test_a_space_object_and_paths_are_taken_as_their_names(home: Path) -> None:
    space = peftsearch.load_space(Path("space.yaml"))
    model, train = home / "tiny-bert", home / "reviews.csv"
    study = peftsearch.search(
        space, model, train=train, studies=home / "elsewhere", trials=1, progress=False
    )
    assert study.path == home / "elsewhere" / "space-reviews"
    again = peftsearch.search(
        space, model, train=train, studies="elsewhere", trials=2, resume=True, progress=False
    )
    assert (again.path, len(again.trials())) == (study.path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["frame", "data set"])
def test_data_in_memory_are_written_where_the_study_finds_them(kind: str, home: Path) -> None:
    frame = pd.read_csv("reviews.csv")
    data = frame if kind == "frame" else datasets.Dataset.from_pandas(frame)
    study = search(train=data.copy() if kind == "frame" else data, study="s")
    path = Path(study._folder.read_info().task["train"])
    assert path.parent == home / "studies" / ".data"
    pd.testing.assert_frame_equal(pd.read_parquet(path), frame)
    resumed = peftsearch.search(study="s", train=data, trials=2, resume=True, progress=False)
    assert len(resumed.trials()) == 2
    with pytest.raises(peftsearch.UsageError, match=r"was created with train=.*not train="):
        peftsearch.search(study="s", train=frame[:-1], trials=2, resume=True, progress=False)
    assert peftsearch.open_study("s").status()["counts"]["evaluated"] == 2


def test_class_names_of_a_data_set_are_its_labels(home: Path) -> None:
    frame = pd.read_csv("reviews.csv")
    names = ["negative", "positive"]
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    rows = {"text": list(frame["text"]), "label": [names.index(v) for v in frame["label"]]}
    study = search(train=datasets.Dataset.from_dict(rows, features=features), study="s")
    assert sorted(study._folder.read_info().labels) == names


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f[:0], "train=: the data have no rows"),
        (lambda f: f.set_axis([0, 1], axis=1), "columns must be named by text, and 0 is not text"),
        (lambda f: f.assign(x=[1, "a"] * 30), "train=: the data cannot be written to a file"),
        (
            lambda f: datasets.DatasetDict({"train": datasets.Dataset.from_pandas(f)}),
            "train= takes one split, not a dictionary of splits",
        ),
        (lambda f: f.to_dict("list"), "train= must be text, not dict"),
    ],
)
def test_data_that_cannot_be_a_file_are_a_sentence(
    make: Callable[[pd.DataFrame], Any], message: str, home: Path
) -> None:
    with pytest.raises(peftsearch.PeftsearchError, match=message):
        search(train=make(pd.read_csv("reviews.csv")))
    assert not (home / "studies" / "space-reviews").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 1.5}, "trials= must be a whole number of at least 1, not 1.5"),
        ({"workers": "2"}, "workers= must be a whole number from 1 to 1,024, not '2'"),
        ({"minutes": "1"}, "minutes= must be a number of at least 0, not '1'"),
        ({"minutes": float("nan")}, "minutes= and hours= must be finite"),
        ({"minutes": 1, "hours": 1}, "give minutes= or hours=, not both"),
        ({"model": None}, "no model: give model= NAME"),
        ({"model": 3}, "model= must be text, not int"),
        ({"label": ["label", 3]}, "label= must be text, not int"),
        ({"no_header": "yes"}, "no_header= must be True or False|no_header=True must be"),
        ({"languages": "en"}, "languages= takes two codes"),
        ({"metric": "f2"}, "metric 'f2' unknown"),
        ({"separator": ";;"}, "separator=: one character that is no letter"),
        ({"sampler": "nsga"}, r"sampler 'nsga' unknown; did you mean 'nsga2'\?"),
        ({"stopping": 0}, "stopping= must be True or False, not 0"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here"),
        ({"artifacts": "kept"}, "artifacts= is only used with storage=: give storage="),
    ],
)
def test_what_cannot_be_used_is_refused_in_terms_of_keywords(
    options: dict[str, Any], message: str, home: Path
) -> None:
    before = sorted(home.rglob("*"))
    with pytest.raises(peftsearch.PeftsearchError, match=message):
        search(**options)
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("set it with --kind)", "set it with kind=)"),
        ("--kind seq2seq or causal", "kind='seq2seq' or causal"),
        ("--max-length 600, not --max-length 64", "max_length=600, not max_length=64"),
        ("--sampler tpe, not --sampler random", "sampler='tpe', not sampler='random'"),
        ("--landmarks lora, or --space lora-only", "landmarks='lora', or space= lora-only"),
        ("leave out --no-stopping", "leave out stopping=False"),
        ("leave out --text, or say --no-header", "leave out text=, or say no_header=True"),
        (
            "see: peftsearch check s --model x; or --model",
            "see: peftsearch check s --model x; or model=",
        ),
        ("pip --no-deps", "pip --no-deps"),
    ],
)
def test_sentences_name_keywords_and_commands_stay(sentence: str, told: str) -> None:
    assert flags_to_keywords(sentence) == told


def test_the_function_stays_public_whatever_is_imported_of_the_package_of_its_name() -> None:
    import peftsearch.workers.run

    assert inspect.isfunction(peftsearch.search)
    assert sys.modules["peftsearch.workers.run"].run_search.__module__ == "peftsearch.workers.run"
    from peftsearch.workers import limits

    assert limits.Limits().trials is None


# -- progress ----------------------------------------------------------------------------------


def test_nothing_is_written_without_progress(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    search(study="s")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_lines_go_to_stderr_or_to_a_function(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    search(study="heard", progress=lines.append)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    search(study="shown", progress=True)
    shown = capfd.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in shown] == [line.split(" ")[0] for line in lines]
    assert any(line.startswith("study heard: ") for line in lines)
    assert any("set them with text=, label=" in line for line in lines)
    assert not any("--" in line for line in lines)


def test_a_notebook_has_a_bar_and_lines_above_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ZMQInteractiveShell:
        """What IPython calls a notebook's shell."""

        config: ClassVar[dict[str, Any]] = {}

    class IPython:
        get_ipython = staticmethod(ZMQInteractiveShell)

    monkeypatch.setitem(sys.modules, "IPython", IPython)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    search(study="s", progress=True)
    assert "1 full, 0 stopped, 0 failed" in sys.stderr.getvalue()
    assert "100%" in sys.stderr.getvalue()
    assert "★ #0" in capsys.readouterr().out


def test_an_error_in_the_function_ends_the_search_and_it_can_be_resumed(home: Path) -> None:
    def hear(line: str) -> None:
        if line.startswith("★"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        search(study="s", progress=hear)
    assert peftsearch.open_study("s")._folder.search_lock().owner() is None
    assert len(peftsearch.search(study="s", trials=2, resume=True, progress=False).trials()) == 2


# -- how a search ends -------------------------------------------------------------------------


def test_a_search_that_found_nothing_and_one_interrupted_say_how_to_go_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftsearch.workers import run as running

    ended = iter([False, True])
    monkeypatch.setattr(running, "run_search", lambda *_: next(ended))
    go_on = r"continue with: peftsearch\.search\(study='s', resume=True\)"
    with pytest.raises(peftsearch.NothingFeasible, match=go_on):
        search(study="s")
    with pytest.raises(peftsearch.Interrupted, match=go_on.replace("continue", "Continue")):
        peftsearch.search(study="s", resume=True, progress=False)


def test_the_environment_is_as_it_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    before = dict(os.environ)
    search(study="s", threads=1)
    assert dict(os.environ) == before
