"""What can be wrong with the configuration, and why a lag is unknown."""

from typing import Literal

Reason = Literal[
    "not_a_table",
    "wrong_table",
    "unknown_id",
    "ahead",
    "not_delta",
    "corrupt",
    "permission",
    "no_batch",
    "unknown_offset",
    "log_cleaned",
    "missing",
    "catalog",
    "catalog_denied",
    "catalog_unknown",
    "catalog_location",
    "timeout",
    "store",
]


class DeltaWatchError(Exception):
    """A problem that the user can fix. Its message is one sentence that says how."""


class WatchError(DeltaWatchError):
    """A lag is unknown, for a reason that is a label value. The message is one sentence that says what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
