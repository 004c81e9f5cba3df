"""What the tests' own namespaces leave behind: nothing."""

from __future__ import annotations

import pytest

from tests.kernel import netns


def test_a_namespace_that_stays_is_told_of_and_keeps_none_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true_ip = netns.ip

    def ip(*words: str) -> str:
        if words[:2] == ("netns", "delete") and words[2].endswith("-first"):
            raise AssertionError(f"{words[2]} is busy")
        return true_ip(*words)

    monkeypatch.setattr(netns, "ip", ip)
    made: list[str] = []
    try:
        with (
            pytest.raises(AssertionError, match="-first is busy"),
            netns.namespaces("first", "second") as made,
        ):
            pass
        left = true_ip("netns", "list")
        assert made[1] not in left
    finally:
        true_ip("netns", "delete", made[0])
