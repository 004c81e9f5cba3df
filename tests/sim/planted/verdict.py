"""What a failed run complained of."""

from __future__ import annotations

import re

_RAISED = re.compile(r"^(?:\w+\.)*(\w+): (.*)$")
_NODE = re.compile(r"^node-\d+:? ")
_FACTS = re.compile(r" \((?:\w+=.*)?\)$|: node-\d.*$|(?<=linearizable): key .*$")


def complaint_of(failure: str) -> str:
    """The rule that was broken: the error that ends a run's traceback, without its facts."""
    kind, text = "", failure
    for line in failure.splitlines():
        raised = _RAISED.match(line)
        if raised is not None:
            kind, text = raised.groups()
    text = _FACTS.sub("", _NODE.sub("", text))
    if kind not in ("Violation", "BrokenInvariantError"):
        text = f"{kind}: {text}"
    return text if len(text) <= 110 else f"{text[:107]}…"
