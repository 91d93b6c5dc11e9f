"""Manifest: what a task hands to the next. Names, digests and numbers; never a tensor, a module or a path.

A manifest is plain JSON of at most 64 kB, so it can pass through a scheduler's database. Whatever is large lies in the
content-addressed store, under the sha256 that stands here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

if TYPE_CHECKING:
    Json = Any  # checked when it is validated; spelling the recursive type out helps no reader of a setting
else:
    Json = JsonValue

MAX_BYTES = 64_000
SHA256 = r"^[0-9a-f]{64}$"


class TooLarge(ValueError):  # noqa: N818 - reads as the message it is
    """A result is too large to pass between tasks."""


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number; leave the entry out, or None, where there is no value")
    return value


Finite = Annotated[float, AfterValidator(_finite)]


class File(BaseModel):
    """One file in the store.

    Attributes:
        name: what it is called for people, e.g. `weights.safetensors`.
        sha256: digest of its bytes, and its address in the store.
        bytes: its size.
        volatile: holds seconds, dates or the like: differs from run to run, so it never enters a key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    sha256: str = Field(pattern=SHA256)
    bytes: int = Field(ge=0)
    volatile: bool = False


class Manifest(BaseModel):
    """What a task did.

    Attributes:
        task: name of the task; key: its cache key; label: which of the study's steps this was.
        files: what it stored, by role (`weights`, `ledger`).
        metrics: single numbers that a person compares; facts: other plain data.
        timings: seconds; runs: ids of tracked runs. Both may differ between two runs of equal work.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    key: str
    label: str = ""
    files: dict[str, File] = {}
    metrics: dict[str, bool | int | Finite | str | None] = {}
    facts: dict[str, Json] = {}
    timings: dict[str, Finite] = {}
    runs: dict[str, str] = {}

    def digests(self) -> dict[str, str]:
        """What later work may depend on: the sha256 of every file that is not volatile."""
        return {role: file.sha256 for role, file in sorted(self.files.items()) if not file.volatile}


def text_of(manifest: Manifest) -> str:
    """The manifest as JSON.

    Raises:
        TooLarge: over 64 kB.
    """
    text = manifest.model_dump_json()
    size = len(text.encode())
    if size > MAX_BYTES:
        raise TooLarge(
            f"the result of {manifest.key} has {size:,} bytes, more than {MAX_BYTES:,} may pass between tasks; "
            "put the data into a file in the store and return the file"
        )
    return text
