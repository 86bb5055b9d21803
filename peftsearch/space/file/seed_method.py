"""Seed methods in a space file: published methods, with their authors' settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from peftsearch.design.composition import Scaled
from peftsearch.design.forms.prefix import Prefix
from peftsearch.design.methods import METHODS
from peftsearch.errors import did_you_mean
from peftsearch.space.file.values import Model
from peftsearch.wording import counted

__all__ = ["SeedMethod", "as_seed"]


class SeedMethod(Model):
    """A method to begin with, at its authors' widths and typical rates unless others are given."""

    method: str
    tuned_pct: float | None = Field(None, gt=0, le=100)
    """Percent of the backbone's body that the widths are solved for."""
    widths: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    """A width for each modification that has one, in their order: `[30, 512]` for `mam`."""
    s: float | None = Field(None, gt=0)
    """Replaces the scale of its scaled modification."""
    reparametrise: Literal["direct", "mlp"] | None = None
    """Replaces how its prefix is trained."""
    lr: float | None = Field(None, gt=0, le=10)
    """Learning rate of every form; None: typical rates."""

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METHODS:
            raise ValueError(f"method '{name}' unknown{did_you_mean(name, METHODS)}")
        return name

    @model_validator(mode="after")
    def _has_what_is_stated(self) -> SeedMethod:
        modifications = METHODS[self.method].modifications
        count = sum(m.has_width for m in modifications)
        if self.widths is not None and self.tuned_pct is not None:
            raise ValueError("give widths or tuned_pct, not both: one follows from the other")
        if self.widths is not None and len(self.widths) != count:
            raise ValueError(f"{self.method} has {counted(count, 'width')}, not {len(self.widths)}")
        if self.s is not None and not any(isinstance(m.composition, Scaled) for m in modifications):
            raise ValueError(f"s: nothing of {self.method} is scaled")
        if self.reparametrise and not any(isinstance(m.form, Prefix) for m in modifications):
            raise ValueError(f"reparametrise: {self.method} has no prefix")
        return self


def as_seed(raw: Any) -> Any:
    """Read a bare name as the method with nothing else given."""
    return {"method": raw} if isinstance(raw, str) else raw
