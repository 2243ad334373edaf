"""Publish how far a Delta table and the streams that read it have come, so that Prometheus can compute the lag.

versions       the last version of a table, the last version that a stream has read, and when each was committed
pushgateway    push versions to a Prometheus Pushgateway, and delete them there
listener       push while a streaming query runs
graceful_stop  stop a streaming query between two batches
errors         the exceptions
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import LagDetectorError, PushgatewayError
    from .graceful_stop import GracefulStop
    from .listener import ReaderVersionListener
    from .pushgateway import Pushgateway, group_name
    from .versions import (
        Commit,
        TableDetail,
        commit_timestamp,
        last_commit,
        last_read_version,
        next_version,
        table_detail,
        table_id,
    )

__all__ = [
    "Commit",
    "GracefulStop",
    "LagDetectorError",
    "Pushgateway",
    "PushgatewayError",
    "ReaderVersionListener",
    "TableDetail",
    "commit_timestamp",
    "group_name",
    "last_commit",
    "last_read_version",
    "next_version",
    "table_detail",
    "table_id",
]

_MODULES = ("errors", "pushgateway", "versions", "listener", "graceful_stop")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: pushing needs no Spark, and Spark takes a second to import."""
    if name == "__version__":
        return version("lag-detector")
    if name in __all__:
        for module in (import_module(f".{module}", __name__) for module in _MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
