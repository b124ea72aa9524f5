"""Which filters match a topic, by the rules of MQTT (3.1.1, section 4.7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_RANK = {"+": 1, "#": 2}


def topic_matches_sub(sub: str, topic: str) -> bool:
    """Whether a topic matches a filter: "+" is any one level, "#" any number of them at the end;
    neither stands for a first level that begins with '$'."""
    wanted, levels = sub.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in _RANK:
        return False
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in ("+", levels[at]):
            return False
    return len(wanted) == len(levels)


def precedence(sub: str) -> tuple[int, ...]:
    """Sorts the filters that match one topic: at the first level where two differ, a name goes
    before "+", and "+" before "#". So does paho with callbacks, and mosquitto where a client has
    several subscriptions for a message."""
    return tuple(_RANK.get(level, 0) for level in sub.split("/"))


class MQTTMatcher:
    """A mapping from filters to values that finds the values for a topic."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def __setitem__(self, sub: str, value: Any) -> None:
        self._values[sub] = value
        self._values = dict(sorted(self._values.items(), key=lambda item: precedence(item[0])))

    def __getitem__(self, sub: str) -> Any:
        return self._values[sub]

    def __delitem__(self, sub: str) -> None:
        values = dict(self._values)
        del values[sub]
        self._values = values

    def iter_match(self, topic: str) -> Iterator[Any]:
        """The values of the filters that match, by precedence()."""
        return (value for sub, value in self._values.items() if topic_matches_sub(sub, topic))
