"""The bytes of an adapter, from shapes alone, are those of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.methods import METHODS
from peftsearch.export.native import write_native
from peftsearch.training.model import TunedModel
from peftsearch.training.tensor_file import as_bytes
from support.backbones import backbone_at
from support.exports import package

OUTPUTS = 2


def bytes_of_export(backbone: Backbone, configuration: Configuration, folder: Path) -> int:
    """Bytes of the tensors in adapter.safetensors: without the header and its length."""
    with TunedModel(backbone, configuration, OUTPUTS) as model:
        content = as_bytes(model.stored(), {})
    write_native(folder, package(backbone, configuration), content)
    written = (folder / "adapter.safetensors").read_bytes()
    return len(written) - 8 - int.from_bytes(written[:8], "little")


@pytest.mark.parametrize("name", METHODS)
def test_stored_bytes_are_those_of_an_exports_tensors(
    name: str, tiny_bert: Path, tmp_path: Path
) -> None:
    backbone = backbone_at(tiny_bert, torch.float32)
    configuration = METHODS[name].configuration()
    found = bytes_of_export(backbone, configuration.within(backbone.shapes), tmp_path / "out")
    assert configuration.within(backbone.shapes).stored_bytes(backbone.shapes, OUTPUTS) == found


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_tuned_numbers_have_the_bytes_of_single_precision_or_of_the_backbones(
    dtype: torch.dtype, tiny_bert: Path, tmp_path: Path
) -> None:
    backbone = backbone_at(tiny_bert, dtype)
    configuration = METHODS["lora"].configuration(head=Head("first", "trained", True))
    found = bytes_of_export(backbone, configuration, tmp_path / "out")
    float_bytes = 8 if dtype == torch.float64 else 4
    assert configuration.stored_bytes(backbone.shapes, OUTPUTS, float_bytes) == found


def test_a_model_that_writes_text_has_no_head_to_store(tiny_bert: Path) -> None:
    shapes = backbone_at(tiny_bert).shapes
    none = METHODS["lora"].configuration(head=Head("none"))
    assert none.stored_bytes(shapes, 0) == 4 * none.tuned_parameters(shapes)
