"""Ask the Prometheus of a stack for more than the values of a query."""

import json
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from demo.stack import ALERT, Stack


def ask(stack: Stack, path: str, **parameters: str) -> Any:
    """Return the data with which an endpoint of Prometheus' API answers."""
    with urlopen(f"{stack.prometheus}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as response:
        return json.load(response)["data"]


def alert_rule(stack: Stack) -> dict[str, Any]:
    """Return the alert's rule: its state, its alerts, its last evaluation and how long that took."""
    groups = ask(stack, "rules", type="alert")["groups"]
    return next(rule for group in groups for rule in group["rules"] if rule["name"] == ALERT)
