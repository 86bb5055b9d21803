"""Attention over learned vectors: prefixes (in every attention) and prompts (in the input)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from peftsearch.design.checks import check_name
from peftsearch.design.forms.base import OMIT_DEFAULT, Form, Shapes, Source
from peftsearch.design.shapes import SiteShape
from peftsearch.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Prefix", "PrefixRelu", "Prompt"]

_MAX_LENGTH = 512
"""Longest prefix that a budget is solved for."""


@dataclass(frozen=True)
class Prefix(Form):
    """Δh = softmax(q P_kᵀ) P_v: attention over l learned keys and values (Li and Liang 2021, arXiv
    2101.00190; as Δh in He et al. 2022, Table 1).

    The source is the scaled queries [batch, heads, tokens, head_dim] (times 1/√head_dim, or the
    model's own factor), and Δh has their shape. Tensors: `keys` and `values`, each [kv_heads, l,
    head_dim]; grouped-query attention shares a prefix among the query heads of one group.
    Parameters: 2 l kv_heads head_dim a site.
    With `init: zero` P_v begins at zero, so an ungated prefix begins as the identity; under the
    exact gate the zero values still take attention from the tokens.

    `mlp`: hidden units of the re-parametrisation (Li and Liang, section 4.3): one embedding [l, d]
    and an MLP with tanh, shared by all sites, are trained in place of the keys and values, which
    alone are stored and counted. Raises ConfigurationError for an `mlp` below 1.

    >>> import torch
    >>> from peftsearch.design.form import Prefix
    >>> tensors = {"keys": torch.zeros(2, 5, 8), "values": torch.ones(2, 5, 8)}  # l = 5
    >>> Prefix().delta(tensors, torch.ones(1, 4, 3, 8)).shape  # 4 query heads share 2 prefixes
    torch.Size([1, 4, 3, 8])
    """

    mlp: int | None = field(default=None, metadata=OMIT_DEFAULT)
    init: Literal["zero", "normal"] = field(default="zero", metadata=OMIT_DEFAULT)

    name: ClassVar[str] = "prefix"
    width_symbol: ClassVar[str | None] = "l"
    typical_lr: ClassVar[float] = 1e-2
    is_softmax: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_name("prefix init", self.init, ("zero", "normal"))
        if self.mlp is not None and (type(self.mlp) is not int or self.mlp < 1):
            raise ConfigurationError(f"prefix mlp {self.mlp} is not a number of hidden units")

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        shape = (site.kv_heads, width, site.head_dim)
        return {"keys": shape, "values": shape}

    def trained(self, sources: Sequence[Source], width: int) -> Shapes | None:
        """One embedding and MLP in place of every site's keys and values; None without `mlp`.

        `out` [mlp, Σ 2 kv_heads head_dim] has the columns of the sites side by side.
        """
        if self.mlp is None:
            return None
        d = max(site.d_sublayer for site, _ in sources)
        outputs = sum(2 * site.kv_heads * site.head_dim for site, _ in sources)
        return {
            "embedding": (width, d),
            "in": (d, self.mlp),
            "in_bias": (self.mlp,),
            "out": (self.mlp, outputs),
            "out_bias": (outputs,),
        }

    def expand(
        self, trained: Mapping[str, Tensor], first: int, shape: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """One site's keys and values, each of `shape` [kv_heads, l, head_dim], from column `first`
        of the MLP's output on.
        """
        heads, width, head_dim = shape
        hidden = (trained["embedding"][:width] @ trained["in"] + trained["in_bias"]).tanh()
        columns = slice(first, first + 2 * heads * head_dim)
        both = hidden @ trained["out"][:, columns] + trained["out_bias"][columns]
        keys, values = both.view(width, 2, heads, head_dim).permute(1, 2, 0, 3)
        return {"keys": keys, "values": values}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        if name.endswith("bias") or (self.init == "zero" and name == "values"):
            tensor.zero_()
        elif name in ("in", "out"):
            tensor.normal_(0.0, tensor.shape[0] ** -0.5, generator=generator)
        else:
            tensor.normal_(0.0, 1.0, generator=generator)

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """Δh [batch, heads, tokens, head_dim] for scaled queries of the same shape."""
        keys, values = tensors["keys"], tensors["values"]
        groups = source.shape[1] // keys.shape[0]  # query heads that share one prefix
        if groups > 1:
            keys, values = (t.repeat_interleave(groups, dim=0) for t in (keys, values))
        return self.weights(source @ keys.transpose(-1, -2)) @ values

    def weights(self, logits: Tensor) -> Tensor:
        """The weights of the l values, from logits of the same shape [batch, heads, tokens, l]."""
        return logits.softmax(-1)

    def max_width(self, site: SiteShape, d_source: int) -> int:
        return _MAX_LENGTH

    @property
    def identity_at_init(self) -> bool:
        return self.init == "zero" and self.mlp is None

    def describe(self) -> str:
        return f"mlp {self.mlp}" if self.mlp else ""


@dataclass(frozen=True)
class PrefixRelu(Prefix):
    """Δh = ReLU(q P_kᵀ) P_v: the multi-head parallel adapter (He et al. 2022, Table 1 and section
    4.3).

    A prefix whose weights do not sum to one, so that no gate belongs to it; W_q is the frozen one.
    Shapes are a prefix's. Parameters: 2 l kv_heads head_dim a site. The queries come scaled by the
    model's factor, which P_k absorbs.

    >>> import torch
    >>> from peftsearch.design.form import PrefixRelu
    >>> tensors = {"keys": torch.tensor([[[1.0], [-1.0]]]), "values": torch.ones(1, 2, 1)}
    >>> PrefixRelu().delta(tensors, torch.full((1, 1, 1, 1), 3.0))  # only the first key agrees
    tensor([[[[3.]]]])
    """

    name: ClassVar[str] = "prefix_relu"
    is_softmax: ClassVar[bool] = False

    def weights(self, logits: Tensor) -> Tensor:
        return logits.relu()


@dataclass(frozen=True)
class Prompt(Form):
    """l learned vectors before the token embeddings: prompt tuning (Lester et al. 2021, arXiv
    2104.08691).

    In He et al.'s terms: a prefix at the first layer's input alone, which the layers above read
    like any token. Tensors: `prompt` [l, d_h]. Parameters: l d_h, with d_h the embeddings' width.
    Begins as embeddings of random tokens.

    >>> from peftsearch.design.form import Prompt
    >>> from peftsearch.design.shapes import SiteShape
    >>> Prompt().tensors(SiteShape("embedding", "embedding", None, d_h=8), d_source=0, width=20)
    {'prompt': (20, 8)}
    """

    name: ClassVar[str] = "prompt"
    width_symbol: ClassVar[str | None] = "l"
    typical_lr: ClassVar[float] = 3e-2
    decays: ClassVar[bool] = False

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        return {"prompt": (width, site.d_h)}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        tensor.normal_(0.0, 0.02, generator=generator)

    def initialise_site(
        self,
        tensors: Mapping[str, Tensor],
        generator: Generator,
        pretrained: Callable[[], Tensor],
    ) -> dict[str, Tensor]:
        """Embeddings of random tokens, of `pretrained()` [vocabulary, d_h]."""
        from torch import randint

        vocabulary, prompt = pretrained(), tensors["prompt"]
        tokens = randint(len(vocabulary), (len(prompt),), generator=generator)
        prompt.copy_(vocabulary[tokens.to(vocabulary.device)])
        return {}

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """Always raises ConfigurationError: `backbone/attach/prompt.py` inserts the vectors."""
        raise ConfigurationError("a prompt is read by the layers above: it has no Δh")

    def max_width(self, site: SiteShape, d_source: int) -> int:
        return site.longest

    @property
    def identity_at_init(self) -> bool:
        return False
