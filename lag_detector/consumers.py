"""Which consumer we are: several may read one table, each with a checkpoint and gauges of its own."""

import os
import re

from lag_detector.errors import LagDetectorError


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


def of_consumer(base: str, name: str) -> str:
    """Name something of a consumer: as of the tutorial's own, and of a further one with its name behind it.

    Args:
        base: the name for the tutorial's own consumer.
        name: the consumer's name.

    Raises:
        LagDetectorError: the consumer's name is none.
    """
    return "_".join(filter(None, (base, checked_name(name, "the consumer"))))
