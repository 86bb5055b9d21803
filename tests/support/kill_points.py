"""The real `peftsearch search` killed at random moments, each time continued by `--resume`.

    PYTHONPATH=tests python -m support.kill_points --count 500 [--model minilm] \\
        [--workers 1] [--seed 0] [--anew-every 25]

runs the long form, over as many studies as that takes, and prints what was killed and what is wrong
afterwards; tests run a short one. `killable.py` says what of the command is real.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from support.file_events import FileEvents
from support.kept import Witness, problems_at_the_end, trials_of
from support.killable import Killable, imported, in_a_fork, started
from support.tiny import build_tiny_bert, sentiment_rows, write_csv
from support.uninterrupted import uninterrupted, without_clock

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, epochs: 4, rungs: [0.2, 0.5, 1], rung_examples: 20}
places: {attn: {at: [query+value, heads]}, ffn: {at: [out]}}
choices:
  attn: {form: [none, linear, prefix], composition: [add, gated, {scaled: {s: [2, 4]}}]}
  ffn: {form: [none, relu]}
train: {batch_size: 8, lr: [1e-3, 1e-2, 5e-2]}
seed_with: [head-only-mean, lora, prefix, full]
"""
FIRST_WORD_S = 90.0
"""Longest that a search takes until it writes, and until a new Python has imported everything."""
SAMPLE = 2
"""Curves of trials that were cut off, compared with uninterrupted ones, a study."""


@dataclass(frozen=True)
class Plan:
    """What is searched and how often it is killed, each time up to `alive_s` after a search's first
    write. `workers`: of each study in turn. Every `anew_every`th search is a new Python.
    """

    points: int
    home: Path
    model: str
    data: tuple[str, ...]
    space: str = SPACE
    trials: int = 24
    alive_s: float = 1.2
    changes: int = 80
    workers: tuple[int, ...] = (1, 2)
    seed: int = 0
    anew_every: int = 25


@dataclass
class Outcome:
    plan: Plan
    killed: Counter[str] = field(default_factory=Counter)
    studies: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    """How trials ended, and how many had been cut off."""
    compared: int = 0
    wall_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lost = sum("LOST" in problem for problem in self.problems)
        twice = sum("DUPLICATE" in problem for problem in self.problems)
        said = ", ".join(f"{count} {state}" for state, count in sorted(self.ends.items()))
        return (
            f"{self.killed.total()} kill points ({self.killed['whole']} whole, "
            f"{self.killed['parent']} the parent alone, {self.killed['worker']} one worker alone), "
            f"{self.studies} studies, {self.ends['full'] + self.ends['stopped']} trials finished "
            f"({said}), {self.compared} curves compared, {self.wall_s:.0f} s: {lost} lost, "
            f"{twice} duplicates, {len(self.problems)} problems"
        )


