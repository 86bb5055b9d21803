"""The exact ways in which a frozen, shared backbone saves work: on by default, each switchable.

None of them changes what is computed (decision by test: fp64 runs agree to 1e-9 over 20 steps), so
they are no part of a configuration; they exist to be measured one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from peftsearch.errors import ConfigurationError, did_you_mean

__all__ = ["Optimisations"]


@dataclass(frozen=True)
class Optimisations:
    """Which are on."""

    buckets: bool = True
    """Batches of similar length in shuffled order; else of whatever length comes."""
    tokens: bool = True
    """Texts are tokenised once, before the first trial; else each time that they are read."""
    short_backward: bool = True
    """No gradients below the lowest modification; else down to the embeddings."""
    activations: bool = True
    """What the frozen layers below the lowest modification give is computed once and kept."""
    rows: bool = True
    """The last layer is computed only for the tokens that the head reads."""
    features: bool = True
    """A head alone is trained on pooled states that are computed once."""
    inference: bool = True
    """Evaluation in inference mode on large batches sorted by length; else on small ones as they
    come.
    """
    fused: bool = True
    """One fused optimiser call over all tuned tensors; else one a tensor."""
    fused_sum: bool = True
    """A bottleneck's last product scales Δh and adds it to h; else three passes over h."""
    graphs: bool = True
    """On a GPU shared passes are played from recordings, where that is right and faster."""
    allocator: bool = True
    """Freed memory stays with the process (glibc), within limits, instead of every large tensor
    being mapped anew. Once switched on, it holds for the rest of the process.
    """

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(optimisation.name for optimisation in fields(cls))

    @classmethod
    def none(cls) -> Optimisations:
        return cls(**dict.fromkeys(cls.names(), False))

    @classmethod
    def only(cls, *names: str) -> Optimisations:
        return replace(cls.none(), **cls._known(names, True))

    def without(self, *names: str) -> Optimisations:
        """Raises ConfigurationError for an unknown name."""
        return replace(self, **self._known(names, False))

    @classmethod
    def _known(cls, names: tuple[str, ...], on: bool) -> dict[str, bool]:
        for name in names:
            if name not in cls.names():
                raise ConfigurationError(
                    f"optimisation '{name}' unknown{did_you_mean(name, cls.names())}: "
                    f"{', '.join(cls.names())}"
                )
        return dict.fromkeys(names, on)
