"""Facts of the machine: versions, ceilings of products and copies, and costs of single calls.

python facts.py
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from common import DEVICE, ON_GPU, Facts
from timing import call_ms, wait
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear, scaled_dot_product_attention

from peftsearch.version import __version__

_PACKAGES = "torch transformers peft accelerate numpy safetensors tokenizers huggingface_hub optuna"
_SMI = (
    "name,driver_version,memory.total,pstate,clocks.sm,clocks.max.sm,power.limit,temperature.gpu,"
    "compute_mode,mig.mode.current"
)
_PRECISIONS = (
    ("fp32", torch.float32, "highest"),
    ("tf32", torch.float32, "high"),
    ("bf16", torch.bfloat16, "highest"),
)
_PRODUCTS = (
    (4096, 4096, 4096),
    *((1024, 384, 384), (16384, 384, 384), (16384, 384, 1536), (16384, 1536, 384)),
)
"""A large square one, and those of MiniLM for 1 and 16 members of 1,024 tokens each."""
if not ON_GPU:
    _PRODUCTS = ((64, 64, 64),)
_CALLS = 500


def machine() -> dict[str, object]:
    """Date, versions, processor and, where there is one, GPU."""
    facts: dict[str, object] = {name: _version(name) for name in _PACKAGES.split()}
    facts |= {"peftsearch": __version__, "python": platform.python_version()}
    facts |= {"date": datetime.now(UTC).date().isoformat(), "cores": os.cpu_count(), "cpu": _cpu()}
    return facts | gpu() if ON_GPU else facts


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((s.split(":")[1].strip() for s in lines if "model name" in s), "unknown")


def gpu() -> dict[str, object]:
    """The GPU as torch and nvidia-smi see it."""
    own = torch.cuda.get_device_properties(0)
    asked = ["nvidia-smi", f"--query-gpu={_SMI}", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=20)
    return {
        "gpu": own.name,
        "SMs": own.multi_processor_count,
        "gib": own.total_memory / 2**30,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nvidia-smi": _by_name(found.stdout) if not found.returncode else found.stderr,
    }


def _by_name(csv: str) -> dict[str, str]:
    """Values of the first GPU by what was asked for."""
    first, *_ = csv.splitlines()
    return dict(zip(_SMI.split(","), first.split(", "), strict=True))


def products() -> dict[str, dict[str, float]]:
    """TFLOP/s of x Wᵀ, by shape m×k×n and precision."""
    found: dict[str, dict[str, float]] = {}
    for precision, dtype, of_fp32 in _PRECISIONS:
        torch.set_float32_matmul_precision(of_fp32)
        for m, k, n in _PRODUCTS:
            x, w = (torch.randn(s, device=DEVICE, dtype=dtype) for s in ((m, k), (n, k)))
            ms = call_ms(lambda x=x, w=w: linear(x, w))
            row = found.setdefault(f"{m}x{k}x{n}", {})
            row[precision] = round(2 * m * k * n / ms / 1e9, 1)
    torch.set_float32_matmul_precision("highest")
    return found


def copies() -> dict[str, float]:
    """GB/s of a copy on the device; microseconds that calls of several kinds cost the host."""
    large = torch.empty((1 << 30) if ON_GPU else 1 << 20, device=DEVICE, dtype=torch.uint8)
    other = torch.empty_like(large)
    x, host = torch.ones(32, 384, device=DEVICE), torch.ones(1024, 32, dtype=torch.int64)
    calls: dict[str, Callable[[], object]] = {"add": lambda: x + 1, "item": lambda: x[0, 0].item()}
    if ON_GPU:
        calls["pin and send"] = lambda: host.pin_memory().to(DEVICE, non_blocking=True)
        calls["send unpinned"] = lambda: host.to(DEVICE)
    # Bytes are read and written.
    found = {"device_gb_s": 2 * large.numel() / call_ms(lambda: other.copy_(large)) / 1e6}
    found |= {f"{name}, host_us": _host_us(call) for name, call in calls.items()}
    return {name: round(value, 1) for name, value in found.items()}


def _host_us(call: Callable[[], object]) -> float:
    for _ in range(20):
        call()
    wait()
    began = time.perf_counter()
    for _ in range(_CALLS):
        call()
    spent = time.perf_counter() - began
    wait()
    return spent / _CALLS * 1e6


def attention() -> dict[str, object]:
    """Milliseconds of attention, forward and backward: 16 texts of 512 tokens, 32 heads of 64; with
    a mask and causal; and the first call of another shape, which cuDNN plans for.
    """
    found: dict[str, object] = {}
    texts, length = (16, 512) if ON_GPU else (2, 32)
    for dtype in (torch.bfloat16, torch.float32):
        for masked in (False, True):
            name = f"{str(dtype).removeprefix('torch.')} {'mask' if masked else 'causal'}"
            found[f"{name}, ms"] = round(call_ms(_attend(texts, length, dtype, masked), 10), 3)
            other = _attend(texts + 1, length - 16, dtype, masked)
            wait()
            began = time.perf_counter()
            other()
            wait()
            found[f"{name}, first of a shape, ms"] = round((time.perf_counter() - began) * 1000, 1)
    return found | (_by_kernel(texts, length) if ON_GPU else {})


def _attend(texts: int, length: int, dtype: torch.dtype, masked: bool) -> Callable[[], object]:
    heads, wide = (32, 64) if ON_GPU else (2, 8)

    def drawn() -> Tensor:
        shape = (texts, heads, length, wide)
        return torch.randn(shape, device=DEVICE, dtype=dtype, requires_grad=True)

    q, k, v = drawn(), drawn(), drawn()
    causal = torch.ones(texts, 1, length, length, device=DEVICE, dtype=torch.bool).tril()
    mask = causal if masked else None
    return lambda: (
        scaled_dot_product_attention(q, k, v, mask, is_causal=not masked).sum().backward()
    )


def _by_kernel(texts: int, length: int) -> dict[str, object]:
    """The same in bf16 by each of torch's implementations, or the reason why it cannot."""
    found: dict[str, object] = {}
    for kernel in (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
    ):
        for masked in (False, True):
            name = f"bfloat16 {'mask' if masked else 'causal'}, {kernel.name}, ms"
            try:
                with sdpa_kernel(kernel):
                    ms = call_ms(_attend(texts, length, torch.bfloat16, masked), 10)
                found[name] = round(ms, 3)
            except RuntimeError as error:
                found[name] = str(error).split("\n")[0][:60]
    return found


def main() -> None:
    facts = Facts("facts")
    for measure in (machine, products, copies, attention):
        facts.add(measure.__name__, measure)
    facts.finish()


if __name__ == "__main__":
    main()
