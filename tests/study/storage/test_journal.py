"""The journal loads after every kill, failed write and cut-off line."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from peftsearch.disk.locks import lock_descriptor
from peftsearch.errors import MissingError, PeftsearchError, UsageError
from peftsearch.study.storage.journal import JournalFile, open_journal

pytestmark = pytest.mark.internals


def log(number: int, text: str = "") -> dict[str, Any]:
    return {"op_code": 2, "number": number, "text": text}


def logs_in(path: Path) -> list[dict[str, Any]]:
    return list(JournalFile(path).read_logs(0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.log"
    path.touch()
    return path


@pytest.fixture
def journal(path: Path) -> JournalFile:
    """Three logs in the file."""
    journal = JournalFile(path)
    for number in range(3):
        journal.append_logs([log(number)])
    return journal


# -- as an Optuna storage ----------------------------------------------------------------------


def test_a_study_is_read_back(path: Path) -> None:
    study = optuna.create_study(storage=open_journal(path), directions=["maximize", "minimize"])
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), t.suggest_int("n", 1, 9)), n_trials=5)
    again = optuna.load_study(study_name=study.study_name, storage=open_journal(path))
    assert [t.values for t in again.trials] == [t.values for t in study.trials]


def test_optunas_own_backend_reads_the_file(path: Path) -> None:
    study = optuna.create_study(storage=open_journal(path))
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=3)
    stock = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    again = optuna.load_study(study_name=study.study_name, storage=stock)
    assert [t.value for t in again.trials] == [t.value for t in study.trials]


def test_two_storages_see_one_another(path: Path) -> None:
    study = optuna.create_study(storage=open_journal(path))
    other = optuna.load_study(study_name=study.study_name, storage=open_journal(path))
    for _ in range(3):
        study.tell(study.ask(), 1.0)
        other.tell(other.ask(), 2.0)
    assert [t.value for t in study.trials] == [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    assert len(other.trials) == 6


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", range(4))
def test_logs_are_read_from_any_number(journal: JournalFile, start: int) -> None:
    for _ in range(2):
        assert [entry["number"] for entry in journal.read_logs(start)] == list(range(start, 3))


def test_a_reader_that_stopped_early_goes_on_there(journal: JournalFile) -> None:
    assert next(iter(journal.read_logs(0)))["number"] == 0
    assert [entry["number"] for entry in journal.read_logs(1)] == [1, 2]


def test_a_line_being_written_is_not_read_before_it_is_complete(
    journal: JournalFile, path: Path
) -> None:
    line = json.dumps(log(3)).encode() + b"\n"
    with open(path, "ab", buffering=0) as writer:
        for byte in range(len(line)):
            assert list(journal.read_logs(3)) == []
            writer.write(line[byte : byte + 1])
    assert list(journal.read_logs(3)) == [log(3)]


def test_a_writer_suspended_while_writing_does_not_stop_readers(
    journal: JournalFile, path: Path
) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        assert lock_descriptor(descriptor, path, exclusive=True, timeout_s=0)
        assert len(list(journal.read_logs(0))) == 3
    finally:
        os.close(descriptor)


def test_reading_alone_changes_nothing(journal: JournalFile, path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)
    before = path.read_bytes()
    assert len(logs_in(path)) == 2
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["journal.log"]


def test_an_empty_journal_has_no_studies(path: Path) -> None:
    assert open_journal(path).get_all_studies() == []


def test_a_missing_journal_is_an_error_that_says_where_results_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"journal\.log: the study's journal is missing; .*trials"):
        open_journal(tmp_path / "journal.log")
    assert os.listdir(tmp_path) == []


def test_a_journal_deleted_during_a_search_is_not_begun_anew(
    journal: JournalFile, path: Path
) -> None:
    path.unlink()
    with pytest.raises(UsageError, match="missing"):
        journal.append_logs([log(3)])
    assert not path.exists()


def test_a_journal_is_created_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    assert open_journal(path, create=True).get_all_studies() == []
    assert path.exists()


def test_an_unreadable_journal_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "journal.log").mkdir()
    with pytest.raises(MissingError, match="cannot be read"):
        open_journal(tmp_path / "journal.log")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_journal_without_permission_is_said_in_a_sentence(path: Path) -> None:
    path.chmod(0)
    with pytest.raises(MissingError, match="Permission denied"):
        open_journal(path)


def test_a_journal_that_became_shorter_is_noticed(journal: JournalFile, path: Path) -> None:
    assert len(list(journal.read_logs(0))) == 3
    os.truncate(path, 5)
    with pytest.raises(PeftsearchError, match="truncated while"):
        list(journal.read_logs(3))


# -- cut-off and damaged lines -----------------------------------------------------------------


def test_a_line_cut_at_any_byte_goes_with_the_next_append(path: Path) -> None:
    for number in range(3):
        JournalFile(path).append_logs([log(number, "é∥")])
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last + 1):
        path.write_bytes(whole[: len(whole) - cut])
        JournalFile(path).append_logs([log(9)])
        assert [entry["number"] for entry in logs_in(path)] == [0, 1, 9], cut


def test_what_was_cut_is_kept(journal: JournalFile, path: Path) -> None:
    for text in ('{"op_co', '{"x'):
        with open(path, "a") as file:
            file.write(text)
        journal.append_logs([log(9)])
    assert (path.parent / "journal.torn").read_text() == '{"op_co\n{"x\n'


def test_a_live_reader_goes_on_over_a_cut(journal: JournalFile, path: Path) -> None:
    assert len(list(journal.read_logs(0))) == 3
    with open(path, "a") as file:
        file.write('{"op_co')
    assert list(journal.read_logs(3)) == []
    JournalFile(path).append_logs([log(3)])
    assert list(journal.read_logs(3)) == [log(3)]


@pytest.mark.parametrize(
    "line", [b"\0" * 40, b"\xff\xfe", b"[1]", b"17", b"{}", b"", b'{"op_code":2', b"[" * 200000]
)
def test_a_damaged_last_line_is_left_out_and_cut(
    journal: JournalFile, path: Path, line: bytes
) -> None:
    with open(path, "ab") as file:
        file.write(line + b"\n")
    assert len(logs_in(path)) == 3
    journal.append_logs([log(3)])
    assert [entry["number"] for entry in logs_in(path)] == [0, 1, 2, 3]


def test_a_damaged_line_in_the_middle_is_named_with_a_way_out(
    journal: JournalFile, path: Path
) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0\0\n" + lines[2])
    with pytest.raises(PeftsearchError, match=r"journal\.log:2: this line is damaged") as raised:
        logs_in(path)
    command = str(raised.value).split("`")[1]
    subprocess.run(command, shell=True, cwd=path.parent, check=True)
    assert logs_in(path) == [log(0)]


def test_a_damaged_line_is_named_by_its_number_after_a_partial_read(
    journal: JournalFile, path: Path
) -> None:
    assert len(list(journal.read_logs(0))) == 3
    with open(path, "ab") as file:
        file.write(b"\0\n" + json.dumps(log(4)).encode() + b"\n")
    with pytest.raises(PeftsearchError, match=r"journal\.log:4:"):
        list(journal.read_logs(3))


@pytest.mark.parametrize(
    "spoilt", [{"number": {}}, {"trial_id": 10**6, "op_code": 4}, {"op_code": 99}]
)
def test_a_line_that_is_no_log_of_optunas_is_said_in_a_sentence(
    path: Path, spoilt: dict[str, Any]
) -> None:
    optuna.create_study(storage=open_journal(path), study_name="s").ask()
    with open(path, "ab") as file:
        file.write(json.dumps({"op_code": 6, "worker_id": "x", "trial_id": 0} | spoilt).encode())
        file.write(b"\n" + path.read_bytes().splitlines()[0] + b"\n")
    with pytest.raises(
        PeftsearchError, match=r"not an Optuna log entry .* restore the file from a copy"
    ):
        open_journal(path)


@pytest.mark.parametrize(
    "spoilt",
    [
        *({"param_name": 5}, {"distribution": {}}, {"param_value_internal": "1"}),
        *({"user_attr": []}, {"trial_id": "0"}, {"trial_id": []}, {"study_id": 0.5}),
        *({"values": 1.0}, {"values": ["high", 1.0]}, {"state": None}, {"datetime_start": 12}),
        *({"worker_id": None}, {"directions": "maximize"}, {"op_code": "4"}),
    ],
    ids=str,
)
def test_a_log_with_a_value_that_optuna_never_writes_is_damaged(
    journal: JournalFile, path: Path, spoilt: dict[str, Any]
) -> None:
    """Optuna takes it as it is, and fails much later, or not at all."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + json.dumps(log(1) | spoilt).encode() + b"\n" + lines[2])
    with pytest.raises(PeftsearchError, match=r"journal\.log:2: this line is damaged"):
        logs_in(path)


