"""Ask a stack's Prometheus for more than the values of a query."""

import json
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from demo.stack import ALERT, Stack


def ask(stack: Stack, path: str, **parameters: str) -> Any:
    """Ask an endpoint of Prometheus' API; gives the data of its answer."""
    with urlopen(f"{stack.prometheus}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:
        return json.load(answer)["data"]


def alert_rule(stack: Stack) -> dict[str, Any]:
    """Give what Prometheus says of the alert: its state, its alerts, its last evaluation and how long that took."""
    groups = ask(stack, "rules", type="alert")["groups"]
    return next(rule for group in groups for rule in group["rules"] if rule["name"] == ALERT)
