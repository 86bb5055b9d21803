"""MiniLM made small for the journey: fp16, and its table of words in int8 with a scale a row.

python pack.py pack FOLDER_OF_MODEL FILE.npz
python pack.py unpack FILE.npz FOLDER_OF_MODEL

From 83 MB to 31; `unpack` writes `model.safetensors` in fp32. NumPy and safetensors are enough.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

__all__ = ["pack", "unpack"]

_WORDS = "embeddings.word_embeddings.weight"
_SCALE = "scale/"


def pack(folder: Path, file: Path) -> None:
    """Write the model of `folder` to `file`."""
    packed: dict[str, NDArray[np.generic]] = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if name.endswith(_WORDS):
            scale = np.maximum(np.abs(value).max(1, keepdims=True), 1e-9) / 127
            packed[name] = np.round(value / scale).astype(np.int8)
            packed[_SCALE + name] = scale.astype(np.float32)
        else:
            packed[name] = value.astype(np.float16) if value.dtype == np.float32 else value
    np.savez_compressed(file, **packed)


def unpack(file: Path, folder: Path) -> None:
    """Write the model of `file` to `folder/model.safetensors`."""
    with np.load(file) as packed:
        whole = {
            name: _unpacked(packed[name], packed.get(_SCALE + name))
            for name in packed.files
            if not name.startswith(_SCALE)
        }
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})


def _unpacked(value: NDArray[np.generic], scale: NDArray[np.float32] | None) -> NDArray[np.generic]:
    """A tensor as it was: in fp32, or of integers as they are."""
    if scale is not None:
        return np.asarray(value * scale, np.float32)
    return value.astype(np.float32) if value.dtype == np.float16 else value


def main(arguments: list[str]) -> None:
    what, source, target = arguments
    {"pack": pack, "unpack": unpack}[what](Path(source), Path(target))


if __name__ == "__main__":
    main(sys.argv[1:])
