"""Cached tasks: a function from `Work` and `Store` to `Manifest`, done once for each key.

The record in the store is the truth (`tasks.records`); Prefect's own result record mirrors it, so that its state is
called `Cached` exactly when nothing was computed. Without Prefect, `CachedTask.run` does the same under the same lock.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tasks import records
from tasks.code import code_digest
from tasks.devices import on_its_device
from tasks.home import Home
from tasks.locks import FileLocks, exclusive
from tasks.manifest import Json, Manifest, text_of
from tasks.records import Explanation
from tasks.store import Store
from tasks.work import Numerics, OtherCode, Work

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture
    from prefect.states import State
    from prefect.tasks import Task

__all__ = ["CachedTask", "Explanation", "FileLocks", "Numerics", "OtherCode", "Work", "cached_task"]

Body = Callable[[Work, Store], Manifest]
Upstream = Mapping[str, "Manifest | PrefectFuture[Manifest]"]


@dataclass(frozen=True, eq=False)
class CachedTask:
    """A named unit of work whose result is kept.

    Attributes:
        name: what the key, the UI and the records call it; version: raised by hand when the task's own file changes
            what it computes (the code of `robust` behind it is in the key by itself).
        roots: modules whose code the task always runs; those of the chosen methods are added with each work.
        options: passed to Prefect's task: retries, retry_delay_seconds, retry_condition_fn, tags.
    """

    body: Body
    name: str
    version: int = 1
    roots: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def work(
        self,
        label: str = "",
        *,
        settings: Mapping[str, Json] | None = None,
        reads: Mapping[str, str] | None = None,
        upstream: Mapping[str, Manifest] | None = None,
        roots: Iterable[str] = (),
        numerics: Numerics | None = None,
        context: Mapping[str, Json] | None = None,
        home: Home | None = None,
    ) -> Work:
        """Describe one piece of work for this task; the key is fixed here, and bad settings are refused here.

        Raises:
            ValueError: if the settings are not JSON, or hold NaN.
        """
        modules = tuple(sorted({*self.roots, *roots}))
        return Work(
            task=self.name,
            version=self.version,
            settings=dict(settings or {}),
            reads=dict(reads or {}),
            upstream=dict(upstream or {}),
            code=code_digest(modules)[1] if modules else {},
            numerics=numerics,
            roots=modules,
            label=label,
            home=str((home or Home.current()).root),
            context=dict(context or {}),
        )

    def explain(self, work: Work) -> Explanation:
        """Hit or miss, and the fields or modules behind a miss. Computes nothing, needs no Prefect."""
        return records.explain(Store.of(work.folder), work)

    def run(self, work: Work) -> Manifest:
        """Do the work without Prefect, unless it is done already; others who want the same wait."""
        with exclusive(work.folder.locks / f"{work.key}.lock"):
            return self.find(work) or self.compute(work)

    def find(self, work: Work) -> Manifest | None:
        """The verified result, if the work was done."""
        return records.find(Store.of(work.folder), work)

    def compute(self, work: Work) -> Manifest:
        """Do the work and record it, whatever was there before. The caller holds the lock of the key.

        Raises:
            OtherCode: if this process runs other code than the work was planned for.
            DeviceError: if it was planned for a GPU, and this process sees none or too few.
            TooLarge: if the result has more than 64 kB.
        """
        work.check_code()
        store = Store.of(work.folder.create())  # on another machine the home may not be there yet
        with on_its_device(work) as placed:
            started = time.perf_counter()
            manifest = self.body(placed, store)
        if not isinstance(manifest, Manifest):
            raise TypeError(f"the task {self.name} must return a Manifest, it returned {type(manifest).__name__}")
        seconds = round(time.perf_counter() - started, 6)
        manifest = manifest.model_copy(update={"timings": {"task": seconds, **manifest.timings}})
        text_of(manifest)
        records.write_record(store, work, manifest)
        return manifest

    @cached_property
    def task(self) -> Task[..., Manifest]:
        """The Prefect task; Prefect is imported with the first use."""
        from tasks.policy import prefect_task

        return prefect_task(self)

    def __call__(self, work: Work, upstream: Upstream | None = None) -> Manifest:
        """Run as a Prefect task in this thread."""
        return self.task(work, dict(upstream or {}))

    def state(self, work: Work, upstream: Upstream | None = None) -> State[Manifest]:
        """Run as a Prefect task and return its state; its name is `Cached` if nothing was computed."""
        task: Any = self.task  # its overloads know no flows' arguments
        found: State[Manifest] = task(work, dict(upstream or {}), return_state=True)
        return found

    def submit(
        self, work: Work, upstream: Upstream | None = None, wait_for: Iterable[Any] | None = None
    ) -> PrefectFuture[Manifest]:
        """Hand to the flow's task runner. Futures in `upstream` are awaited before the key is computed."""
        return self.task.submit(work, dict(upstream or {}), wait_for=wait_for)

    def __reduce__(self) -> tuple[Any, ...]:
        # by name: another process imports its own code, and `check_code` compares it with ours
        return _by_name, (self.body.__module__, self.body.__qualname__)


def cached_task(
    name: str, *, version: int = 1, roots: Iterable[str] = (), **options: Any
) -> Callable[[Body], CachedTask]:
    """Make a module's function `(work, store) -> Manifest` a `CachedTask` of that name.

    Args:
        name: lower case with hyphens, unique.
        version: raise it when this function changes what it computes.
        roots: modules of `robust` that it always runs.
        options: for Prefect's task: `retries`, `retry_delay_seconds`, `retry_condition_fn`, `tags`.
    """

    def wrap(body: Body) -> CachedTask:
        made = CachedTask(body, name, version, tuple(roots), options)
        object.__setattr__(made, "__doc__", body.__doc__)
        return made

    return wrap


def _by_name(module: str, qualname: str) -> CachedTask:
    found: CachedTask = getattr(importlib.import_module(module), qualname)
    return found
