"""The space file as frozen pydantic models that reject unknown keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from peftsearch.design.budget import (
    MOST_EPOCHS,
    MOST_STEPS,
    TrainingBudget,
    check_length,
    check_rungs,
)
from peftsearch.design.composition import COMPOSITIONS
from peftsearch.design.form import FORMS
from peftsearch.errors import ConfigurationError
from peftsearch.space.file.modification_shares import ModificationShares
from peftsearch.space.file.published import Published
from peftsearch.space.file.seed_method import SeedMethod, as_seed
from peftsearch.space.file.train_choices import TrainChoices
from peftsearch.space.file.values import AnyValues, Model, Names, Numbers, Values, all_known
from peftsearch.space.layer_masks import DEPTHS, LAYER_MASKS

__all__ = ["Budgets", "HeadChoices", "SeedMethod", "SlotChoices", "SlotPlaces", "SpaceFile"]

INSERTION_NAMES = ("parallel", "projection", "residual_stream", "sequential")
DEFAULT_SCALES = Values((), 0.5, 8.0, log=True)
EVERY_LAYER = Values(("all",))


class Budgets(Model):
    """Bounds of the parameter budget (`tuned_pct`, percent of the backbone's body), and how long a
    trial trains.
    """

    tuned_pct: Numbers
    epochs: float | None = Field(None, gt=0, le=MOST_EPOCHS)
    max_steps: int | None = Field(None, gt=0, le=MOST_STEPS)
    rungs: tuple[float, ...] = TrainingBudget.rungs
    rung_examples: int = Field(TrainingBudget.rung_examples, gt=0)
    train_examples: int | None = Field(None, gt=0)
    eval_examples: int | None = Field(None, gt=0)

    @field_validator("tuned_pct")
    @classmethod
    def _needs_bounds(cls, values: Values) -> Values:
        if not values.is_range or not values.log:
            raise ValueError("expected {log: [lo, hi]}, bounds in percent of the backbone")
        if values.high > 100:
            raise ValueError("more than 100 % of the backbone cannot be tuned")
        return values

    @field_validator("rungs")
    @classmethod
    def _rungs_rise(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        try:
            check_rungs(rungs)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return rungs

    @model_validator(mode="after")
    def _one_length(self) -> Budgets:
        try:
            check_length(self.epochs, self.max_steps)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return self

    def training_budget(self, rung_examples: int | None = None) -> TrainingBudget:
        """The training length of a trial; `rung_examples`: a study's own number."""
        return TrainingBudget(
            epochs=self.epochs,
            max_steps=self.max_steps,
            rungs=self.rungs,
            rung_examples=self.rung_examples if rung_examples is None else rung_examples,
        )


class SlotPlaces(Model):
    """A slot's places: a configuration modifies at most one of them."""

    at: Names
    layers: Names = Values(("all",))

    @field_validator("layers")
    @classmethod
    def _known_masks(cls, values: Values) -> Values:
        return all_known(values, LAYER_MASKS, "layer mask")


_NUMBERS = {
    "scaled": ("s", "s"),
    "rank_stabilised": ("alpha", "alpha"),
    "dora": ("s", "dora_s"),
}
"""Composition → (its number in the file, the field that keeps it)."""


def _split_numbers(raw: Any) -> Any:
    """`[add, {scaled: {s: …}}]` → names; the numbers stand in fields beside them."""
    items = raw if isinstance(raw, list) else [raw]
    return [next(iter(item)) if isinstance(item, dict) and item else item for item in items]


class SlotChoices(Model):
    """The other dimensions of a slot. `scales` is read from `composition: {scaled: {s: …}}`, the
    numbers of the other compositions alike.
    """

    form: Names
    insertion: Names = Values(("parallel",))
    composition: Annotated[Names, BeforeValidator(_split_numbers)] = Values(("add",))
    scales: AnyValues = Field(DEFAULT_SCALES, alias="s")
    alpha: Numbers = Values((), 2.0, 32.0, log=True)
    dora_s: Numbers = Values((1.0,))
    init: Names = Values(("lora",))
    reparametrise: Names = Values(("direct",))

    @model_validator(mode="before")
    @classmethod
    def _take_numbers(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "composition" not in raw:
            return raw
        items = raw["composition"] if isinstance(raw["composition"], list) else [raw["composition"]]
        found: dict[str, Any] = {}
        for item in items:
            if not isinstance(item, dict):
                continue
            name = next(iter(item), None)
            if len(item) != 1 or name not in _NUMBERS or not isinstance(item[name], dict):
                raise ValueError(
                    "composition: expected a name or, with its number, {scaled: {s: …}}"
                )
            key, field = _NUMBERS[name]
            if set(item[name]) != {key}:
                raise ValueError(f"composition: {name} takes one key, {key}")
            if field in raw:
                raise ValueError(
                    f"composition: the number of {name} is given twice, here and as {field}"
                )
            found[field] = item[name][key]
        return raw | found

    @model_validator(mode="after")
    def _scales_once(self) -> SlotChoices:
        names = self.composition.choices
        if "rank_stabilised" in names and "scaled" in names and self.scales.is_range:
            raise ValueError(
                "composition: a free s and a rank-stabilised α/√r give the same configurations "
                "twice: use only one of them"
            )
        return self

    def number_of(self, composition: str) -> tuple[str, Values] | None:
        """(parameter name, values) of a composition's number, None where it has none."""
        if composition not in _NUMBERS:
            return None
        _, field = _NUMBERS[composition]
        return field, self.scales if field == "s" else getattr(self, field)

    @field_validator("form")
    @classmethod
    def _known_forms(cls, values: Values) -> Values:
        return all_known(values, ("none", *FORMS), "form")

    @field_validator("insertion")
    @classmethod
    def _known_insertions(cls, values: Values) -> Values:
        return all_known(values, INSERTION_NAMES, "insertion")

    @field_validator("composition")
    @classmethod
    def _known_compositions(cls, values: Values) -> Values:
        return all_known(values, COMPOSITIONS, "composition")

    @field_validator("init")
    @classmethod
    def _known_inits(cls, values: Values) -> Values:
        return all_known(values, ("lora", "bert", "pissa"), "init")

    @field_validator("reparametrise")
    @classmethod
    def _known_ways(cls, values: Values) -> Values:
        return all_known(values, ("direct", "mlp"), "reparametrise")

    @field_validator("alpha", "dora_s")
    @classmethod
    def _positive(cls, values: Values) -> Values:
        if any(not isinstance(v, (int, float)) or v <= 0 for v in values.extremes):
            raise ValueError("must be above 0")
        return values

    @field_validator("scales")
    @classmethod
    def _usable_scales(cls, values: Values) -> Values:
        for s in values.choices:
            if s == "learned":
                continue
            if isinstance(s, (str, bool)) or s <= 0:
                raise ValueError(f"s={s} must be a positive number or 'learned'")
            if s == 1:
                raise ValueError("s=1 is plain addition: offer composition 'add' instead")
        if values.is_range and values.low <= 0:
            raise ValueError("s must be above 0")
        return values


class HeadChoices(Model):
    """Pooling of the states that the head reads, and a layer before it."""

    pooling: Names = Values(("mean",))
    pooler: Names = Values(("none",))

    @field_validator("pooling")
    @classmethod
    def _known_poolings(cls, values: Values) -> Values:
        return all_known(values, ("first", "mean", "last"), "pooling")

    @field_validator("pooler")
    @classmethod
    def _known_poolers(cls, values: Values) -> Values:
        return all_known(values, ("none", "trained"), "pooler")


class Width(Model):
    """The rule by which widths follow from a budget; there is one."""

    allocate: Literal["share_of_budget"] = "share_of_budget"


class Recommended(Model):
    """The model and task of a search of the space that names none."""

    model: str | None = None
    task: dict[str, Any] = Field(default_factory=dict)
    """Fields of a `TaskSpec`."""
    max_length: int | None = Field(None, gt=0)


class SpaceFile(Model):
    """A whole space file."""

    schema_version: Literal[1] = Field(alias="schema")
    title: str = ""
    budgets: Budgets
    depth: Names = EVERY_LAYER
    """Masks of layers that a whole configuration is restricted to, whatever its slots choose."""
    modifications: ModificationShares | None = None
    """Shares of samples by number of modifications; None: each slot chooses for itself whether it
    holds one.
    """
    places: dict[str, SlotPlaces] = Field(min_length=1)
    choices: dict[str, SlotChoices]
    width: Width = Width()
    head: HeadChoices = HeadChoices()
    train: TrainChoices = TrainChoices()
    forbid: tuple[dict[str, str], ...] = ()
    seed_with: tuple[Annotated[SeedMethod, BeforeValidator(as_seed)], ...] = ()
    recommended: Recommended | None = None
    published: Published | None = None

    @field_validator("depth")
    @classmethod
    def _known_depths(cls, values: Values) -> Values:
        return all_known(values, DEPTHS, "depth")

    def to_plain(self) -> dict[str, Any]:
        """Plain data that reads back as an equal space."""
        plain = self.model_dump(by_alias=True, exclude_none=True, mode="json")
        if self.depth == EVERY_LAYER:  # spaces written before this key keep their hashes
            del plain["depth"]
        if self.modifications is not None:  # whole numbers as keys, which JSON has not
            plain["modifications"] = self.modifications
        return plain | {"train": self.train.to_plain()}