def test_every_log_that_optuna_writes_is_read(path: Path) -> None:
    study = optuna.create_study(storage=open_journal(path), directions=["maximize", "minimize"])
    study.set_user_attr("info", {"deep": [None, 1.5]})
    study.enqueue_trial({"a": 0.5}, user_attrs={"seed": "lora"})
    for number in range(4):
        trial = study.ask()
        trial.suggest_float("a", 0.1, 10.0, log=True)
        trial.suggest_int("b", 1, 64)
        trial.suggest_categorical("c", ["none", 3, 2.5, None, True])
        trial.set_user_attr("any", number)
        trial.set_constraint("budget", 0.25)
        if number < 2:
            study.tell(trial, (float("inf"), -number))
        elif number == 2:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    lines = len(path.read_bytes().splitlines())
    assert lines >= 30
    assert len(logs_in(path)) == lines
    again = optuna.load_study(study_name=study.study_name, storage=open_journal(path))
    assert [t.params for t in again.trials] == [t.params for t in study.trials]


# -- stale locks -------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", ["file", "link", "dangling link"])
def test_a_stale_lock_of_optuna_and_a_relative_path_block_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, stale: str
) -> None:
    beside = path.with_name("journal.log.lock")
    if stale == "file":
        beside.touch()
    else:
        beside.symlink_to("journal.log" if stale == "link" else "elsewhere/journal.log")
    monkeypatch.chdir(path.parent)
    journal = JournalFile(Path("journal.log"))
    monkeypatch.chdir("/")
    worker = threading.Thread(target=journal.append_logs, args=([log(0)],), daemon=True)
    worker.start()
    worker.join(10)
    assert not worker.is_alive()
    assert logs_in(path) == [log(0)]


