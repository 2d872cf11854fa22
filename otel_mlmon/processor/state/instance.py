"""Keeps the id by which a processor is told from others (`service.instance.id`), over all its restarts."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from otel_mlmon.processor.state.repository import RecordKind, Repository, commit_or_rollback, load_records, put_records


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """The id of the processor that a state store belongs to."""

    id: str
    """Its `service.instance.id`."""


INSTANCE: Final = RecordKind("instance", InstanceRecord)


def load_instance_id(repository: Repository, create_id: Callable[[], str] = lambda: str(uuid.uuid4())) -> str:
    """Returns the processor's id from its state store; a new one, which is stored at once, if it has none.

    Raises:
        StoreError: It cannot be read or written.
    """
    instance = load_records(repository, INSTANCE).get("")
    if instance is None:
        instance = InstanceRecord(id=create_id())
        with commit_or_rollback(repository):
            put_records(repository, INSTANCE, [("", instance)])
    return instance.id
