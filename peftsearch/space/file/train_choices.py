"""The `train:` section of a space file: hyperparameters that are fixed or searched."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from peftsearch.design.form import FORMS
from peftsearch.design.training import Training
from peftsearch.errors import ConfigurationError, did_you_mean
from peftsearch.space.file.values import Flags, Model, Names, Numbers, Suggester, Values

__all__ = ["ALWAYS", "TrainChoices"]

ALWAYS = (
    *("head_lr", "batch_size", "weight_decay", "warmup", "max_grad_norm", "schedule"),
    *("label_smoothing", "accumulation", "batch_tokens", "precision", "checkpointing", "dropout"),
    "max_length",
)
"""Fields suggested for every configuration. Learning rates are suggested for each form in it, and
LoRA+'s ratio if one of its forms has an up-projection.
"""
WHOLE_NUMBERS = ("batch_size", "accumulation", "batch_tokens", "max_length")
LATER_FIELDS = ALWAYS[ALWAYS.index("schedule") :]
"""Fields added after the first version: at their defaults they are left out of a space's hash."""


def _lr_by_form(raw: Any) -> Any:
    """Read `lr`: one rule for all forms, or a mapping form → rule. ValueError for unknown forms."""
    if isinstance(raw, dict) and not set(raw) & {"log", "range", "choose"}:
        for form in raw:
            if form not in FORMS:
                raise ValueError(f"form '{form}' unknown{did_you_mean(str(form), FORMS)}")
        return raw
    return dict.fromkeys(FORMS, raw)


def _trainable(**values: Any) -> None:
    """ValueError for values that `Training` refuses: they would end every trial that draws them."""
    try:
        Training(**values)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


class TrainChoices(Model):
    """Every field of `Training`: fixed, a choice, or a range."""

    lr: Annotated[dict[str, Numbers], BeforeValidator(_lr_by_form)] = Field(default_factory=dict)
    head_lr: Numbers = Values((1e-3,))
    batch_size: Numbers = Values((32,))
    weight_decay: Numbers = Values((0.01,))
    warmup: Numbers = Values((0.06,))
    max_grad_norm: Numbers = Values((1.0,))
    up_lr_ratio: Numbers = Values((1.0,))
    schedule: Names = Values(("constant",))
    label_smoothing: Numbers = Values((0.0,))
    accumulation: Numbers = Values((1,))
    batch_tokens: Numbers = Values((0,))
    precision: Names = Values(("fp32",))
    checkpointing: Flags = Values((False,))
    dropout: Numbers = Values((0.0,))
    max_length: Numbers = Values((0,))

    @field_validator("*")
    @classmethod
    def _usable(cls, values: Any, field: ValidationInfo) -> Any:
        name = str(field.field_name)
        if name == "lr":
            return values
        for value in values.extremes:
            whole = name in WHOLE_NUMBERS and values.is_range
            _trainable(**{name: int(value) if whole else value})
        return values

    @field_validator("lr")
    @classmethod
    def _usable_rates(cls, rules: dict[str, Values]) -> dict[str, Values]:
        for form, values in rules.items():
            for rate in values.extremes:
                _trainable(lr=((form, float(rate)),))
        return rules

    def suggest(self, trial: Suggester, name: str) -> Any:
        """A trial's value of one field, as a whole number where the field is one."""
        value = getattr(self, name).suggest(trial, name)
        return int(value) if name in WHOLE_NUMBERS else value

    def nearest(self, name: str, wanted: Any) -> Any:
        """The allowed value nearest to a wanted one."""
        value = getattr(self, name).nearest(wanted)
        return int(value) if name in WHOLE_NUMBERS else value

    def to_plain(self) -> dict[str, Any]:
        """Plain data, without later fields at their defaults: a space's hash stays what it was."""
        plain = self.model_dump(mode="json")
        fields = type(self).model_fields
        later = {n for n in LATER_FIELDS if getattr(self, n) == fields[n].default}
        return {name: value for name, value in plain.items() if name not in later}