# -- failed writes -----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("allowed", [0, 1, 20])
def test_a_write_that_fails_half_way_is_taken_back(
    journal: JournalFile,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: int,
    code: int,
) -> None:
    before, real_write = path.read_bytes(), os.write
    taken = 0

    def write(descriptor: int, content: bytes) -> int:
        nonlocal taken
        if taken >= allowed:
            raise OSError(code, os.strerror(code))
        taken += real_write(descriptor, bytes(content)[:allowed])
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(MissingError, match=rf"journal\.log: .*{os.strerror(code)}"):
            journal.append_logs([log(3)])
    assert path.read_bytes() == before
    journal.append_logs([log(4)])
    assert [entry["number"] for entry in logs_in(path)] == [0, 1, 2, 4]


def test_a_write_that_can_not_be_taken_back_is_cut_by_the_next(
    journal: JournalFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    real_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", fails)
        patch.setattr(os, "write", lambda d, c: fails() if len(c) < 16 else real_write(d, c[:8]))
        with pytest.raises(MissingError):
            journal.append_logs([{"op_code": 2, "n": 1}])
    assert not path.read_bytes().endswith(b"\n")
    journal.append_logs([log(4)])
    assert [entry["number"] for entry in logs_in(path)] == [0, 1, 2, 4]


FILE_SIZE_LIMIT = """
import resource, sys
from pathlib import Path
from peftsearch.errors import MissingError
from peftsearch.study.storage.journal import JournalFile
path = Path(sys.argv[1])
size = path.stat().st_size + 10
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    JournalFile(path).append_logs([{"op_code": 2, "number": 3, "text": ""}])
except MissingError as error:
    print(error)
"""


def test_a_real_limit_on_the_files_size_leaves_a_loadable_journal(
    journal: JournalFile, path: Path
) -> None:
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FILE_SIZE_LIMIT, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in done.stdout
    assert path.read_bytes() == before
    journal.append_logs([log(3)])
    assert len(logs_in(path)) == 4


def test_what_is_no_json_changes_nothing(journal: JournalFile, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError):
        journal.append_logs([log(3), {"op_code": 2, "x": object()}])
    assert path.read_bytes() == before


# -- killed writers ----------------------------------------------------------------------------

WRITERS = """
import os, sys
from pathlib import Path
from peftsearch.study.storage.journal import JournalFile
path, writers, appends, length = Path(sys.argv[1]), *map(int, sys.argv[2:5])
children = []
for writer in range(writers):
    child = os.fork()
    if child == 0:
        journal = JournalFile(path)
        for number in range(appends):
            text = str(writer) * length
            journal.append_logs([{"op_code": 2, "writer": writer, "number": number, "text": text}])
        os._exit(0)
    children.append(child)
print(*children, flush=True)
sys.exit(max(os.waitpid(child, 0)[1] for child in children[1:]) if writers > 1 else 0)
"""


def _writers(path: Path, *numbers: int) -> tuple[subprocess.Popen[str], list[int]]:
    parent = subprocess.Popen(
        [sys.executable, "-c", WRITERS, str(path), *map(str, numbers)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    children = [int(child) for child in parent.stdout.readline().split()]
    parent.stdout.close()
    return parent, children


def test_four_writers_of_whom_one_is_killed_lose_no_line(path: Path) -> None:
    parent, children = _writers(path, 4, 50, 2000)
    while not any(entry["writer"] == 0 for entry in logs_in(path)):
        time.sleep(0.001)
    os.kill(children[0], signal.SIGKILL)
    assert parent.wait(300) == 0
    logs = logs_in(path)
    for writer in range(4):
        numbers = [entry["number"] for entry in logs if entry["writer"] == writer]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) == 50 or writer == 0
    assert all(entry["text"] == str(entry["writer"]) * 2000 for entry in logs)


@pytest.mark.slow
def test_a_writer_killed_at_random_instants_leaves_a_loadable_journal(path: Path) -> None:
    randomness = random.Random(0)
    known = 0
    for _ in range(8):
        parent, children = _writers(path, 1, 300, 300_000)
        time.sleep(randomness.uniform(0.005, 0.03))
        os.kill(children[0], signal.SIGKILL)
        parent.wait()
        while _is_alive(children[0]):
            time.sleep(0.001)
        JournalFile(path).append_logs([{"op_code": 2, "text": ""}])
        logs = logs_in(path)
        assert len(logs) > known
        assert all(len(entry["text"]) in (0, 300_000) for entry in logs)
        known = len(logs)


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from peftsearch.disk import atomic
from peftsearch.study.storage.journal import JournalFile
real_write = os.write
def write(descriptor, content):
    real_write(descriptor, content[: int(sys.argv[2])])
    os.kill(os.getpid(), signal.SIGKILL)
atomic.os.write = write
JournalFile(Path(sys.argv[1])).append_logs([{"op_code": 2, "number": 3}])
"""


@pytest.mark.slow
@pytest.mark.parametrize("written", [1, 20])
def test_a_writer_killed_in_the_middle_of_a_line_frees_the_lock_and_the_journal_goes_on(
    journal: JournalFile, path: Path, written: int
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_THE_MIDDLE, str(path), str(written)])
    assert killed.returncode == -signal.SIGKILL
    assert not path.read_bytes().endswith(b"\n")
    assert len(logs_in(path)) == 3
    journal.append_logs([log(4)])
    assert [entry["number"] for entry in logs_in(path)] == [0, 1, 2, 4]
