"""Products in low precision: within what rounding may do, and refused where the CPU cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.savings import low_precision as module
from peftsearch.backbone.savings.low_precision import LOW_PRECISIONS, LowPrecision, low_precision
from peftsearch.errors import ConfigurationError, MissingError

pytestmark = pytest.mark.skipif(
    not all(p.is_here for p in LOW_PRECISIONS.values()), reason="needs VNNI and bf16 instructions"
)


def drawn(rows: int = 9, d_in: int = 40, d_out: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """x with rows of very different sizes, one of them positive; W; b."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(rows, d_in, generator=source) * torch.logspace(-2, 2, rows)[:, None]
    x[3] = x[3].abs()
    return x, torch.randn(d_out, d_in, generator=source), torch.randn(d_out, generator=source)


def test_int8_is_off_by_half_a_step_of_each_factor_at_most() -> None:
    x, weight, bias = drawn()
    y = LOW_PRECISIONS["int8"].packed(weight)(x, bias).double()
    exact = x.double() @ weight.double().T + bias.double()
    of_x = (x.amax(1).clamp(min=0) - x.amin(1).clamp(max=0)).double() / 255
    of_w = weight.abs().amax(1).double() / 127
    # |xw − x̃w̃| ≤ |x̃ − x| |w| + |x| |w̃ − w| + |x̃ − x| |w̃ − w|, and a rounded zero may move x by
    # another half.
    dx, dw = of_x[:, None], of_w[None, :] / 2
    bound = dx * weight.abs().double().sum(1) + dw * x.abs().double().sum(1)[:, None]
    bound += x.shape[1] * dx * dw
    assert (y - exact).abs().le(bound + 1e-5).all()
    assert ((y - exact).norm(dim=1) / exact.norm(dim=1)).max() < 0.02


def test_int8_is_the_product_of_whole_numbers() -> None:
    """x and W on their own grids: nothing is rounded, and a zero that is not 0 is taken out."""
    source = torch.Generator().manual_seed(1)
    levels = torch.randint(-55, 201, (5, 16), generator=source)
    levels[:, 0], levels[:, 1] = -55, 200
    whole = torch.randint(-127, 128, (8, 16), generator=source)
    whole[:, 0] = 127
    x, weight = levels * 0.25, whole * 0.5
    y = LOW_PRECISIONS["int8"].packed(weight)(x, None)
    assert torch.allclose(y, (levels @ whole.T) * 0.125, rtol=1e-6, atol=1e-3)


def test_bf16_is_off_by_a_rounding_of_each_factor_and_of_the_sum() -> None:
    x, weight, bias = drawn()
    y = LOW_PRECISIONS["bf16"].packed(weight)(x, bias).double()
    exact = x.double() @ weight.double().T + bias.double()
    size = x.abs().double() @ weight.abs().double().T + bias.abs().double()
    assert (y - exact).abs().le(3.1 * 2**-9 * size).all()
    assert (y - exact).abs().max() > 0


@pytest.mark.parametrize("name", LOW_PRECISIONS)
def test_rows_do_not_disturb_one_another(name: str) -> None:
    """Zeros give the bias, what is not a number stays in its row."""
    x, weight, bias = drawn()
    product = LOW_PRECISIONS[name].packed(weight)
    alone = product(x, bias)
    x[2], x[5, 7] = 0, torch.nan
    y = product(x, bias)
    rounded = bias if name == "int8" else bias.bfloat16().float()
    assert torch.equal(y[2], rounded)
    assert y[5].isnan().all()
    others = [0, 1, 3, 4, 6, 7, 8]
    assert torch.equal(y[others], alone[others])


def test_an_unknown_precision_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="'int9' unknown; did you mean 'int8'"):
        low_precision("int9")


def test_a_cpu_without_the_instructions_is_refused_with_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset({"avx2", "avx_vnni"}))
    low_precision("int8").refuse_if_missing()
    with pytest.raises(MissingError, match="one of avx512_bf16, amx_bf16"):
        low_precision("bf16").refuse_if_missing()


def test_any_one_instruction_will_do() -> None:
    assert LowPrecision("x", ("nothing", *module.cpu_flags()), lambda w: torch.add).is_here
    assert not LowPrecision("x", ("nothing",), lambda w: torch.add).is_here


@pytest.mark.parametrize("limit", ["SSE41", "avx2", "AVX512_CORE"])
@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_instructions_that_onednn_is_told_to_leave_alone_are_not_here(
    variable: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would sum 8-bit products in 16 bits then: wrong numbers, and no error."""
    flags = "flags : avx2 avx512_vnni avx512_bf16 avx_vnni amx_int8"
    monkeypatch.setattr(module.Path, "read_text", lambda path, encoding: flags)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    assert low_precision("int8").is_here
    monkeypatch.setenv(variable, limit)
    assert not low_precision("int8").is_here
    assert low_precision("bf16").is_here
    monkeypatch.setenv(variable, "AVX512_CORE_VNNI")
    assert low_precision("int8").is_here
