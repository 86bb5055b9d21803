"""examples.npz: read back exactly, small, whole or not at all."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from peftsearch.errors import UsageError
from peftsearch.records.examples import Examples, read_examples, write_examples
from peftsearch.task.metrics.table import METRICS
from support.predictions import drawn

N = 1_000
PAGE = (Path(__file__).parents[2] / "docs" / "study-folder.md").read_text(encoding="utf-8")


def examples(name: str, n: int = N) -> Examples:
    return Examples(name, METRICS[name].per_example.of(*drawn(METRICS[name], n)))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_read_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    written, path = examples(name), tmp_path / "examples.npz"
    write_examples(path, written)
    found = read_examples(path)
    assert (found.metric, len(found)) == (name, N)
    assert found.arrays.keys() == written.arrays.keys()
    for key, values in written.arrays.items():
        assert np.array_equal(found.arrays[key], values)
        assert found.arrays[key].shape == values.shape
        assert (found.arrays[key].dtype == np.bool_) == (values.dtype == np.bool_)
    references, predictions = drawn(METRICS[name], N)
    expected = METRICS[name].value(references, predictions)
    assert found.value() == pytest.approx(expected, rel=1e-12 if name == "chrf" else 0)


def bytes_an_example(path: Path) -> float:
    with np.load(path) as stored:
        names = {name for name in stored.files if name != "metric" and not name.endswith(".shape")}
        return sum(stored[name].nbytes for name in names) / N


def stated() -> dict[str, float]:
    """Metric → the bytes in the table of docs/study-folder.md; 5 labels."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|[^|]*\| ([\d.]+)( a label)?[^|]*\|$", PAGE, re.M)
    return {
        name.strip("`"): float(size) * (5 if a_label else 1)
        for names, size, a_label in rows
        for name in names.split(", ")
    }


@pytest.mark.parametrize("name", METRICS)
def test_an_example_takes_the_bytes_that_the_page_states(name: str, tmp_path: Path) -> None:
    path = tmp_path / "examples.npz"
    write_examples(path, examples(name))
    assert bytes_an_example(path) == stated()[name]
    assert path.stat().st_size <= stated()[name] * N + 1_200


def test_losses_that_are_exact_in_single_precision_are_stored_so(tmp_path: Path) -> None:
    """As those of a model in fp32 are, summed over tokens or not."""
    nats = np.random.default_rng(0).random(N).astype(np.float32).astype(np.float64)
    write_examples(tmp_path / "a.npz", Examples("loss", {"tokens": np.ones(N, int), "nats": nats}))
    assert bytes_an_example(tmp_path / "a.npz") == 1 + 4
    assert np.array_equal(read_examples(tmp_path / "a.npz").arrays["nats"], nats)


def test_counts_beyond_a_byte_take_two(tmp_path: Path) -> None:
    labels = np.arange(N)
    kept = Examples("macro_f1", {"reference": labels, "predicted": labels[::-1]})
    write_examples(tmp_path / "a.npz", kept)
    assert bytes_an_example(tmp_path / "a.npz") == 4
    assert np.array_equal(read_examples(tmp_path / "a.npz").arrays["predicted"], labels[::-1])


def test_a_bootstrap_resamples_examples(tmp_path: Path) -> None:
    kept = examples("f1_macro")
    at = np.random.default_rng(3).integers(0, N, N)
    references, logits = drawn(METRICS["f1_macro"], N)
    assert kept.value(at) == METRICS["f1_macro"].value(references[at], logits[at])
    assert kept.scores is None
    right = examples("accuracy")
    assert right.scores is not None
    assert right.scores.mean() == right.value()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "pickle", "metric", "lengths", "shape"])
def test_a_damaged_file_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "examples.npz"
    write_examples(path, examples("accuracy"))
    with np.load(path) as stored:
        members = {name: stored[name] for name in stored.files}
    changed = {
        "pickle": {"score": np.array([{}], object)},
        "metric": {"metric": np.array("kappa")},
        "lengths": {"other": np.ones(3)},
        "shape": {"score.shape": np.array([2, -1])},
    }
    if damage in changed:
        np.savez(path, **(members | changed[damage]))
    else:
        content = {"cut": path.read_bytes()[:-30], "empty": b"", "text": b"score\n1\n"}
        path.write_bytes(content[damage])
    with pytest.raises(UsageError, match=r"examples\.npz: damaged \(.*; restore it from a copy"):
        read_examples(path)


def test_a_file_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_examples(tmp_path / "examples.npz")


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from peftsearch.records.examples import Examples, write_examples
inner, calls = getattr(os, sys.argv[2]), []
def dies(*arguments):
    if sys.argv[2] == "write":
        inner(arguments[0], arguments[1][:40])
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], dies)
write_examples(Path(sys.argv[1]), Examples("accuracy", {"score": np.ones(9, bool)}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
@pytest.mark.parametrize("before", [False, True], ids=["first", "rewritten"])
def test_a_kill_while_it_is_written_leaves_no_half_file(
    at: str, before: bool, tmp_path: Path
) -> None:
    path = tmp_path / "examples.npz"
    if before:
        write_examples(path, examples("accuracy"))
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), at], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.exists() == before
    if before:
        assert len(read_examples(path)) == N
    write_examples(path, examples("accuracy", 9))
    assert [found.name for found in tmp_path.iterdir()] == ["examples.npz"]
