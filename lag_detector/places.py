"""Where the table and its consumers' checkpoints live."""

import os
import re
from pathlib import Path

from lag_detector.consumers import consumer, of_consumer


def warehouse() -> str:
    """Tell where the table and its consumers' checkpoints live.

    Returns:
        `VISITS_WAREHOUSE`, a Hadoop URI as it stands or a folder as an absolute path;
        without it the folder `warehouse` beside the scripts, wherever they are started from.
    """
    setting = os.environ.get("VISITS_WAREHOUSE")
    if not setting:
        return str(Path(__file__).resolve().parents[1] / "warehouse")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", setting):
        return setting
    return str(Path(setting).expanduser().absolute())


def table_location() -> str:
    """Tell where the table lives."""
    return f"{warehouse()}/visits"


def checkpoints() -> str:
    """Tell where all consumers of the table keep their checkpoints."""
    return f"{warehouse()}/checkpoints"


def checkpoint_location(name: str | None = None) -> str:
    """Tell where a consumer remembers what it has read.

    Args:
        name: the consumer's name; without it the one that we are.

    Raises:
        LagDetectorError: `VISITS_CONSUMER` is no name.
    """
    name = consumer() if name is None else name
    return f"{checkpoints()}/{of_consumer('visits_consumer', name)}"
