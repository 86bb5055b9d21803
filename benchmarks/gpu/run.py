"""All measurements of a GPU with one command, each part in a process of its own with a time limit.

    python benchmarks/gpu/run.py [--out FOLDER] [--parts BEGINNING OF A NAME ...] [--tiny]

A part that fails, or takes too long, stops no other. The folder gets `log`, everything printed;
`run.json`, how each part ended; `facts.json`, `checks.json`, `speed.json`, `proto.json`,
`decoder.json` and `search.json`; and `summary.md`, the tables for docs/performance.md. Half an hour
at most. `--tiny` runs on a CPU, and shows only that the scripts run. Needs the demo extra, peft and
pytest; no network. The exit code is 1 if a part had problems.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, BinaryIO

from common import ROOT
from parts import Part, parts
from summary import summary

_GRACE_S = 5.0
"""Seconds between asking a part that takes too long to end, and killing it."""
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class Ended:
    """The outcome of a part."""

    part: str
    outcome: str
    """`well`, `problems` (in its JSON file and the log), `exit code N` or `stopped after N s`."""
    wall_s: float

    @property
    def is_well(self) -> bool:
        return self.outcome == "well"


def main(arguments: list[str] | None = None) -> int:
    asked = _arguments(arguments)
    chosen = [one for one in parts(asked.tiny) if one.name.startswith(tuple(asked.parts))]
    if not chosen:
        return _refused(f"no part begins with {' or '.join(asked.parts)}")
    if any(asked.out.glob("*.json")):
        return _refused(f"{asked.out} has results already: name another --out")
    if not asked.tiny and not _has_gpu():
        return _refused("torch finds no GPU here; --tiny tries the scripts on a CPU")
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-scratch-") as scratch:
        within = environment(asked.out, Path(scratch), asked.tiny)
        ended = run_parts(chosen, asked.out, within, asked.slow)
    text = summary(asked.out)
    (asked.out / "summary.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(one.is_well for one in ended) else 1


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    now = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-out" / now)
    parser.add_argument("--parts", nargs="+", default=[""], metavar="BEGINNING")
    parser.add_argument("--tiny", action="store_true", help="on a CPU: measures nothing")
    parser.add_argument("--slow", type=float, default=1.0, help="factor of all time limits")
    return parser.parse_args(arguments)


def _refused(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 2


def _has_gpu() -> bool:
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code]).returncode == 0


def environment(out: Path, scratch: Path, tiny: bool) -> dict[str, str]:
    """The environment of parts: no network, own caches, the scripts importable by pytest."""
    folders = [str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **_ENVIRONMENT,
        "KIT_DEVICE": "cpu" if tiny else "cuda",
        "OUT": str(out.absolute()),
        "KIT_SCRATCH": str(scratch),
        "PEFTSEARCH_CACHE": str(scratch / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
    }


def run_parts(
    chosen: Iterable[Part], out: Path, environment: dict[str, str], slow: float = 1.0
) -> list[Ended]:
    """Run parts one after another; what they print goes to the terminal and to `log`."""
    ended: list[Ended] = []
    with (out / "log").open("ab") as log:
        for part in chosen:
            limit_s = part.limit_s * slow
            _tell(log, f"== {part.name} (at most {limit_s:.0f} s)\n".encode())
            ended.append(_run(part, limit_s, environment, log))
            _tell(log, f"== {part.name}: {ended[-1].outcome}, {ended[-1].wall_s} s\n".encode())
            told = json.dumps([asdict(one) for one in ended], indent=1)
            (out / "run.json").write_text(told, encoding="utf-8")
    return ended


def _run(part: Part, limit_s: float, environment: dict[str, str], log: BinaryIO) -> Ended:
    began = time.monotonic()
    with _started(part, environment) as process:
        assert process.stdout is not None
        # A thread: a part that hangs prints nothing, and must be stopped all the same.
        reader = threading.Thread(target=_copy, args=(process.stdout, log), daemon=True)
        reader.start()
        try:
            outcome = _outcome(process.wait(limit_s))
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {limit_s:.0f} s"
            _stop(process)
    reader.join(_GRACE_S)  # all that could write is dead
    return Ended(part.name, outcome, round(time.monotonic() - began, 1))


@contextlib.contextmanager
def _started(part: Part, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A part's process, the first of a group, which is killed at the end of the context."""
    process = subprocess.Popen(
        part.command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a part's processes to end; they have a few seconds for it."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)


def _signal(process: subprocess.Popen[bytes], which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, which)


def _outcome(code: int) -> str:
    return {0: "well", 1: "problems"}.get(code, f"exit code {code}")


def _copy(stream: IO[bytes], log: BinaryIO) -> None:
    with stream:
        for line in stream:
            _tell(log, line)


def _tell(log: BinaryIO, line: bytes) -> None:
    log.write(line)
    log.flush()
    sys.stdout.write(line.decode(errors="replace"))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
