"""Many bad inputs through the command-line entry: the long form of `test_hostile.py`.

    python tests/hostile/run.py --count 10000 --seed 0 --world /tmp/good

prints how many of each kind were tried, how they ended, and every broken promise with what repeats
it: `--seed S --only INDEX` and the same `--world`. Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.hostile import here
from support.hostile.case import Case
from support.hostile.check import Ran, broken_promises, contents_of, run_here
from support.hostile.kinds import KINDS, chosen
from support.hostile.world import World

SUBPROCESS_LIMIT_S = 300
"""Of the wall's clock, on a machine that does nothing else: torch is imported up to twice."""


def tried(world: World, seed: int, index: int, apart: bool) -> tuple[Case, Ran, list[str]]:
    """One case made, run (`apart`: as a process of its own) and judged."""
    with tempfile.TemporaryDirectory() as sandbox:
        folder = Path(sandbox) / "case"
        folder.mkdir()
        case = chosen(index)[1](random.Random(f"{seed}:{index}"), world, folder)
        before = contents_of(Path(sandbox))
        ran = run_apart(case) if apart else run_here(case, here.run_briefly)
        return case, ran, broken_promises(case, ran, before)


def run_apart(case: Case) -> Ran:
    """`python -m peftsearch`, as users start it; a search is told to end at once."""
    words = [word for word in case.arguments if word]
    if words[:1] == ["search"] and "--dry-run" not in words:
        words += ["--minutes", "0"]
    command = [sys.executable, "-m", "peftsearch", *words]
    try:
        ended = subprocess.run(
            command,
            cwd=case.folder,
            input=case.stdin.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=SUBPROCESS_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ran(None, "", "", f"still running after {SUBPROCESS_LIMIT_S} s")
    out, err = (text.decode("utf-8", "surrogateescape") for text in (ended.stdout, ended.stderr))
    return Ran(ended.returncode, out, err)


def main() -> int:
    asked = _arguments()
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)
    warnings.simplefilter("ignore", DeprecationWarning)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["PEFTSEARCH_CACHE"] = f"{temporary}/cache"
        world = World(Path(asked.world or temporary).absolute())
        world.root.mkdir(exist_ok=True)
        began = time.monotonic()
        broken = _all(world, asked)
        print(f"{time.monotonic() - began:.0f} s in all")
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="begin with this number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case, with everything it printed")
    parser.add_argument("--kind", choices=list(KINDS), help="cases of one kind alone")
    parser.add_argument("--world", help="folder of good inputs, kept to repeat cases exactly")
    parser.add_argument("--subprocesses", action="store_true", help="each in its own process")
    return parser.parse_args()


def _numbers(asked: argparse.Namespace) -> Iterator[int]:
    if asked.only is not None:
        yield asked.only
        return
    for index in range(asked.first, asked.first + asked.count):
        if asked.kind in (None, chosen(index)[0]):
            yield index


@dataclass
class Tally:
    """What came of the cases so far."""

    codes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    slowest: tuple[float, int] = (0.0, -1)
    broken: int = 0

    def show(self) -> None:
        for kind, counts in sorted(self.codes.items()):
            ended = ", ".join(f"exit {code}: {count:,}" for code, count in sorted(counts.items()))
            print(f"{kind:>8}: {sum(counts.values()):,} in {self.seconds[kind]:.0f} s ({ended})")
        total = sum(sum(counts.values()) for counts in self.codes.values())
        print(
            f"{total:,} bad inputs, {self.broken} with a broken promise; the slowest, "
            f"{self.slowest[1]}, took {self.slowest[0]:.1f} s"
        )


def _all(world: World, asked: argparse.Namespace) -> int:
    tally = Tally()
    for number, index in enumerate(_numbers(asked), 1):
        began = time.monotonic()
        kind = chosen(index)[0]
        try:
            case, ran, problems = tried(world, asked.seed, index, asked.subprocesses)
        except Exception:  # a mistake of the generator's must not end hours of trying
            tally.broken += 1
            print(
                f"--- --seed {asked.seed} --only {index}: {kind}\n{traceback.format_exc(limit=-3)}"
            )
            continue
        seconds = time.monotonic() - began
        tally.slowest = max(tally.slowest, (seconds, index))
        tally.seconds[kind] += seconds
        tally.codes[kind][str(ran.code)] += 1
        tally.broken += bool(problems)
        if problems or asked.only is not None:
            _tell(index, asked.seed, case, ran, problems, asked.only is not None)
        if number % 1000 == 0:
            tally.show()
    tally.show()
    return tally.broken


def _tell(index: int, seed: int, case: Case, ran: Ran, problems: list[str], whole: bool) -> None:
    print(f"--- --seed {seed} --only {index}: {case.about}\n    {case.arguments!r:.600}")
    for problem in problems:
        print(f"    {problem}")
    if whole:
        print(f"    exit {ran.code}\n    out: {ran.out[-2000:]!r}\n    err: {ran.err[-3000:]}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
