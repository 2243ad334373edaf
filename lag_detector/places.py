"""Where the table and the consumer's checkpoint live."""

import os
import re
from pathlib import Path


def warehouse() -> str:
    """Tell where the table and the consumer's checkpoint live.

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


def checkpoint_location() -> str:
    """Tell where the consumer remembers what it has read."""
    return f"{checkpoints()}/visits_consumer"
