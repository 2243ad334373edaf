"""Why a lag is unknown."""

from typing import Literal

from ..errors import LagDetectorError

Reason = Literal[
    "not_a_table",
    "wrong_table",
    "not_delta",
    "corrupt",
    "permission",
    "no_batch",
    "unknown_offset",
    "log_cleaned",
    "missing",
    "timeout",
    "store",
]


class WatchError(LagDetectorError):
    """A lag is unknown, for a reason that is a label value. The message is one sentence that says what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
