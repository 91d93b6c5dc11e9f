"""Checksums: a published file is compared with its published digest before it is read, once in a process.

A digest is remembered by path, size and modification time, so that loading four splits hashes each file once and a
file that changes on disk is hashed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from robust.datasets.dataset import DatasetError

ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's bytes.

    Raises:
        DatasetError: if the file cannot be read.
    """
    try:
        status = path.stat()
        return _digest(str(path.resolve()), status.st_size, status.st_mtime_ns, algorithm)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error


def verified(paths: Iterable[Path], published: Mapping[str, str], remedy: str) -> str:
    """One digest over the names and contents of some files, after comparing each with its published digest.

    Args:
        paths: the files, in an order that does not change.
        published: file name -> MD5, SHA-1 or SHA-256 in hexadecimal; files not named here are hashed, not compared.
        remedy: what a person should do about a damaged file.

    Raises:
        DatasetError: if a file differs from what was published; names the file, both digests and the remedy.
    """
    seen = hashlib.sha256()
    for path in paths:
        expected = published.get(path.name, "")
        algorithm = ALGORITHMS[len(expected)] if expected else "sha256"
        found = file_digest(path, algorithm)
        if expected and found != expected:
            raise DatasetError(f"{path} is damaged: {algorithm} expected {expected}, found {found}; {remedy}")
        seen.update(f"{path.name}\x1f{algorithm}\x1f{found}\x1e".encode())
    return seen.hexdigest()


@lru_cache(maxsize=2**16)
def _digest(path: str, size: int, modified: int, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
