"""The bridge to Prefect's cache: one policy, whose key is the work's, and whose records mirror ours.

Prefect decides a hit by whether its result record can be read. So before it looks, the policy makes that record agree
with the verified one in the store: it is written where ours is whole (made by another machine, or before a crash), and
blanked where ours is missing or damaged, which makes Prefect run the task again.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.results import ResultRecord, ResultStore
from prefect.tasks import Task
from prefect.transactions import IsolationLevel, get_transaction

from tasks import records
from tasks.locks import FileLocks
from tasks.manifest import Manifest
from tasks.store import Store
from tasks.work import Work

if TYPE_CHECKING:
    from tasks.cache import CachedTask


class NoCacheKey(RuntimeError):  # noqa: N818 - reads as the message it is
    """Prefect would run the task without a cache."""


@dataclass
class WorkPolicy(CachePolicy):
    """Key = `Work.key` of the task's argument `work` with its `upstream` filled in."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """The key; on the way, Prefect's record is made to agree with ours."""
        work: Work = inputs["work"].reading(inputs.get("upstream"))
        _mirror(work, task_ctx.result_store)
        return work.key


def prefect_task(cached: CachedTask) -> Task[..., Manifest]:
    """A Prefect task around a cached task: our key, one at a time a key, JSON records."""

    def run(work: Work, upstream: Mapping[str, Manifest]) -> Manifest:
        work = work.reading(upstream)
        transaction = get_transaction()
        if transaction is None or transaction.key != work.key:
            raise NoCacheKey(f"the cache key of {work.key} could not be computed; the log above says why")
        refresh = transaction.overwrite
        return (None if refresh else cached.find(work)) or cached.compute(work)

    run.__name__ = run.__qualname__ = cached.name
    run.__doc__ = cached.body.__doc__
    policy = WorkPolicy(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=FileLocks())
    made: Task[..., Manifest] = task(
        name=cached.name,
        task_run_name=cached.name + " {work.label}",
        cache_policy=policy,
        persist_result=True,
        result_serializer="json",
        **cached.options,
    )(run)
    return made


def _mirror(work: Work, results: ResultStore) -> None:
    store = Store.of(work.folder)
    if _recorded(results, work.key) == records.find(store, work):
        return
    holder = f"mirror-{uuid.uuid4()}"
    results.acquire_lock(work.key, holder)
    try:
        known = records.find(store, work)  # again: whoever held the lock may have done the work
        if known is not None:
            results.write(obj=known, key=work.key, holder=holder)
        elif results.exists(work.key):
            _blank(results, work.key)
    finally:
        results.release_lock(work.key, holder)


def _recorded(results: ResultStore, key: str) -> Manifest | None:
    """What Prefect's record says; None if there is none that can be read.

    Read past `ResultStore`, which would read it twice and take the key's lock: a look-up happens for every shard.
    """
    storage: Any = results.result_storage
    try:
        found: Manifest = ResultRecord.deserialize(storage.read_path(key, _sync=True)).result
    except (ValueError, OSError):  # pydantic's errors are ValueErrors
        return None
    return found


def _blank(results: ResultStore, key: str) -> None:
    # the protocol of result storages has no delete; an empty record cannot be read, so it does not count
    storage: Any = results.result_storage
    storage.write_path(key, b"", _sync=True)
