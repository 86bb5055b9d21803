"""Training hyperparameters of a configuration: rates, batches, schedule, precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from peftsearch.design.checks import (
    check_flag,
    check_name,
    check_number,
    check_share,
    check_whole,
)
from peftsearch.design.form import FORMS
from peftsearch.design.forms.base import OMIT_DEFAULT
from peftsearch.errors import ConfigurationError

__all__ = ["Training"]

_FLOATS = (
    "head_lr",
    "weight_decay",
    "warmup",
    "max_grad_norm",
    "up_lr_ratio",
    "label_smoothing",
    "dropout",
)


@dataclass(frozen=True)
class Training:
    """Training hyperparameters. Learning rates are per functional form: one rate for all is unfair
    to prefixes and biases, which need larger ones (`Form.typical_lr`).

    Options that came later are left out of the JSON at their defaults (`OMIT_DEFAULT`), so that
    hashes of recorded configurations stay. Raises ConfigurationError for a value out of bounds, by
    name.

    >>> from peftsearch.design.training import Training
    >>> training = Training(lr=(("linear", 3e-4),))
    >>> training.lr_of("linear"), training.lr_of("prefix")  # the second is the form's typical rate
    (0.0003, 0.01)
    """

    lr: tuple[tuple[str, float], ...] = ()
    """(form, learning rate), sorted by form; a form not named uses its typical rate."""
    head_lr: float = 1e-3
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup: float = 0.06
    """Length of the linear warm-up, as a share of the full training length."""
    max_grad_norm: float = 1.0
    up_lr_ratio: float = field(default=1.0, metadata=OMIT_DEFAULT)
    """Learning rate of up-projections over that of the other tensors of their form: LoRA+ (Hayou et
    al. 2024, arXiv 2402.12354).
    """
    schedule: Literal["constant", "linear"] = field(default="constant", metadata=OMIT_DEFAULT)
    """Learning rate after the warm-up: `constant`, evaluated with averaged weights, so that a
    rung's value does not depend on the final length; or `linear`, falling to 0 at full length,
    which alone is evaluated.
    """
    label_smoothing: float = field(default=0.0, metadata=OMIT_DEFAULT)
    accumulation: int = field(default=1, metadata=OMIT_DEFAULT)
    """Pieces that a batch is computed in, to save memory; the step is the whole batch's."""
    batch_tokens: int = field(default=0, metadata=OMIT_DEFAULT)
    """Where above 0, in place of `batch_size`: tokens of a batch, that is its number of examples
    times the longest of them (the longer of input and target).
    """
    precision: Literal["fp32", "tf32", "bf16"] = field(default="fp32", metadata=OMIT_DEFAULT)
    """Precision of the frozen backbone; tuned tensors are fp32 always. With `tf32` it is held in
    fp32, and a GPU computes matrix products, those of modifications and head included, in TF32.
    """
    checkpointing: bool = field(default=False, metadata=OMIT_DEFAULT)
    """Whether activations are computed again in the backward pass: less memory, half the speed."""
    dropout: float = field(default=0.0, metadata=OMIT_DEFAULT)
    """Dropout of the whole backbone while training, attention included."""
    max_length: int = field(default=0, metadata=OMIT_DEFAULT)
    """Where above 0: tokens that a text is cut to, in place of the study's."""

    def __post_init__(self) -> None:
        for form, rate in self.lr:
            check_name("lr: form", form, tuple(FORMS))
            check_number(f"lr of {form}", rate, 0, 10)
        check_number("head_lr", self.head_lr, 0, 10)
        # The lower bound is exclusive: a little below 0 lets 0 in.
        check_number("weight_decay", self.weight_decay, -1e-12, 10)
        check_number("warmup", self.warmup, -1e-12, 1)
        check_number("max_grad_norm", self.max_grad_norm, 0, 1e9)
        if type(self.batch_size) is not int or not 1 <= self.batch_size <= 65536:
            raise ConfigurationError(f"batch_size {self.batch_size} is not between 1 and 65536")
        check_number("up_lr_ratio", self.up_lr_ratio, 0, 1e4)
        check_name("schedule", self.schedule, ("constant", "linear"))
        check_name("precision", self.precision, ("fp32", "tf32", "bf16"))
        check_share("label_smoothing", self.label_smoothing)
        check_share("dropout", self.dropout)
        for name, most in (("accumulation", 65536), ("batch_tokens", 2**31), ("max_length", 2**31)):
            check_whole(name, getattr(self, name), 1 if name == "accumulation" else 0, most)
        check_flag("checkpointing", self.checkpointing)
        for name in _FLOATS:
            # 1 and 1.0 are equal and must hash equal, but are different texts in JSON.
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "lr", tuple(sorted((f, float(r)) for f, r in self.lr)))

    @property
    def rungs_are_comparable(self) -> bool:
        """Whether a value at a rung says something about other lengths of training."""
        return self.schedule == "constant"

    def lr_of(self, form: str) -> float:
        """The learning rate of a form: the one named here, or its typical one."""
        return dict(self.lr).get(form, FORMS[form].typical_lr)
