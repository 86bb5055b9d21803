"""What a user installs: the wheel's content, the version, an import that loads nothing heavy."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

import peftsearch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this tree, built without network."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("needs hatchling, which the dev extra installs")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--no-index", "-w", str(folder), str(ROOT)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_the_wheel_carries_every_shipped_space(wheel: zipfile.ZipFile) -> None:
    spaces = {f"peftsearch/_spaces/{path.name}" for path in (ROOT / "spaces").glob("*.yaml")}
    assert spaces <= set(wheel.namelist())
    assert not [name for name in wheel.namelist() if name.startswith("spaces/")]


@pytest.mark.slow
def test_the_wheel_carries_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "peftsearch").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "peftsearch/py.typed" in files
    assert files <= set(wheel.namelist())


@pytest.mark.slow
def test_the_wheel_carries_nothing_but_the_package(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {
        "peftsearch",
        f"peftsearch-{peftsearch.__version__}.dist-info",
    }


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "torch transformers optuna pandas numpy plotly datasets pydantic rich tqdm typer"
    code = f"import sys, peftsearch; print(sorted(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_a_search_with_a_wrong_option_is_refused_before_torch_is_imported() -> None:
    code = (
        "import sys, peftsearch\n"
        "try:\n    peftsearch.search('demo', 'demo:minilm', train='nothing.csv', progress=False)\n"
        "except peftsearch.DataError as error:\n    print(error)\n"
        "print(sorted({'torch', 'transformers', 'optuna', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["nothing.csv: no such file", "[]"], done.stderr


def test_load_is_public_and_an_unknown_name_is_an_attribute_error() -> None:
    from peftsearch.export.native import load

    assert peftsearch.load is load
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = peftsearch.lode


def test_the_changelog_has_an_entry_for_this_version() -> None:
    assert f"## [{peftsearch.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_torch_is_pinned_to_an_exact_version_without_a_build_suffix() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert [pin for pin in pins if pin.startswith("torch==")] == ["torch==2.13.0"]


def test_every_direct_dependency_is_pinned_in_the_constraints() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in map(Requirement, chain.from_iterable(groups)):
        if requirement.name != "peftsearch":
            assert versions[canonicalize_name(requirement.name)] in requirement.specifier
