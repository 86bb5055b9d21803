"""The job scripts of docs/scale/: what they say is what their scheduler and our commands read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from peftsearch.cli.main import app
from peftsearch.disk.cache import DiskCache
from peftsearch.records.storage_name import VARIABLE

SCRIPTS = Path(__file__).parent.parent / "docs" / "scale"
SLURM, KUBERNETES = SCRIPTS / "slurm.sh", SCRIPTS / "kubernetes.yaml"

SBATCH = {
    "job-name": r"[\w.-]+",
    "array": r"\d+-\d+(%\d+)?",
    "ntasks": r"\d+",
    "cpus-per-task": r"\d+",
    "gres": r"gpu:(\w+:)?\d+",
    "mem": r"\d+[KMGT]?",
    "time": r"(\d+-)?\d{2}:\d{2}:\d{2}",
    "signal": r"(B:|R:|RB:)?[A-Z]+@\d+",
    "requeue": "",
    "open-mode": "append|truncate",
    "output": r"\S*%A\S*%a\S*",
}
"""Options of sbatch that a script may use, with the values that they take."""
QUANTITY = r"\d+(\.\d+)?(m|[EPTGMk]|[EPTGMK]i)?"
"""Of a resource, as Kubernetes writes it."""
CACHE = "PEFTSEARCH_CACHE"
STORAGE = "postgresql://me:s3cret$HOME@db/x?sslmode=require&connect_timeout=5"


def parameters_of(words: list[str]) -> dict[str, Any]:
    """What our command line makes of a command; fails as it would where it cannot be read."""
    assert words[0] == "peftsearch"
    command = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    parameters: dict[str, Any] = command.make_context(words[1], words[2:]).params
    return parameters


def run_slurm(
    folder: Path, *arguments: str, mode: int = 0o600, ends_with: int = 0
) -> tuple[subprocess.CompletedProcess[str], list[str], str]:
    """The script where `srun` only writes down what it is to start, and in which storage."""
    said, secrets = folder / "said", folder / "secrets.env"
    secrets.write_text(f"{VARIABLE}='{STORAGE}'\n")
    secrets.chmod(mode)
    srun = folder / "srun"
    srun.write_text(f'#!/bin/bash\nprintf "%s\\n" "${VARIABLE}" "$@" > {said}\nexit {ends_with}\n')
    srun.chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(folder),
        "TMPDIR": str(folder / "node"),
        "PEFTSEARCH_ENV": str(secrets),
        "SLURM_CPUS_PER_TASK": "4",
    }
    done = subprocess.run(
        ["bash", str(SLURM), *arguments], env=environment, capture_output=True, text=True
    )
    storage, *words = said.read_text().splitlines() if said.exists() else [""]
    return done, words, storage


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@needs_bash
def test_the_slurm_script_is_bash() -> None:
    done = subprocess.run(["bash", "-n", str(SLURM)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert SLURM.read_text().startswith("#!/bin/bash\n")


def test_every_option_of_sbatch_is_one_and_stands_before_the_first_command() -> None:
    lines = SLURM.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    asked = {n: line for n, line in enumerate(lines) if line.startswith("#SBATCH")}
    assert asked
    assert max(asked) < first
    for line in asked.values():
        found = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
        assert found is not None, line
        assert re.fullmatch(SBATCH[found[1]], found[2] or ""), line


@needs_bash
def test_a_slurm_task_is_one_worker_of_the_study_in_the_storage_of_the_file(
    tmp_path: Path,
) -> None:
    done, words, storage = run_slurm(tmp_path, "sst2")
    assert (done.returncode, done.stderr) == (0, "")
    assert storage == STORAGE
    assert words[0] == "--cpus-per-task=4"
    asked = parameters_of(words[1:])
    assert (asked["study"], asked["threads"], asked["device"]) == ("sst2", 4, "cuda")
    assert asked["studies"].is_relative_to(tmp_path / "node")
    assert "s3cret" not in " ".join(words) + done.stdout


@needs_bash
@pytest.mark.parametrize(("worker", "task"), [(0, 0), (130, 0), (1, 1), (3, 3)])
def test_a_slurm_task_ends_as_its_worker_but_well_when_it_was_told_to_go(
    tmp_path: Path, worker: int, task: int
) -> None:
    assert run_slurm(tmp_path, "sst2", ends_with=worker)[0].returncode == task


@needs_bash
def test_a_password_that_others_may_read_is_refused_and_a_study_is_wanted(tmp_path: Path) -> None:
    done, words, _ = run_slurm(tmp_path, "sst2", mode=0o644)
    assert done.returncode == 2
    assert "chmod 600" in done.stderr
    assert words == []
    done, words, _ = run_slurm(tmp_path)
    assert done.returncode != 0
    assert "usage: sbatch slurm.sh STUDY" in done.stderr
    assert words == []


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    documents = list(YAML(typ="safe").load_all(KUBERNETES.read_text()))
    return {document["kind"]: document for document in documents}


def test_the_kubernetes_file_is_a_job_and_its_volume(manifests: dict[str, dict[str, Any]]) -> None:
    versions = {kind: found["apiVersion"] for kind, found in manifests.items()}
    assert versions == {"PersistentVolumeClaim": "v1", "Job": "batch/v1"}
    for found in manifests.values():
        assert set(found) == {"apiVersion", "kind", "metadata", "spec"}
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", found["metadata"]["name"])
    claim = manifests["PersistentVolumeClaim"]["spec"]
    assert claim["accessModes"] == ["ReadWriteMany"]
    assert re.fullmatch(QUANTITY, claim["resources"]["requests"]["storage"])
    job = manifests["Job"]["spec"]
    assert set(job) == {"parallelism", "backoffLimit", "template"}
    assert job["parallelism"] >= 1
    assert job["backoffLimit"] >= job["parallelism"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "OnFailure"  # a Job takes no `Always`
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert set(pod) == {
        *("restartPolicy", "terminationGracePeriodSeconds", "automountServiceAccountToken"),
        *("containers", "volumes"),
    }


def test_a_pod_is_one_worker_in_the_storage_of_the_secret(
    manifests: dict[str, dict[str, Any]],
) -> None:
    pod = manifests["Job"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert set(container) == {"name", "image", "command", "env", "resources", "volumeMounts"}
    asked = parameters_of(container["command"])
    assert (asked["study"], asked["device"]) == ("sst2", "cuda")
    assert str(asked["threads"]) == container["resources"]["requests"]["cpu"]
    environment = {entry["name"]: entry for entry in container["env"]}
    assert set(environment) == {VARIABLE, CACHE, "HF_HOME"}
    assert environment[VARIABLE]["valueFrom"] == {
        "secretKeyRef": {"name": "peftsearch", "key": VARIABLE}
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    for path in (str(asked["studies"]), environment[CACHE]["value"]):
        assert path.startswith(mounts["scratch"] + "/")
    (claim,) = [v["persistentVolumeClaim"] for v in pod["volumes"] if "emptyDir" not in v]
    assert claim == {"claimName": manifests["PersistentVolumeClaim"]["metadata"]["name"]}


def test_a_pod_has_one_gpu_and_memory_that_it_may_fill(
    manifests: dict[str, dict[str, Any]],
) -> None:
    (container,) = manifests["Job"]["spec"]["template"]["spec"]["containers"]
    wanted, most = container["resources"]["requests"], container["resources"]["limits"]
    assert most["nvidia.com/gpu"] == 1
    assert wanted["memory"] == most["memory"]
    for amount in (*wanted.values(), *most.values()):
        assert re.fullmatch(QUANTITY, str(amount)), amount


@pytest.mark.parametrize("path", [SLURM, KUBERNETES])
def test_the_comments_name_commands_that_there_are(path: Path) -> None:
    begins = re.findall(r"# +(peftsearch .*)", path.read_text())
    assert begins
    for line in begins:
        words = line.replace("…", "").replace("--storage ", "").split()
        parameters = parameters_of(words)
        assert parameters["trials"] == 500
        assert parameters["artifacts"].startswith("/shared/")


def test_the_caches_are_where_the_scripts_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for path in (SLURM, KUBERNETES):
        assert CACHE in path.read_text()
    monkeypatch.setenv(CACHE, str(tmp_path))
    assert DiskCache("tokens", "NONE", default_gb=1).folder.is_relative_to(tmp_path)
