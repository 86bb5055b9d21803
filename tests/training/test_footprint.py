"""What a worker needs, by hand for a small stack of layers; and what a machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.cli import doctor
from peftsearch.design.shapes import AttentionShape, BackboneShapes, FfnShape, TensorShape
from peftsearch.training.memory import footprint
from peftsearch.training.memory.footprint import Footprint, machine_bytes

MIB = 1 << 20
SHAPES = BackboneShapes(
    hidden=64,
    attention=tuple(AttentionShape(i, 64, 4, 4, 16, 64) for i in range(2)),
    ffn=tuple(FfnShape(i, 64, 256, 64) for i in range(2)),
    tensors=(TensorShape("weight", (1024, 1024)),),
)


def test_needs_are_added_up_by_hand() -> None:
    """2 layers keep 8 · 64 + 2 · 256 numbers of each of 32 · 256 positions: 2 · 1,024 · 8,192 · 4
    bytes = 64 MiB; a million weights are 4 MiB.
    """
    need = Footprint.of(SHAPES, batch=32, tokens=256)
    assert need.modified == (640 + 4 + 64) * MIB
    assert need.full == need.modified + 8 * 4 * MIB
    assert need.sparse == need.modified + 28 * 4 * MIB
    assert need.workers(1416 * MIB) == (2, 1, 1)


def test_batches_of_prompts_are_the_least_that_is_reckoned_with() -> None:
    """4,096 positions of a pass with a prompt, however short the texts."""
    assert Footprint.of(SHAPES, 32, 16).modified == (640 + 4 + 32) * MIB
    assert Footprint.of(SHAPES, 32, 128).modified == (640 + 4 + 32) * MIB


def test_a_container_has_what_it_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = machine_bytes()
    assert whole > 0
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(footprint, "_LIMIT", limit)
    physical = machine_bytes()
    assert physical >= whole
    limit.write_text("max\n")
    assert machine_bytes() == physical
    limit.write_text("1048576\n")
    assert machine_bytes() == MIB


def test_doctor_says_how_many_workers_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    need = Footprint.of(doctor_shapes(), 32, 128)
    monkeypatch.setattr(footprint, "machine_bytes", lambda: 3 * need.modified)
    rows = doctor._workers("config:roberta-base", 128)
    gib = need.modified / 2**30
    assert rows[0]["found"] == f"at most {gib:.1f} GiB, 3 fit"
    assert [row["ok"] for row in rows] == [
        True,
        need.full <= 3 * need.modified,
        need.sparse <= 3 * need.modified,
    ]


def doctor_shapes() -> BackboneShapes:
    from peftsearch.backbone.loading.load import load_shapes

    return load_shapes("config:roberta-base")
