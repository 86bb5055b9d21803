"""Dimension 1, the functional form: the function that computes Δh (He et al. 2022, Table 1).

One class in `design/forms/` and one line in `FORMS` make a new one (docs/extending.md).
"""

from __future__ import annotations

from peftsearch.design.forms.base import Form
from peftsearch.design.forms.bottleneck import Bottleneck, Gelu, Linear, Relu, Silu, Swiglu
from peftsearch.design.forms.constant import Constant, Dense, Sparse
from peftsearch.design.forms.kronecker import Kronecker
from peftsearch.design.forms.loreft import Loreft
from peftsearch.design.forms.prefix import Prefix, PrefixRelu, Prompt
from peftsearch.design.forms.rescale import Rescale
from peftsearch.design.forms.vera import Vera

__all__ = [
    "FORMS",
    "Bottleneck",
    "Constant",
    "Dense",
    "Form",
    "Gelu",
    "Kronecker",
    "Linear",
    "Loreft",
    "Prefix",
    "PrefixRelu",
    "Prompt",
    "Relu",
    "Rescale",
    "Silu",
    "Sparse",
    "Swiglu",
    "Vera",
]

# Where two forms read the same vector at one place, they are installed in this order.
FORMS: dict[str, type[Form]] = {
    form.name: form
    for form in (
        Linear,
        Relu,
        Gelu,
        Silu,
        Swiglu,
        Prefix,
        PrefixRelu,
        Prompt,
        Constant,
        Rescale,
        Loreft,
        Kronecker,
        Vera,
        Dense,
        Sparse,
    )
}
