"""docs/families.md is what its generator writes."""

from __future__ import annotations

import pytest

from support.families_page import PAGE, page


@pytest.mark.slow
def test_the_committed_page_is_what_the_matrix_gives_when_it_passes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.slow
def test_a_failing_check_would_show_in_its_cell() -> None:
    def failing(family: str, check: str) -> list[str]:
        return ["lora: wrong"] if (family, check) == ("gpt2", "save_and_load") else []

    (line,) = [line for line in page(failing).splitlines() if "`lora`" in line]
    assert "✗ save and load" in line
