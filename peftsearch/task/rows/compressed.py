"""Compressed files: the bytes inside .gz, .bz2, .xz, .zst and .zip, up to a limit."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import PurePath
from typing import IO, cast

from peftsearch.errors import DataError, listed

__all__ = ["COMPRESSED", "name_inside", "suffix_of", "unpacked"]

_MOST = 2 * 2**30
"""Largest content of a file, in bytes."""
_SUSPICIOUS, _TIMES = 64 * 2**20, 200
"""Sign of a decompression bomb: so many bytes, out of a file so many times smaller. Texts shrink 3
to 20 times."""
_PIECE = 2**20

_Open = Callable[[IO[bytes]], IO[bytes]]


def name_inside(path_text: str, content: bytes | None = None) -> str:
    """The file's name without a compression extension; the name of the file in the archive where a
    zip's own name has no other extension.
    """
    path = PurePath(path_text)
    if path.suffix.lower() not in COMPRESSED:
        return path.name
    if path.suffix.lower() == ".zip" and not PurePath(path.stem).suffix and content is not None:
        return PurePath(_only_member(path_text, content).filename).name
    return path.stem


def suffix_of(path_text: str) -> str:
    """The extension without that of compression: `.csv` for `d.csv.gz`."""
    return PurePath(name_inside(path_text)).suffix.lower()


def unpacked(path_text: str, content: bytes) -> bytes:
    """The content, unpacked if the path ends like a compressed file; DataError if that fails or
    there is too much of it.
    """
    opener = COMPRESSED.get(PurePath(path_text).suffix.lower())
    if opener is None:
        return content
    if not content:
        raise DataError(f"{path_text}: the file is empty")
    most = min(_MOST, max(_SUSPICIOUS, _TIMES * len(content)))
    pieces, size = [], 0
    try:
        with opener(io.BytesIO(content)) as stream:
            while piece := stream.read(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    raise DataError(_too_much(path_text, most))
    except _Members as error:
        raise DataError(f"{path_text}: {error}") from error
    except (EOFError, OSError, ValueError, RuntimeError, *_BROKEN) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path_text}: damaged, or not what its extension says: it cannot be unpacked ({why})"
        ) from error
    return b"".join(pieces)


_BROKEN = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)


def _too_much(path_text: str, most: int) -> str:
    if most == _MOST:
        return (
            f"{path_text}: more than {_MOST / 2**30:g} GiB unpacked, which is the most; divide it"
        )
    return (
        f"{path_text}: more than {most / 2**20:,.0f} MiB unpacked, {_TIMES} times its size or "
        "more: that is no file of texts; if it is one, unpack it and give what was in it"
    )


# -- one kind each -----------------------------------------------------------------------------


class _Members(Exception):
    """A zip archive that does not hold exactly one readable file."""


def _only_member(path_text: str, content: bytes) -> zipfile.ZipInfo:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _member(archive)
    except _Members as error:
        raise DataError(f"{path_text}: {error}") from error
    except (EOFError, OSError, ValueError, RuntimeError, *_BROKEN) as error:
        raise DataError(f"{path_text}: not a readable zip archive ({error})") from error


def _member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The only file of an archive, but for what macOS adds."""
    found = [
        info
        for info in archive.infolist()
        if not info.is_dir() and not info.filename.startswith("__MACOSX/")
    ]
    if len(found) != 1:
        names = f": {listed((info.filename for info in found), 5)}" if found else ""
        raise _Members(f"an archive of {len(found):,} files{names}; give one that holds one file")
    if found[0].flag_bits & 1:
        raise _Members("an encrypted archive; unpack it and give what was in it")
    return found[0]


def _zip(stream: IO[bytes]) -> IO[bytes]:
    archive = zipfile.ZipFile(stream)
    return archive.open(_member(archive))


def _zstd(stream: IO[bytes]) -> IO[bytes]:
    import pyarrow as pa

    found: IO[bytes] = pa.CompressedInputStream(stream, "zstd")
    return found


def _gzip(stream: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=stream))


def _xz(stream: IO[bytes]) -> IO[bytes]:
    return lzma.LZMAFile(stream)


def _bz2(stream: IO[bytes]) -> IO[bytes]:
    return bz2.BZ2File(stream)


COMPRESSED: dict[str, _Open] = {
    ".gz": _gzip,
    ".bz2": _bz2,
    ".xz": _xz,
    ".zst": _zstd,
    ".zip": _zip,
}
