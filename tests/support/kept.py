"""Checks of a study's files after every kill, and at its end."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from safetensors import SafetensorError, safe_open

from peftsearch.errors import PeftsearchError, UsageError
from peftsearch.records.examples import read_examples
from peftsearch.records.folder import StudyFolder, TrialFolder
from peftsearch.study.storage.journal import open_journal

__all__ = ["Witness", "brute_force_front", "problems_at_the_end", "trials_of"]

LEFT_BEHIND = re.compile(r"\.tmp$|\.partial")


@dataclass
class Witness:
    """Has seen every result that was ever finished, byte by byte."""

    root: Path
    results: dict[str, bytes] = field(default_factory=dict)
    trials: int = 0

    def look(self) -> Iterator[str]:
        """What is wrong now, right after a kill."""
        if not self.root.exists():
            if self.results:
                yield "the study is gone"
            return
        now = {p.parent.name: p.read_bytes() for p in self.root.glob("trials/*/result.json")}
        for number, content in self.results.items():
            if now.get(number) != content:
                fate = "changed" if number in now else "gone"
                yield f"LOST: the result of trial {number} is {fate}"
        self.results = now
        for path in self.root.rglob("*"):
            yield from map(f"{path.relative_to(self.root)}: {{}}".format, _damage(path))
        yield from self._journal()

    def _journal(self) -> Iterator[str]:
        try:
            trials = len(trials_of(self.root))
            StudyFolder.at(self.root).read()
        except PeftsearchError as error:
            yield f"cannot be loaded: {error}"
            return
        if trials < self.trials:
            yield f"LOST: the journal had {self.trials} trials, and has {trials}"
        self.trials = trials


def trials_of(root: Path) -> list[FrozenTrial]:
    """Optuna's trials, read from the journal as its own tools would."""
    storage = open_journal(root / "journal.log")
    studies = storage.get_all_studies()
    return storage.get_all_trials(studies[0]._study_id) if studies else []


def _damage(path: Path) -> Iterator[str]:
    """Whether a file that is there is whole."""
    if LEFT_BEHIND.search(path.name):
        return
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            for line in path.read_bytes().split(b"\n")[:-1]:  # the last may be cut off
                json.loads(line)
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (no mapping)
                    tensors.get_tensor(name)
        elif path.suffix == ".npz":
            read_examples(path)
    except (ValueError, SafetensorError, UsageError) as error:
        yield f"half-written ({error})"


def brute_force_front(results: list[dict[str, Any]]) -> list[int]:
    """Trials at full length that no other beats; of equal ones the first."""

    def beats(a: dict[str, Any], b: dict[str, Any]) -> bool:
        at_least = a["metric"] >= b["metric"] and a["tuned_pct"] <= b["tuned_pct"]
        equal = (a["metric"], a["tuned_pct"]) == (b["metric"], b["tuned_pct"])
        return bool(at_least and (not equal or a["number"] < b["number"]))

    full = [r for r in results if r["state"] == "full"]
    return sorted(r["number"] for r in full if not any(beats(other, r) for other in full))


def problems_at_the_end(root: Path, wanted: int, front: list[int]) -> Iterator[str]:
    """What a finished study of `wanted` evaluated configurations, whose frontier was printed as
    trials `front`, does not account for.
    """
    results = [r.model_dump() for r in StudyFolder.at(root).read().results]
    numbers, trials = [r["number"] for r in results], trials_of(root)
    if numbers != list(range(len(trials))):
        yield f"LOST: {len(trials)} trials in the journal, results of {numbers}"
        return
    began = [r for r in results if r["configuration_hash"] and r["state"] != "duplicate"]
    counted = Counter(r["configuration_hash"] for r in began)
    for one, times in counted.items():
        if times > 1:
            yield f"DUPLICATE: {one} was trained {times} times"
    if len(began) != wanted:
        yield f"{len(began)} configurations were evaluated, not {wanted}"
    for result, trial in zip(results, trials, strict=True):
        yield from map(f"trial {trial.number}: {{}}".format, _problems_of(result, trial, results))
        yield from map(f"trial {trial.number}: {{}}".format, _files_of(root, result))
    expected = brute_force_front(results)
    if sorted(front) != expected:
        yield f"the frontier is {expected}, but {sorted(front)} was printed"
    yield from _left_behind(root)


def _problems_of(
    result: dict[str, Any], trial: FrozenTrial, results: list[dict[str, Any]]
) -> Iterator[str]:
    """What the journal and the files say of one trial differently."""
    if not trial.state.is_finished():
        yield f"{result['state']}, but {trial.state.name} in the journal"
    if result["state"] in ("full", "stopped"):
        told = (trial.state, trial.values)
        if told != (TrialState.COMPLETE, [result["metric"], result["tuned_pct"]]):
            yield f"{result['state']}, but the journal has {told}"
    elif result["state"] == "duplicate":
        first = results[result["same_as"]]
        if first["configuration_hash"] != result["configuration_hash"]:
            yield f"no duplicate of trial {first['number']}"
        if first["state"] == "duplicate" or first["number"] == result["number"]:
            yield f"a duplicate of trial {first['number']}, which was not trained"
    elif result["state"] == "failed" and result["cause"] != "cut_off":
        yield f"failed: {result['message']}"


def _files_of(root: Path, result: dict[str, Any]) -> Iterator[str]:
    """What a trial's folder lacks, or holds too much of."""
    folder = StudyFolder.at(root).trial(result["number"])
    if result["state"] in ("full", "stopped"):
        if folder.read_configuration() != result["configuration"]:
            yield "configuration.json is another configuration"
        if [value.model_dump() for value in folder.read_curve()] != list(result["curve"]):
            yield "curve.jsonl is another curve"
    if (result["state"] == "full") > folder.adapter_path.exists():
        yield "LOST: full, but without its adapter"
    if result["state"] == "full":
        yield from _examples_of(folder, result["metric"])
    if folder.checkpoint_path.exists():
        yield "ended, but its checkpoint is kept"


def _examples_of(folder: TrialFolder, metric: float) -> Iterator[str]:
    """Faults of the examples that a trial's metric is computed from."""
    try:
        if read_examples(folder.examples_path).value() != metric:
            yield "examples.npz is of another metric"
    except FileNotFoundError:
        yield "LOST: full, but without its examples"
    except UsageError as error:
        yield str(error)


def _left_behind(root: Path) -> Iterator[str]:
    """Files that nobody needs once nobody works on the study."""
    for path in sorted(root.parent.rglob("*")):
        if LEFT_BEHIND.search(path.name) or path.parent == root / "workers":
            yield f"left behind: {path.relative_to(root.parent)}"
