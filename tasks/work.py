"""Work: the one argument of a task. Its fields say what the result depends on, and so what its cache key is.

The key is a pure function of a `Work`: the flow, `robust plan` and a test compute the same one, in any process and
under any hash seed. What does not change the result (labels, folders, tracking ids, devices' numbers) stands in fields
that the key leaves out.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from functools import cache
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from robust.method import canonical_json
from tasks.code import code_digest
from tasks.home import Home
from tasks.manifest import File, Finite, Json, Manifest

KEY_SCHEMA = 1  # the layout of the key itself; raising it makes every record of every task a miss
NAME = r"^[a-z][a-z0-9-]*$"


class OtherCode(RuntimeError):  # noqa: N818 - reads as the message it is
    """The process that should do the work runs other code than the one that planned it."""


class Numerics(BaseModel):
    """What decides the rounding: results of one class are interchangeable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    torch: str = Field(description="major.minor version of torch")
    device: str = Field(default="cpu", pattern=r"^[a-z]+$", description="kind of device, without its number")
    dtype: str = Field(default="float32", pattern=r"^[a-z0-9]+$", description="dtype of the computation")

    @classmethod
    def of(cls, device: str = "cpu", dtype: str = "float32") -> Self:
        """The numerics of this installation: `Numerics.of("cuda:1")` is the class of all its CUDA devices."""
        return cls(torch=_torch_minor(), device=device.partition(":")[0], dtype=dtype.removeprefix("torch."))


@cache
def _torch_minor() -> str:
    return ".".join(importlib.metadata.version("torch").split(".")[:2])


class Work(BaseModel):
    """One step of a study, ready to be done.

    In the key: `task`, `version`, `settings`, `reads`, `upstream` (digests of its files), `code`, `numerics`.
    Not in the key: `roots` (where the code was looked up), `label`, `home`, `context`.

    Attributes:
        task: name of the task; version: integer of the task's own file, raised by hand when it changes meaning.
        settings: the slice of the study that the task depends on, as JSON.
        reads: digests of data that it reads, by role.
        upstream: manifests of earlier tasks that it reads, by role.
        code: digest of each module that it runs.
        numerics: torch version, device kind, dtype.
        label: which step of the study this is, for people and for `robust plan`: `small-cnn.standard.s0/pgd/shard-3`.
        context: whatever the body needs and the result does not depend on: tracking ids, a deadline, a device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = Field(pattern=NAME, max_length=60)
    version: int = Field(default=1, ge=1)
    settings: dict[str, Json] = {}
    reads: dict[str, str] = {}
    upstream: dict[str, Manifest] = {}
    code: dict[str, str] = {}
    numerics: Numerics | None = None
    roots: tuple[str, ...] = ()
    label: str = ""
    home: str = ""
    context: dict[str, Json] = {}

    @field_validator("reads")
    @classmethod
    def _digests(cls, reads: dict[str, str]) -> dict[str, str]:
        for role, digest in reads.items():
            if not digest or len(digest) > 128 or "/" in digest:
                raise ValueError(f"reads[{role!r}] must be a digest of what is read, got {digest[:80]!r}")
        return reads

    @model_validator(mode="after")
    def _key_can_be_computed(self) -> Self:
        # Prefect would log a failing key and go on without a cache; here it fails where the work is described
        canonical_json(self.parts())
        return self

    def parts(self) -> dict[str, Any]:
        """What the key is computed from."""
        files = {f"{role}.{name}": d for role, done in self.upstream.items() for name, d in done.digests().items()}
        return {
            "schema": KEY_SCHEMA,
            "task": self.task,
            "version": self.version,
            "settings": self.settings,
            "reads": {**self.reads, **files},
            "code": self.code,
            "numerics": self.numerics.model_dump() if self.numerics else None,
        }

    @property
    def key(self) -> str:
        """`<task>-<16 hex digits>`: readable, and safe as a file name."""
        return f"{self.task}-{hashlib.sha256(canonical_json(self.parts()).encode()).hexdigest()[:16]}"

    @property
    def folder(self) -> Home:
        """The home that the work is done in."""
        return Home.at(self.home) if self.home else Home.current()

    def reading(self, upstream: Mapping[str, Manifest] | None) -> Work:
        """The same work with manifests of earlier tasks filled in."""
        if not upstream:
            return self
        return Work(**{**dict(self), "upstream": {**self.upstream, **upstream}})

    def check_code(self) -> None:
        """Compare the code and the torch of this process with those that the work was planned for.

        Raises:
            OtherCode: naming the modules that differ.
        """
        here = code_digest(self.roots)[1] if self.roots else {}
        other = sorted(m for m in here.keys() | self.code.keys() if here.get(m) != self.code.get(m))
        if other:
            raise OtherCode(
                f"{self.key} was planned for other code than this process finds: {', '.join(other)} differ; "
                "install the same version here, or start the run again (finished steps are kept)"
            )
        if self.numerics and self.numerics.torch != _torch_minor():
            raise OtherCode(
                f"{self.key} was planned for torch {self.numerics.torch}, this process has {_torch_minor()}"
            )

    def manifest(
        self,
        files: Mapping[str, File] | None = None,
        metrics: Mapping[str, bool | int | Finite | str | None] | None = None,
        facts: Mapping[str, Json] | None = None,
        timings: Mapping[str, float] | None = None,
        runs: Mapping[str, str] | None = None,
    ) -> Manifest:
        """What the task returns: its result under this work's name and key."""
        return Manifest(
            task=self.task,
            key=self.key,
            label=self.label,
            files=dict(files or {}),
            metrics=dict(metrics or {}),
            facts=dict(facts or {}),
            timings=dict(timings or {}),
            runs=dict(runs or {}),
        )
