"""Running trials as their events describe them: configuration, progress, estimated time left."""

from __future__ import annotations

from dataclasses import dataclass

from peftsearch.wording import agree, counted, duration
from peftsearch.workers.events import TrialBegan, TrialProgress

__all__ = ["RunningTrial", "RunningTrials", "interrupt_message", "time_limit_message"]


@dataclass
class RunningTrial:
    """One running trial. Times are seconds of the observing process's clock."""

    number: int
    name: str
    worker: int
    at: TrialProgress | None = None
    updated_s: float = 0.0
    first_step: int = 0
    first_s: float = 0.0

    def update(self, at: TrialProgress, now_s: float) -> None:
        if self.at is None or at.step < self.first_step:
            self.first_step, self.first_s = at.step, now_s
        self.at, self.updated_s = at, now_s

    @property
    def progress(self) -> str:
        """`step 120 of 240, loss 0.612`."""
        if self.at is None:
            return "begins"
        if self.at.phase == "evaluates":
            return f"{self.position}, evaluated"
        if self.at.phase == "prepares":
            return f"{self.position}, frozen layers first"
        return (
            self.position if self.at.loss is None else f"{self.position}, loss {self.at.loss:.3f}"
        )

    @property
    def position(self) -> str:
        """`step 120 of 240`."""
        if self.at is None:
            return "its first step"
        return f"step {self.at.step:,} of {self.at.full_steps:,}"

    def left_s(self, now_s: float) -> float | None:
        """Seconds to full length at the pace so far, evaluations included; None before the first
        step is measured.
        """
        if self.at is None or self.at.step <= self.first_step:
            return None
        step_s = (self.updated_s - self.first_s) / (self.at.step - self.first_step)
        left_s = step_s * (self.at.full_steps - self.at.step)
        return max(0.0, left_s - (now_s - self.updated_s))


class RunningTrials:
    """The trials under way, by number."""

    def __init__(self) -> None:
        self._trials: dict[int, RunningTrial] = {}

    def __len__(self) -> int:
        return len(self._trials)

    def all(self) -> list[RunningTrial]:
        """By number."""
        return sorted(self._trials.values(), key=lambda trial: trial.number)

    def begin(self, event: TrialBegan) -> None:
        named = event.method is not None and event.method != event.description
        name = f"{event.method}: {event.description}" if named else event.description
        self._trials[event.number] = RunningTrial(event.number, name, event.worker)

    def update(self, event: TrialProgress, now_s: float) -> None:
        trial = self._trials.get(event.number)
        if trial is not None:
            trial.update(event, now_s)

    def end(self, number: int) -> RunningTrial | None:
        return self._trials.pop(number, None)

    def end_all_of(self, worker: int) -> None:
        """Remove the trials of a worker that ended."""
        for trial in self.all():
            if trial.worker == worker:
                self.end(trial.number)

    def left_s(self, now_s: float) -> float | None:
        """Seconds until the last of them is trained; None if not known yet."""
        left = [trial.left_s(now_s) for trial in self.all()]
        known = [seconds for seconds in left if seconds is not None]
        return max(known, default=0.0) if len(known) == len(left) else None


def time_limit_message(count: int, left_s: float | None, most_s: float) -> str:
    """Message at the time limit: finishing `count` trials in `left_s` seconds, if that is known and
    within `most_s`, else saving them after `most_s`.
    """
    trials = counted(count, "running trial")
    if left_s is not None and left_s <= most_s:
        return f"time is up: finishing {trials}, up to about {duration(left_s + 1)}"
    return (
        f"time is up: {trials} may take up to {duration(most_s)} more; those unfinished by then "
        "are saved, for --resume"
    )


def interrupt_message(count: int, times: int) -> str:
    """Message after the `times`-th Ctrl-C, with `count` running trials."""
    if times > 1:
        return "ending at once: all that is finished or checkpointed is kept"
    if count == 0:
        return "stopping: no trial is under way"
    return (
        f"stopping: saving {counted(count, 'running trial')} (Ctrl-C again ends at once: "
        f"{agree(count, 'it then continues', 'they then continue')} from the last checkpoint)"
    )
