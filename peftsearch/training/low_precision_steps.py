"""Low-precision steps: training and evaluations below full length, in a trial with low rungs.

After the last low rung everything is exact, and so is the evaluation at full length.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.savings.frozen_linear import frozen_layers_in
from peftsearch.backbone.savings.low_precision import LowPrecision, low_precision
from peftsearch.errors import ConfigurationError

__all__ = ["LowPrecisionSteps"]


@dataclass(frozen=True)
class LowPrecisionSteps:
    """Frozen layers are computed in `precision` up to the last low rung, at step `until`; exactly
    afterwards, or always with None.
    """

    backbone: Backbone
    precision: LowPrecision | None = None
    until: int = 0

    @classmethod
    def of(
        cls, backbone: Backbone, name: str | None, rung_steps: Iterable[int], full_steps: int
    ) -> LowPrecisionSteps:
        """The low-precision steps of a trial evaluated at `rung_steps`; none for `name` None.

        Raises MissingError if the CPU lacks the instructions, ConfigurationError if the backbone is
        not in fp32 on a CPU.
        """
        if name is None:
            return cls(backbone)
        precision = low_precision(name)
        if backbone.device.type != "cpu" or backbone.dtype != torch.float32:
            raise ConfigurationError(
                f"--low-rungs {name} is for backbones in fp32 on a CPU, not in "
                f"{backbone.dtype} on {backbone.device}"
            )
        precision.refuse_if_missing()
        until = max((step for step in rung_steps if step < full_steps), default=0)
        return cls(backbone, precision if until else None, until)

    def training(self, step: int) -> AbstractContextManager[None]:
        """Context for training the step that follows `step` steps."""
        return frozen_layers_in(self.backbone, self.precision if step < self.until else None)

    def evaluating(self, step: int) -> AbstractContextManager[None]:
        """Context for an evaluation after `step` steps."""
        return frozen_layers_in(self.backbone, self._evaluated_in(step))

    def evaluated_in(self, step: int) -> str | None:
        """The low precision of an evaluation after `step` steps; None: the backbone's own."""
        precision = self._evaluated_in(step)
        return None if precision is None else precision.name

    def _evaluated_in(self, step: int) -> LowPrecision | None:
        return self.precision if step <= self.until else None
