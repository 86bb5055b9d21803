"""The space file as frozen models: unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from peftsearch.design.configuration import Training
from peftsearch.design.form import FORMS
from peftsearch.design.methods import METHODS
from peftsearch.errors import ConfigurationError, did_you_mean
from peftsearch.space.values import AnyValues, Names, Numbers, Values

__all__ = ["Budgets", "HeadChoices", "SeedMethod", "SlotChoices", "SlotPlaces", "SpaceFile"]

COMPOSITION_NAMES = ("add", "scaled", "gated")
INSERTION_NAMES = ("parallel", "projection", "sequential")
LAYER_MASKS = ("all", "upper_half", "lower_half", "every_other", "last")
DEFAULT_SCALES = Values((), 0.5, 8.0, log=True)


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Budgets(Model):
    """`tuned_pct`: bounds of the parameter budget. The rest: how long a trial trains."""

    tuned_pct: Numbers
    epochs: float | None = Field(None, gt=0, le=10_000)
    max_steps: int | None = Field(None, gt=0, le=1_000_000_000)
    rungs: tuple[float, ...] = (0.25, 1.0)
    rung_examples: int = Field(400, gt=0)
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
        if not rungs or rungs[-1] != 1 or rungs[0] <= 0 or list(rungs) != sorted(set(rungs)):
            raise ValueError(f"rungs {list(rungs)} must rise from above 0 to 1, the full length")
        return rungs

    @model_validator(mode="after")
    def _one_length(self) -> Budgets:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give epochs or max_steps, one of the two")
        return self


class SlotPlaces(Model):
    """One group of places of which a configuration modifies at most one."""

    at: Names
    layers: Names = Values(("all",))

    @field_validator("layers")
    @classmethod
    def _known_masks(cls, values: Values) -> Values:
        return _all_known(values, LAYER_MASKS, "layer mask")


def _split_scales(raw: Any) -> Any:
    """`[add, {scaled: {s: …}}]` → names, and the scales beside them (see SlotChoices.scales)."""
    items = raw if isinstance(raw, list) else [raw]
    return ["scaled" if isinstance(item, dict) and "scaled" in item else item for item in items]


class SlotChoices(Model):
    """The other dimensions of a slot. `scales` is read from `composition: {scaled: {s: …}}`."""

    form: Names
    insertion: Names = Values(("parallel",))
    composition: Annotated[Names, BeforeValidator(_split_scales)] = Values(("add",))
    scales: AnyValues = Field(DEFAULT_SCALES, alias="s")
    init: Names = Values(("lora",))

    @model_validator(mode="before")
    @classmethod
    def _take_scales(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "composition" not in raw:
            return raw
        items = raw["composition"] if isinstance(raw["composition"], list) else [raw["composition"]]
        for item in items:
            if isinstance(item, dict):
                if set(item) != {"scaled"} or not isinstance(item["scaled"], dict):
                    raise ValueError("composition: expected add, gated, scaled or {scaled: {s: …}}")
                if set(item["scaled"]) != {"s"}:
                    raise ValueError("composition: scaled takes one key, s")
                return raw | {"s": item["scaled"]["s"]}
        return raw

    @field_validator("form")
    @classmethod
    def _known_forms(cls, values: Values) -> Values:
        return _all_known(values, ("none", *FORMS), "form")

    @field_validator("insertion")
    @classmethod
    def _known_insertions(cls, values: Values) -> Values:
        return _all_known(values, INSERTION_NAMES, "insertion")

    @field_validator("composition")
    @classmethod
    def _known_compositions(cls, values: Values) -> Values:
        return _all_known(values, COMPOSITION_NAMES, "composition")

    @field_validator("init")
    @classmethod
    def _known_inits(cls, values: Values) -> Values:
        return _all_known(values, ("lora", "bert"), "init")

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
    pooling: Names = Values(("mean",))
    pooler: Names = Values(("none",))

    @field_validator("pooling")
    @classmethod
    def _known_poolings(cls, values: Values) -> Values:
        return _all_known(values, ("first", "mean"), "pooling")

    @field_validator("pooler")
    @classmethod
    def _known_poolers(cls, values: Values) -> Values:
        return _all_known(values, ("none", "trained"), "pooler")


def _lr_by_form(raw: Any) -> Any:
    """One rule for all forms, or a mapping form → rule."""
    if isinstance(raw, dict) and not set(raw) & {"log", "range", "choose"}:
        for form in raw:
            if form not in FORMS:
                raise ValueError(f"form '{form}' unknown{did_you_mean(str(form), FORMS)}")
        return raw
    return dict.fromkeys(FORMS, raw)


def _trainable(**values: Any) -> None:
    """Refuse, with the file's line, what would end every trial that draws it."""
    try:
        Training(**values)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


class TrainChoices(Model):
    """Learning rates, and what else of training a space fixes or searches."""

    lr: Annotated[dict[str, Numbers], BeforeValidator(_lr_by_form)] = Field(default_factory=dict)
    head_lr: Numbers = Values((1e-3,))
    batch_size: Numbers = Values((32,))
    weight_decay: Numbers = Values((0.01,))
    warmup: Numbers = Values((0.06,))
    max_grad_norm: Numbers = Values((1.0,))

    @field_validator("head_lr", "batch_size", "weight_decay", "warmup", "max_grad_norm")
    @classmethod
    def _usable(cls, values: Values, field: ValidationInfo) -> Values:
        for value in values.extremes:
            whole = field.field_name == "batch_size" and values.is_range
            _trainable(**{str(field.field_name): int(value) if whole else value})
        return values

    @field_validator("lr")
    @classmethod
    def _usable_rates(cls, rules: dict[str, Values]) -> dict[str, Values]:
        for form, values in rules.items():
            for rate in values.extremes:
                _trainable(lr=((form, float(rate)),))
        return rules


class SeedMethod(Model):
    """A method to begin with, at its authors' widths and typical rates, or at stated ones."""

    method: str
    tuned_pct: float | None = Field(None, gt=0, le=100)
    lr: float | None = Field(None, gt=0, le=10)

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METHODS:
            raise ValueError(f"method '{name}' unknown{did_you_mean(name, METHODS)}")
        return name


def _as_seed(raw: Any) -> Any:
    return {"method": raw} if isinstance(raw, str) else raw


class Width(Model):
    allocate: Literal["share_of_budget"] = "share_of_budget"


class SpaceFile(Model):
    """A whole space file."""

    schema_version: Literal[1] = Field(alias="schema")
    title: str = ""
    budgets: Budgets
    places: dict[str, SlotPlaces] = Field(min_length=1)
    choices: dict[str, SlotChoices]
    width: Width = Width()
    head: HeadChoices = HeadChoices()
    train: TrainChoices = TrainChoices()
    forbid: tuple[dict[str, str], ...] = ()
    seed_with: tuple[Annotated[SeedMethod, BeforeValidator(_as_seed)], ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Plain data that reads back as an equal space."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


def _all_known(values: Values, known: tuple[str, ...], what: str) -> Values:
    for choice in values.choices:
        if choice not in known:
            raise ValueError(f"{what} '{choice}' unknown{did_you_mean(str(choice), known)}")
    return values
