"""Compressed files are what is in them, up to a limit; damaged ones are one sentence."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from peftsearch.errors import DataError
from peftsearch.task.rows.files import read_rows

CSV = ("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(50))).encode()


def zipped(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return packed.getvalue()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
    ".zip": lambda content: zipped(some_csv=content),
}


@pytest.mark.parametrize("suffix", PACK)
def test_a_compressed_table_is_the_table(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(CSV)
    (tmp_path / f"d.csv{suffix}").write_bytes(PACK[suffix](CSV))
    plain, packed = (read_rows(str(tmp_path / n)).table for n in ("d.csv", f"d.csv{suffix}"))
    assert packed.equals(plain)


@pytest.mark.parametrize("suffix", PACK)
def test_a_compressed_file_cut_off_anywhere_is_one_sentence(suffix: str, tmp_path: Path) -> None:
    whole = PACK[suffix](CSV)
    path = tmp_path / f"d.csv{suffix}"
    for kept in range(0, len(whole), 7):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError) as caught:
            read_rows(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", PACK)
def test_nonsense_in_the_place_of_a_compressed_file_is_one_sentence(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"d.csv{suffix}"
    path.write_bytes(CSV)
    with pytest.raises(DataError, match=r"it cannot be unpacked|not a readable zip archive"):
        read_rows(str(path))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", PACK)
def test_a_bomb_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"d.csv{suffix}"
    path.write_bytes(PACK[suffix](bytes(70 * 2**20)))
    with pytest.raises(DataError, match="more than 64 MiB unpacked, 200 times its size or more"):
        read_rows(str(path))


def test_more_than_the_most_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftsearch.task.rows.compressed._MOST", 2**8)
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(CSV))
    with pytest.raises(DataError, match="unpacked, which is the most; divide it"):
        read_rows(str(tmp_path / "d.csv.gz"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (zipped(a_csv=CSV, b_csv=CSV), "an archive of 2 files: a.csv, b.csv; give one that holds"),
        (zipped(), "an archive of 0 files"),
        (zipped(a_exe=CSV), "unknown kind of file '.exe'"),
    ],
)
def test_an_archive_holds_one_table(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "d.zip").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_rows(str(tmp_path / "d.zip"))


def test_a_zip_archive_without_a_kind_is_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "d.zip").write_bytes(zipped(inner_tsv=CSV.replace(b",", b"\t")))
    assert len(read_rows(str(tmp_path / "d.zip")).table) == 50


def test_parallel_text_may_be_compressed(tmp_path: Path) -> None:
    (tmp_path / "n.en.gz").write_bytes(gzip.compress(b"a\n\nb\n"))
    (tmp_path / "n.ro").write_bytes(b"c\nd\ne\n")
    table = read_rows(f"{tmp_path}/n.en.gz,{tmp_path}/n.ro").table
    assert table.to_numpy().tolist() == [["a", "c"], ["", "d"], ["b", "e"]]
    with pytest.raises(DataError, match=r"'\.csv' is a table"):
        read_rows(f"{tmp_path}/n.csv.gz,{tmp_path}/n.ro")
