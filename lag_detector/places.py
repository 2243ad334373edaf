"""Where the table and its consumers' checkpoints live, and which consumer we are."""

import os
import re
from pathlib import Path

from lag_detector.errors import LagDetectorError


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


def consumer() -> str:
    """Tell which consumer we are.

    Returns:
        `VISITS_CONSUMER`; without it the empty name, that of the tutorial's own consumer.

    Raises:
        LagDetectorError: the setting is no name.
    """
    return checked_name(os.environ.get("VISITS_CONSUMER", ""), "VISITS_CONSUMER")


def checked_name(name: str, what: str) -> str:
    """Give a consumer's name back if it can end the name of a folder, of a group of gauges and of an address.

    Args:
        name: the name; empty for the tutorial's own consumer.
        what: where it comes from, for the sentence.

    Raises:
        LagDetectorError: it is no such name.
    """
    if not re.fullmatch(r"([a-z][a-z0-9_]{0,39})?", name):
        raise LagDetectorError(
            f"{what} is {name!r}, and a consumer's name is 1 to 40 lower-case letters, digits and _ that start with a "
            "letter; take one like fraud or search_2"
        )
    return name


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
    return f"{checkpoints()}/{'_'.join(filter(None, ('visits_consumer', name)))}"
