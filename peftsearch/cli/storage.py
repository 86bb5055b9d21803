"""Quoting command lines without the password that `--storage` may contain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["without_storage"]


def without_storage(arguments: Sequence[str]) -> list[str]:
    """The arguments, without the password in `--storage`."""
    return list(_shown(iter(arguments)))


def _shown(arguments: Iterator[str]) -> Iterator[str]:
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag != "--storage":
            yield argument
        elif value:
            yield f"{flag}={_without_password(value)}"
        else:
            yield flag
            yield from map(_without_password, filter(None, [next(arguments, "")]))


def _without_password(address: str) -> str:
    from peftsearch.study.storage.database.address import StorageAddress

    return StorageAddress.parse(address).redacted
