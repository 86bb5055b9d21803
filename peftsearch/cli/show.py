"""`peftsearch show`: details of a space, a method, or a trial of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftsearch.cli.completion import show_arguments
from peftsearch.cli.options import Json, Model, StudiesFolder
from peftsearch.cli.terminal.console import print_json, print_line, print_table, print_text
from peftsearch.errors import UsageError
from peftsearch.wording import counted, duration

if TYPE_CHECKING:
    from peftsearch.space.random_samples import RandomSamples
    from peftsearch.space.space import Space

__all__ = ["show"]


def show(
    what: Annotated[
        str,
        typer.Argument(help="A space, a method, or STUDY#TRIAL.", autocompletion=show_arguments),
    ],
    model: Model = None,
    studies: StudiesFolder = None,
    json: Json = False,
) -> None:
    """Show a space (structures, ranges), a method, or a trial (its learning curve)."""
    from peftsearch.design.methods import METHODS

    study, mark, number = what.rpartition("#")
    if mark:
        if model is not None:
            raise UsageError("--model is for spaces and methods: a trial has its study's")
        _show_trial(study, number, studies, json)
    elif what in METHODS:
        _show_method(what, model, json)
    else:
        _show_space(what, model, json)


def _show_space(name: str, model: str | None, as_json: bool) -> None:
    from peftsearch.space.space import load_space

    space = load_space(name)
    facts: dict[str, Any] = {
        "space": space.name,
        "about": space.file.title,
        "hash": space.hash,
        "distinct structures": space.count_structures(),
        **_shares(space),
        **{f"slot {slot.name}": counted(len(slot.structures), "choice") for slot in space.slots},
        "seeds": ", ".join(seed.method for seed in space.file.seed_with),
    }
    if model is not None:
        from peftsearch.backbone.loading.load import load_shapes
        from peftsearch.space.coverage import coverage_of
        from peftsearch.space.random_samples import draw_samples

        shapes = load_shapes(model)
        coverage = coverage_of(space, shapes)
        facts[f"distinct structures on {shapes.family}"] = coverage.structures
        for line in coverage.slots:
            slot, choices = line.split(": ", 1)
            facts[f"slot {slot} on {shapes.family}"] = choices
        for line in coverage.depths:
            depth, structures = line.split(": ", 1)
            facts[f"{depth} on {shapes.family}"] = structures
        if coverage.structures:
            drawn = draw_samples(space.on(shapes))
            facts |= drawn.facts() | _predicted(space, drawn)
    if as_json:
        print_json("space", facts | {"file": space.file.to_plain()})
        return
    for key, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        print_line(f"{key}: {shown}")
    print_line()
    print_text(space.document.text.rstrip())


def _predicted(space: Space, drawn: RandomSamples) -> dict[str, Any]:
    """Predicted seconds of samples on one CPU core; nothing if nothing fits its budget."""
    from peftsearch.space.predicted_time import predicted_time, typical_workload

    workload = typical_workload(space)
    time = predicted_time(drawn, workload)
    if time is None:
        return {}
    told = time.facts()
    numbers = ", ".join(duration(told[key]) for key in ("median_s", "most_s", "longest_s"))
    reads = f"{workload.steps:,} steps of {workload.batch:g} texts of {workload.tokens:g} tokens"
    return {
        "predicted time (median, 90 %, greatest)": f"{numbers} on one CPU core ({reads})",
        "longest sample": f"{time.longest}: {time.reason}",
    }


def _shares(space: Space) -> dict[str, str]:
    """Shares of samples by number of modifications; nothing where each slot chooses for itself."""
    shares = space.file.modifications
    if shares is None:
        return {}
    whole = sum(shares.values())
    told = (f"{number} in {100 * share / whole:.3g} %" for number, share in shares.items())
    return {"modifications": f"{', '.join(told)} of samples"}


def _show_method(name: str, model: str | None, as_json: bool) -> None:
    from peftsearch.design.methods import METHODS
    from peftsearch.records.rates import Rates

    method = METHODS[name]
    configuration = method.configuration()
    facts: dict[str, Any] = {
        "method": method.name,
        "title": method.title,
        "source": method.source or "–",
        "configuration": configuration.describe(),
        "learning rates": str(Rates.of(configuration.to_json())).removeprefix("lr ") or "–",
    }
    if model is not None:
        from peftsearch.backbone.loading.load import load_shapes

        shapes = load_shapes(model)
        configuration = configuration.within(shapes)
        facts["configuration"] = configuration.describe()
        facts["tuned parameters"] = f"{configuration.tuned_parameters(shapes):,}"
        facts["tuned %"] = f"{configuration.tuned_pct(shapes):.4g}"
    if as_json:
        print_json("method", facts | {"json": configuration.to_json()})
        return
    for key, value in facts.items():
        print_line(f"{key}: {value}")
    header = ("form", "place", "insertion", "composition", "width")
    rows = [
        (m.form.name, str(m.place), m.insertion.name, m.composition.name, str(m.width or "–"))
        for m in method.modifications
    ]
    if rows:
        print_line()
        print_table(header, rows)


def _show_trial(study: str, number: str, studies: Any, as_json: bool) -> None:
    from peftsearch.records.folder import StudyFolder
    from peftsearch.records.rates import Rates

    record = StudyFolder.open(study, studies).read()
    results = {str(result.number): result for result in record.results}
    if number not in results:
        raise UsageError(f"study '{study}' has no finished trial '{number}'")
    result = results[number]
    if as_json:
        print_json("trial", result.model_dump(mode="json"))
        return
    for key, value in result.model_dump(exclude={"configuration", "curve"}).items():
        if value is not None:
            print_line(f"{key.replace('_', ' ')}: {value}")
        if key == "description" and (rates := str(Rates.of(result.configuration))):
            print_line(f"learning rates: {rates.removeprefix('lr ')}")
    print_line()
    rows = [
        (
            str(v.step),
            record.info.metric.format(v.metric),
            f"{v.loss:.4f}",
            str(v.examples),
            f"{v.wall_s:.1f}",
        )
        for v in result.curve
    ]
    print_table(("step", record.info.metric.name, "loss", "examples", "seconds"), rows)
