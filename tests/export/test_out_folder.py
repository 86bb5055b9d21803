"""What an export may be written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.errors import UsageError
from peftsearch.export.out_folder import clear, refuse_taken


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("adapter.safetensors", "README.md", "configuration.json"),
        ("adapter.safetensors",),  # a killed export
        ("adapter_model.safetensors", "README.md", "adapter_config.json", "head.safetensors"),
        ("adapter.safetensors", ".gitattributes"),
        (".git",),
    ],
    ids=str,
)
def test_a_new_folder_and_an_earlier_export_are_free(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    refuse_taken(tmp_path / "new")
    for name in names:
        (tmp_path / name).touch()
    refuse_taken(tmp_path)


def test_what_an_earlier_export_wrote_goes_and_nothing_else(
    tmp_path: Path,
) -> None:
    kept = (".gitattributes", "mine.txt")
    for name in ("adapter.safetensors", "configuration.json", "adapter_config.json", *kept):
        (tmp_path / name).touch()
    clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("README.md",), "README.md"),  # of someone's project
        (("configuration.json",), "configuration.json"),
        (("adapter.safetensors", "configuration.json", "result.json"), "result.json"),  # a trial
        (("good",), "good"),
    ],
    ids=str,
)
def test_a_folder_with_anything_else_is_taken(
    names: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=rf"other files in it \({told}\)"):
        refuse_taken(tmp_path)
