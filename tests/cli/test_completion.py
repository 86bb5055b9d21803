"""What a shell offers after TAB."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from peftsearch.backbone.loading.reference_configs import REFERENCES
from peftsearch.cli import completion
from peftsearch.policy.landmarks import LANDMARKS
from peftsearch.policy.table import POLICIES
from peftsearch.task.kinds.table import KINDS
from peftsearch.task.metrics.table import METRICS
from peftsearch.task.sources.demo import DEMO_TASKS
from peftsearch.task.sources.known import KNOWN_DATASETS
from peftsearch.training.optimisations import Optimisations

BIN = Path(sys.executable).parent
BASH = shutil.which("bash")
TRY = r"""
source <(_PEFTSEARCH_COMPLETE=source_bash peftsearch)
while IFS= read -r line; do
    read -ra COMP_WORDS <<< "$line"
    [[ $line == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    _peftsearch_completion peftsearch
    echo "${COMPREPLY[*]}"
done
"""


def test_names_written_down_for_speed_are_those_of_the_registries() -> None:
    assert tuple(KINDS) == completion.KINDS
    assert tuple(METRICS) == completion.METRICS
    assert tuple(REFERENCES) == completion.REFERENCES
    assert ("auto", *POLICIES) == completion.SAMPLERS
    assert LANDMARKS == completion.LANDMARKS
    assert tuple(field.name for field in fields(Optimisations)) == completion.OPTIMISATIONS
    assert (*DEMO_TASKS, *(known.name for known in KNOWN_DATASETS)) == completion.TASKS


@pytest.mark.slow
@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash_completes_commands_names_and_what_stands_behind_a_colon(tmp_path: Path) -> None:
    for name in ("mail", "mails", "news"):
        trial = tmp_path / "studies" / name / "trials" / "00012"
        trial.mkdir(parents=True)
        (trial / "result.json").write_text("{}")
        (tmp_path / "studies" / name / "study.json").write_text("{}")
    asked = {
        "peftsearch fron": "frontier",
        "peftsearch status ma": "mail mails",
        "peftsearch export mail OUT --to p": "peft",
        "peftsearch search unif": "unified",
        "peftsearch check tiny": "tiny-budget",
        "peftsearch show diff": "diff-pruning",
        "peftsearch show mail#": "mail#12",
        "peftsearch search unified --model de": "demo:minilm",
        "peftsearch search --model config : t5": "t5-base t5-v1_1-base",
        "peftsearch search --task demo :": "tweets bbc headlines",
        "peftsearch search --task demo : tw": "tweets",
        "peftsearch search --metric rou": "rouge2 rouge1 rougeL",
        "peftsearch search --sampler n": "nsga2",
        "peftsearch search --landmarks l": "lora",
        "peftsearch search --resume --study n": "news",
    }
    done = subprocess.run(
        [str(BASH), "-c", TRY],
        input="\n".join(asked) + "\n",
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert dict(zip(asked, done.stdout.splitlines(), strict=True)) == asked


def test_nothing_slow_is_imported_to_complete_a_name(tmp_path: Path) -> None:
    words = ["peftsearch", "show", "lor"]
    environment = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": "2"}
    script = (
        "import sys\nfrom peftsearch.cli.main import run\nsys.argv = ['peftsearch']\n"
        "try:\n    run([])\nexcept SystemExit:\n    pass\n"
        "slow = {'torch', 'optuna', 'pandas', 'numpy', 'transformers'}\n"
        "print(slow & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment | {"_PEFTSEARCH_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    *offered, slow = done.stdout.splitlines()
    assert {"lora", "lora-only"} <= set(offered)
    assert slow == "set()"
