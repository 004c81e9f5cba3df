from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftctl import yaml

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def test_nested_data_looks_as_people_write_it() -> None:
    data = {
        "name": "node-01",
        "leader": None,
        "peers": ["node-02", "node-03"],
        "members": [{"name": "node-01", "tags": []}, {"name": "node-02", "tags": ["a"]}],
        "ebpf": {"state": "off"},
        "empty": {},
    }
    assert yaml.dump(data) == (
        "name: node-01\n"
        "leader: null\n"
        "peers:\n"
        "  - node-02\n"
        "  - node-03\n"
        "members:\n"
        "  - name: node-01\n"
        "    tags: []\n"
        "  - name: node-02\n"
        "    tags:\n"
        "      - a\n"
        "ebpf:\n"
        '  state: "off"\n'
        "empty: {}\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "No",
        "null",
        "~",
        "1",
        "1e3",
        "2026-01-01",
        "a: b",
        "- x",
        "# c",
        "a\nb",
        "é",
        "*a",
    ],
)
def test_a_string_that_could_be_something_else_is_quoted(text: str) -> None:
    assert yaml.scalar(text) == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("text", ["\x7f", "\x85", "\u2028", "\ufeff"])
def test_what_yaml_may_not_hold_raw_is_escaped(text: str) -> None:
    assert yaml.scalar(text) == f'"\\u{ord(text):04x}"'


@given(PLAIN)
def test_every_value_stands_on_lines_of_its_own(value: object) -> None:
    """Nothing in a string can break out of its line: quoted scalars have no raw line break."""
    for line in yaml.dump(value)[:-1].split("\n"):
        assert line.strip()
        assert "\r" not in line
