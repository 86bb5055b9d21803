"""What a space file may say of a method to begin with."""

from __future__ import annotations

from typing import Any

import pytest

from peftsearch.space.file.seed_method import SeedMethod


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        ({"method": "mam", "widths": [30]}, "mam has 2 widths, not 1"),
        ({"method": "bitfit", "widths": [30]}, "bitfit has 0 widths, not 1"),
        ({"method": "lora", "widths": [8], "tuned_pct": 1}, "widths or tuned_pct, not both"),
        ({"method": "prefix", "s": 4}, "s: nothing of prefix is scaled"),
        ({"method": "lora", "reparametrise": "mlp"}, "reparametrise: lora has no prefix"),
        ({"method": "lora", "widths": [0]}, "greater than 0"),
    ],
)
def test_what_a_method_does_not_have_cannot_be_stated(
    stated: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        SeedMethod.model_validate(stated)
