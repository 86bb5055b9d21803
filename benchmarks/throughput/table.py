"""The figures of a run as a markdown table and a plotly figure."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean
from typing import Any

import plotly.graph_objects as go

__all__ = ["written"]

_COLOURS = {"(a)": "#bdbdbd", "(b)": "#636363", "(d)": "#08519c"}


def written(facts: dict[str, Any], out: Path) -> str:
    """Write throughput.md and throughput.html beside the raw figures; returns the table."""
    scenarios = list(dict.fromkeys(r["scenario"] for r in facts["rounds"]))
    parts = [_table(name, facts) for name in scenarios]
    parts += [_achieved(name, facts) for name in facts["flops"]]
    text = "\n\n".join(parts) + "\n"
    (out / "throughput.md").write_text(text, encoding="utf-8")
    _figure(scenarios, facts).write_html(out / "throughput.html", include_plotlyjs="cdn")
    return text


def _achieved(scenario: str, facts: dict[str, Any]) -> str:
    arm = next(a for a in _arms(facts, scenario) if a.startswith("(d)"))
    rate = facts["flops"][scenario] / mean(_seconds(facts, scenario, arm).values())
    return (
        f"{scenario}: the matrix products of (d) are {facts['flops'][scenario] / 1e9:.0f} GFLOP a "
        f"trial, {rate / 1e9:.0f} GFLOP/s of all its time: {rate / facts['gemm']:.0%} of the "
        f"{facts['gemm'] / 1e9:.0f} GFLOP/s that sgemm reaches on one thread."
    )


def _seconds(facts: dict[str, Any], scenario: str, arm: str) -> dict[int, float]:
    """CPU seconds a trial, by round."""
    return {
        r["round"]: mean(t["cpu_s"] for t in r["trials"])
        for r in facts["rounds"]
        if r["scenario"] == scenario and r["arm"] == arm
    }


def _arms(facts: dict[str, Any], scenario: str) -> list[str]:
    return sorted({r["arm"] for r in facts["rounds"] if r["scenario"] == scenario})


def _ratio(facts: dict[str, Any], scenario: str, arm: str, to: str) -> list[float]:
    """Speed relative to the arm whose name begins with `to`, per round (2: twice as fast)."""
    other = next(a for a in _arms(facts, scenario) if a.startswith(to))
    own, theirs = (_seconds(facts, scenario, name) for name in (arm, other))
    return [theirs[index] / own[index] for index in own]


def _table(scenario: str, facts: dict[str, Any]) -> str:
    lines = [
        f"**{scenario}**",
        "",
        "| | CPU-s a trial | trials an hour | times (a) | times (b) | accuracy | peak MiB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    reference = _accuracy(facts, scenario, next(iter(_arms(facts, scenario))))
    for arm in _arms(facts, scenario):
        seconds = _seconds(facts, scenario, arm)
        accuracy = _accuracy(facts, scenario, arm)
        error = math.sqrt(2 * 0.25 / (facts["eval"] * _trials(facts, scenario)))
        differs = " (differs)" if abs(accuracy - reference) > 2 * error else ""
        peaks = [
            r["peak_mib"] for r in facts["rounds"] if (r["scenario"], r["arm"]) == (scenario, arm)
        ]
        cells = [
            arm,
            f"{mean(seconds.values()):.2f}",
            f"{3600 / mean(seconds.values()):.0f}",
            *(_spread(_ratio(facts, scenario, arm, to)) for to in ("(a)", "(b)")),
            f"{accuracy:.3f}{differs}",
            f"{max(peaks):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_mix(scenario, facts)])


def _accuracy(facts: dict[str, Any], scenario: str, arm: str) -> float:
    found = [
        t["metric"]
        for r in facts["rounds"]
        if (r["scenario"], r["arm"]) == (scenario, arm)
        for t in r["trials"]
    ]
    return mean(found)


def _trials(facts: dict[str, Any], scenario: str) -> int:
    return len(next(r for r in facts["rounds"] if r["scenario"] == scenario)["trials"])


def _spread(ratios: list[float]) -> str:
    return f"{mean(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def _mix(scenario: str, facts: dict[str, Any]) -> list[str]:
    """Each configuration of a scenario with more than one: what it is, and its own ratios."""
    if _trials(facts, scenario) == 1:
        return []
    arms = {arm[:3]: arm for arm in _arms(facts, scenario)}

    def seconds(arm: str, index: int) -> float:
        return mean(
            r["trials"][index]["cpu_s"]
            for r in facts["rounds"]
            if (r["scenario"], r["arm"]) == (scenario, arms[arm])
        )

    lines = ["| trained | frozen layers | (a) s | (b) s | ours s |", "|---|--:|--:|--:|--:|"]
    first = next(r for r in facts["rounds"] if r["scenario"] == scenario)
    for index, trial in enumerate(first["trials"]):
        own = (f"{seconds(arm, index):.2f}" for arm in ("(a)", "(b)", "(d)"))
        lines.append(f"| {trial['trained']} | {trial['frozen_layers']} | {' | '.join(own)} |")
    return lines


def _figure(scenarios: list[str], facts: dict[str, Any]) -> go.Figure:
    """Throughput of every arm in units of (a)'s, a group for each scenario."""
    figure = go.Figure()
    for arm in _arms(facts, scenarios[0]):
        having = [s for s in scenarios if arm in _arms(facts, s)]
        ratios = [mean(_ratio(facts, s, arm, "(a)")) for s in having]
        colour = _COLOURS.get(arm[:3], "#9ecae1")
        figure.add_bar(name=arm, x=having, y=ratios, marker_color=colour, marker_line_width=0.5)
    figure.update_layout(
        barmode="group",
        template="plotly_white",
        yaxis_title="trials an hour, in units of (a)'s",
        width=1100,
        height=480,
        margin={"t": 20, "b": 40},
    )
    return figure
