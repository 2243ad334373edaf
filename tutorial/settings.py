"""Every environment variable that the tutorial reads, and where the table and the checkpoints live."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lag_detector.errors import LagDetectorError

if TYPE_CHECKING:
    from lag_detector.pushgateway import Pushgateway

REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINT = "visits_consumer"


def warehouse() -> str:
    """Return where the table and the checkpoints live.

    Returns:
        `VISITS_WAREHOUSE`: a Hadoop URI unchanged, or a folder as an absolute path. By default the folder
        `warehouse` next to the scripts.
    """
    setting = os.environ.get("VISITS_WAREHOUSE")
    if not setting:
        return str(REPOSITORY / "warehouse")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", setting):
        return setting
    return str(Path(setting).expanduser().absolute())


def table_location() -> str:
    """Return where the table lives."""
    return f"{warehouse()}/visits"


def checkpoints_location() -> str:
    """Return where the checkpoints of all consumers live."""
    return f"{warehouse()}/checkpoints"


def checkpoint_location(consumer: str | None = None) -> str:
    """Return where a consumer's checkpoint lives.

    Args:
        consumer: its name; by default the one in `VISITS_CONSUMER`.
    """
    from lag_detector.pushgateway import group_name

    name = group_name(CHECKPOINT, consumer_name() if consumer is None else consumer)
    return f"{checkpoints_location()}/{name}"


def consumer_name() -> str:
    """Return `VISITS_CONSUMER`, the name of an additional consumer. Empty for the tutorial's own.

    Raises:
        LagDetectorError: it is not a valid name.
    """
    from lag_detector.pushgateway import group_name

    name = os.environ.get("VISITS_CONSUMER", "")
    try:
        group_name("", name)
    except LagDetectorError as error:
        raise LagDetectorError(f"VISITS_CONSUMER: {error}") from error
    return name


def pushgateway() -> "Pushgateway":
    """Return the Pushgateway at `PUSHGATEWAY_URL`, by default http://localhost:9091.

    Raises:
        LagDetectorError: it is not a URL.
    """
    from lag_detector.pushgateway import Pushgateway

    try:
        return Pushgateway(os.environ.get("PUSHGATEWAY_URL") or "http://localhost:9091")
    except LagDetectorError as error:
        raise LagDetectorError(f"PUSHGATEWAY_URL: {error}") from error
