"""Store: files by the sha256 of their content, on any file system that fsspec knows.

Nothing is overwritten in place, and nothing is served without its digest being checked: a truncated, altered or
deleted entry raises `Damaged`, and putting the same content again repairs it. Beside the objects lie the records of
finished tasks (`tasks.cache`), so that machines which share a store share the work.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from tasks.home import Home
from tasks.manifest import File

BLOCK = 1 << 20


class Damaged(OSError):  # noqa: N818 - reads as the message it is
    """An entry of the store is missing, truncated or altered."""


class StoreFull(OSError):  # noqa: N818 - reads as the message it is
    """The store cannot take a file: disk full or read-only."""


@dataclass(frozen=True)
class Store:
    """A content-addressed store.

    Attributes:
        url: a folder or an fsspec URL (`s3://bucket/robust`, `memory://x`).
        local: folder for local copies of files from a remote store.
    """

    url: str
    local: Path

    @classmethod
    def of(cls, home: Home) -> Store:
        """The store of a home: `ROBUST_STORE`, or the folder `store` in it."""
        return cls(os.environ.get("ROBUST_STORE") or str(home.store), home.cache)

    def put(self, content: bytes | Path, name: str, *, volatile: bool = False) -> File:
        """Add a file's bytes; the same content again costs a check and repairs a damaged entry.

        Raises:
            StoreFull: if it cannot be written; nothing half-written is left behind.
        """
        file = File(name=name, sha256=_sha256(content), bytes=_size(content), volatile=volatile)
        if self._fault(file.sha256, file.bytes) is not None:
            self.write(self._object(file.sha256), content)
        return file

    def get(self, file: File | str) -> Path:
        """A verified local path of an entry, by file or by sha256.

        Raises:
            Damaged: if it is missing or not what it says.
        """
        sha256, size = _address(file)
        if self.is_local:
            self._check(sha256, size)
            return Path(self._object(sha256))
        copy = self.local / "objects" / sha256[:2] / sha256
        if not copy.exists() or _sha256(copy) != sha256:
            self._download(sha256, copy)
        return copy

    def read(self, file: File | str) -> bytes:
        """The verified bytes of an entry.

        Raises:
            Damaged: if it is missing or not what it says.
        """
        return self.get(file).read_bytes()

    def verify(self, file: File | str) -> None:
        """Read an entry and compare size and digest.

        Raises:
            Damaged: saying what is wrong.
        """
        self._check(*_address(file))

    def delete(self, file: File | str) -> None:
        """Remove an entry and its local copy; nothing happens if there is none."""
        sha256, _ = _address(file)
        self.remove(self._object(sha256))
        (self.local / "objects" / sha256[:2] / sha256).unlink(missing_ok=True)

    @property
    def is_local(self) -> bool:
        """Whether entries are plain files on this machine."""
        return "file" in _protocols(self._filesystem)

    def path(self, *parts: str) -> str:
        """The address of something in the store, for `write`, `load` and `remove`."""
        return "/".join((_open(self.url)[1].rstrip("/"), *parts))

    def write(self, path: str, content: bytes | Path) -> None:
        """Write under a temporary name and move, so that nobody ever sees half a file.

        Raises:
            StoreFull: if there is no space, or no right to write.
        """
        try:
            self._write(path, content)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise StoreFull(
                    f"the store {self.url} takes no file: {error.strerror}; free space there or name another home"
                ) from error
            raise

    def load(self, path: str) -> bytes | None:
        """The bytes at an address, None if there are none."""
        try:
            found: bytes = self._filesystem.cat_file(path)
        except FileNotFoundError:
            return None
        return found

    def remove(self, path: str) -> None:
        """Delete an address, if it is there."""
        try:
            self._filesystem.rm_file(path)
        except FileNotFoundError:
            return

    def _write(self, path: str, content: bytes | Path) -> None:
        if not self.is_local:  # object stores show an upload only when it is complete
            if isinstance(content, Path):
                self._filesystem.put_file(str(content), path)
            else:
                self._filesystem.pipe_file(path, content)
            return
        with moved_into(Path(path)) as stream:
            if isinstance(content, Path):
                with content.open("rb") as source:
                    shutil.copyfileobj(source, stream, BLOCK)
            else:
                stream.write(content)

    def _download(self, sha256: str, copy: Path) -> None:
        try:
            with moved_into(copy) as stream:
                with self._filesystem.open(self._object(sha256), "rb") as source:
                    shutil.copyfileobj(source, stream, BLOCK)
                stream.flush()
                if _sha256(Path(stream.name)) != sha256:
                    raise Damaged(f"the store's entry {sha256[:12]} was altered: its digest is another")
        except FileNotFoundError as error:
            raise Damaged(f"the store has no entry {sha256[:12]}; it was deleted") from error

    def _check(self, sha256: str, size: int | None) -> None:
        fault = self._fault(sha256, size)
        if fault is not None:
            raise Damaged(f"the store's entry {sha256[:12]} {fault}")

    def _fault(self, sha256: str, size: int | None) -> str | None:
        """What is wrong with an entry; None if nothing is."""
        found = hashlib.sha256()
        try:
            with self._filesystem.open(self._object(sha256), "rb") as stream:
                length = 0
                while block := stream.read(BLOCK):
                    found.update(block)
                    length += len(block)
        except FileNotFoundError:
            return "is missing"
        if size is not None and length != size:
            return f"is truncated or grown: {length:,} bytes instead of {size:,}"
        return None if found.hexdigest() == sha256 else "was altered: its digest is another"

    def _object(self, sha256: str) -> str:
        return self.path("objects", sha256[:2], sha256)

    @property
    def _filesystem(self) -> Any:
        return _open(self.url)[0]


@contextmanager
def moved_into(path: Path) -> Iterator[IO[bytes]]:
    """A stream to a temporary file beside `path`, moved there at the end; removed if anything goes wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    os.close(descriptor)
    try:
        with open(temporary, "wb") as stream:  # by name, which the user of the stream may want to know
            yield stream
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def _open(url: str) -> tuple[Any, str]:
    import fsspec.core

    found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    return found


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _address(file: File | str) -> tuple[str, int | None]:
    if isinstance(file, File):
        return file.sha256, file.bytes
    if len(file) != 64 or set(file) - set("0123456789abcdef"):  # also keeps "../" out of paths
        raise ValueError(f"{file[:80]!r} is not a sha256; entries are addressed by 64 hex digits")
    return file, None


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