class KilledSearches:
    """Studies one after the other, each searched and killed until it is finished."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.source, self.outcome = plan, random.Random(plan.seed), Outcome(plan)
        self.starts = 0
        self.where = ""
        self.began = 0.0
        imported()

    def run(self) -> Outcome:
        self.began = time.monotonic()
        while self.outcome.killed.total() < self.plan.points:
            self._one_study()
        return self.outcome

    def _one_study(self) -> None:
        number = self.outcome.studies
        self.home = self.plan.home / f"study-{number}"
        self.home.mkdir(parents=True)
        (self.home / "space.yaml").write_text(self.plan.space)
        self.root = self.home / "studies/s"
        self.workers = self.plan.workers[number % len(self.plan.workers)]
        self.witness = Witness(self.root)
        before = len(self.outcome.problems)
        is_finished = False
        while not is_finished and self.outcome.killed.total() < self.plan.points:
            is_finished = self._one_search()
        self.where = f"study {number}, at its end"
        self._note(self._calm_end())
        self.outcome.studies += 1
        self.outcome.wall_s = time.monotonic() - self.began
        print(f"until {self.where}: {self.outcome}", flush=True)
        if len(self.outcome.problems) == before:
            shutil.rmtree(self.home)

    def _words(self) -> list[str]:
        """Begin the study, or continue it."""
        ends = ["--trials", str(self.plan.trials), "--workers", str(self.workers)]
        if (self.root / "study.json").exists():
            return ["search", "--study", "s", "--resume", *ends]
        seed = str(self.outcome.studies)
        what = ["--model", self.plan.model, *self.plan.data, "--seed", seed]
        return ["search", "space.yaml", "--study", "s", *what, *ends]

    def _one_search(self) -> bool:
        """Start it and kill it; True if it came to its end before."""
        self.starts += 1
        anew = self.starts % self.plan.anew_every == 0
        how = self.source.choices(("whole", "parent", "worker"), (70, 15, 15))[0]
        dead = self._joined()
        search = started(self._words(), self.home, anew)
        try:
            moment = self._wait(search, dead if anew else None)
            is_over = not search.is_running
            if how == "worker" and not search.workers():
                how = "whole"
            self.where = (
                f"study {self.outcome.studies} (seed {self.plan.seed}, {self.workers} workers), "
                f"point {self.outcome.killed.total()}: {how}, {moment}{', anew' if anew else ''}"
            )
            self._note(_own_end(search) if is_over else self._kill(search, how, anew))
        finally:
            search.kill()
        self._note(self.witness.look())
        return is_over

    def _wait(self, search: Killable, dead: set[str] | None) -> str:
        """Until a random moment: of its start, of its life, or right at a change of a file. The
        life of a search whose workers must import everything begins as one not of the `dead` joins.
        """
        kind = self.source.choices(("start", "life", "write"), (10, 45, 45))[0]
        if kind == "start":
            seconds = self.source.uniform(0, self.plan.alive_s)
            search.wait(seconds)
            return f"{seconds:.3f} s after its start"
        journal = self.root / "journal.log"
        size = _size(journal)
        deadline = time.monotonic() + FIRST_WORD_S
        while search.is_running and time.monotonic() < deadline:
            if _size(journal) > size and (dead is None or self._joined() - dead):
                break
            time.sleep(0.002)
        if kind == "life":
            seconds = self.source.uniform(0, self.plan.alive_s)
            search.wait(seconds)
            return f"{seconds:.3f} s after its first write"
        changes, delay_s = self.source.randint(1, self.plan.changes), self.source.uniform(0, 0.005)
        with FileEvents(self.root) as events:
            if not events.wait(changes, limit_s=3 * self.plan.alive_s):
                return f"{3 * self.plan.alive_s:.1f} s after its first write"
        time.sleep(delay_s)
        return f"{1000 * delay_s:.1f} ms after change {changes} of its files"

    def _joined(self) -> set[str]:
        """Names of the workers that have joined the study, and have not left it."""
        folder = self.root / "workers"
        return set(os.listdir(folder)) if folder.exists() else set()

    def _kill(self, search: Killable, how: str, anew: bool) -> Iterator[str]:
        """Kill all or one of its processes; what the rest did that it should not have."""
        self.outcome.killed[how] += 1
        if how == "whole":
            search.kill()
        elif how == "parent":
            os.kill(search.leader, signal.SIGKILL)
            if not search.wait_for_all(FIRST_WORD_S if anew else 10):  # it may be importing
                yield "workers outlived their parent"
        else:
            yield from self._kill_a_worker(search)

    def _kill_a_worker(self, search: Killable) -> Iterator[str]:
        """Another takes its place; some time later all are interrupted (Ctrl-C)."""
        before = search.workers()
        os.kill(self.source.choice(sorted(before)), signal.SIGKILL)
        deadline = time.monotonic() + 120
        while search.is_running and not search.workers() - before:
            if time.monotonic() > deadline:
                yield "a killed worker was not replaced within 120 s"
                return
            time.sleep(0.01)
        if search.wait(self.source.uniform(0, self.plan.alive_s)) is None:
            os.kill(search.leader, signal.SIGINT)
        code = search.wait(300)
        if code not in (0, 130):
            yield f"ended with {code} after a worker was killed: {search.errors[-2000:]}"
        if not search.wait_for_all(10):
            yield "workers outlived an interrupted parent"

    # -- the end of a study --------------------------------------------------------------------

    def _calm_end(self) -> Iterator[str]:
        """Let it come to its end, and once more, which must change nothing."""
        yield from self._calm(self._words())
        yield from self.witness.look()
        seen = len(self.witness.results)
        yield from self._calm(self._words())
        yield from self.witness.look()
        if len(self.witness.results) > seen:
            yield "a finished study went on"
        yield from self._calm(["frontier", "s", "--json"])
        printed = json.loads((self.home / "out.txt").read_text())
        front = [point["number"] for point in printed["points"]]
        yield from problems_at_the_end(self.root, self.plan.trials, front)
        yield from self._curves()

    def _calm(self, words: list[str]) -> Iterator[str]:
        command = started(words, self.home)
        try:
            if command.wait(300) != 0:
                yield f"{words[0]} ended with {command.exit_code}: {command.errors[-2000:]}"
        finally:
            command.kill()

    def _curves(self) -> Iterator[str]:
        """A sample of trials that were cut off has the curves of uninterrupted ones, exactly."""
        folder = StudyFolder.at(self.root)
        results = folder.read().results
        self.outcome.ends.update(map(_end_of, results))
        cut = {t.number for t in trials_of(self.root) if "requeued" in t.user_attrs}
        self.outcome.ends["cut off and continued"] += len(cut)
        trained = [r for r in results if r.number in cut and r.state in ("full", "stopped")]
        sample = self.source.sample(trained, min(SAMPLE, len(trained)))
        found = self.home / "curves.json"

        def train_again() -> int:
            again = uninterrupted(folder, sample, self.home / "again")
            same = {r.number: without_clock(curve) == without_clock(r.curve) for r, curve in again}
            found.write_text(json.dumps([number for number in same if not same[number]]))
            return 0

        _, status = os.waitpid(in_a_fork(train_again), 0)  # torch's threads would not be forked
        if os.waitstatus_to_exitcode(status) != 0:
            yield "training again failed"
            return
        self.outcome.compared += len(sample)
        for number in json.loads(found.read_text()):
            yield f"trial {number} was cut off and has another curve than without"

    def _note(self, problems: Iterator[str] | list[str]) -> None:
        for problem in problems:
            self.outcome.problems.append(f"{self.where}: {problem}")
            print(self.outcome.problems[-1], flush=True)


def _own_end(search: Killable) -> list[str]:
    """Of a search that was not killed."""
    code = search.exit_code
    return [] if code == 0 else [f"ended with {code}: {search.errors[-2000:]}"]


def _end_of(result: TrialResult) -> str:
    if result.state != "failed":
        return result.state
    return "given up" if result.configuration_hash else "never begun"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def tiny(points: int, home: Path, model: Path) -> Plan:
    """Trials of some tenths of a second, on a random BERT."""
    data = write_csv(home / "data.csv", sentiment_rows(200))
    return Plan(points, home, str(model), ("--train", str(data)))


def minilm(points: int, home: Path) -> Plan:
    """The real MiniLM: trials of seconds."""
    limits = ("--train-examples", "96", "--eval-examples", "96")
    data = ("--task", "demo:tweets", *limits)
    space = SPACE.replace("epochs: 4", "epochs: 2")
    return Plan(points, home, "demo:minilm", data, space, trials=8, alive_s=5.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--model", choices=("tiny", "minilm"), default="tiny")
    parser.add_argument("--workers", type=int, help="Of every study (default: 1 and 2 in turn).")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--anew-every", type=int, default=25)
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="kill-points-"))
    os.environ["PEFTSEARCH_CACHE"] = str(root / "cache")
    if asked.model == "tiny":
        plan = tiny(asked.count, root, build_tiny_bert(root / "model"))
    else:
        plan = minilm(asked.count, root)
    workers = plan.workers if asked.workers is None else (asked.workers,)
    outcome = KilledSearches(
        replace(plan, workers=workers, seed=asked.seed, anew_every=asked.anew_every)
    ).run()
    print(outcome)
    if outcome.problems:
        print(f"the studies with problems are in {root}")
    else:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
