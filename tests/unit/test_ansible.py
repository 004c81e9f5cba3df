"""What the playbooks decide, and that their documents and defaults say the same."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from raft_agent.config.model import Timing
from tools import role_docs

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "ansible" / "README.md"
INVENTORIES = sorted((ROOT / "ansible" / "inventory").glob("*example.yml"))


def load(path: str) -> ModuleType:
    """A file of ansible/, which is a folder and no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "ansible" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


decide = load("filter_plugins/raft.py")


def health(leader: str | None = "a", **states: str) -> dict[str, Any]:
    """Voters a, b, … in these states; one whose name begins with l is a learner."""
    members = [
        {
            "name": name,
            "state": state,
            "detail": "",
            "role": "voter" if name[0] != "l" else "learner",
        }
        for name, state in states.items()
    ]
    return {"leader": leader, "quorum": leader is not None, "members": members}


WELL = {"a": "healthy", "b": "healthy", "c": "healthy"}


def test_a_member_may_be_stopped_when_all_others_are_well() -> None:
    for name in WELL:
        assert decide.why_not_stop(health(**WELL), name) == []


@pytest.mark.parametrize("state", ["lagging", "unreachable"])
def test_no_member_may_be_stopped_while_another_is_not_well(state: str) -> None:
    found = health(**WELL | {"c": state})
    assert any("c is " + state in reason for reason in decide.why_not_stop(found, "b"))
    assert decide.why_not_stop(found, "c") == []  # the one that is ill is not needed


@pytest.mark.parametrize("voters", [1, 2])
def test_a_cluster_that_can_spare_nobody_is_not_stopped(voters: int) -> None:
    found = health(**dict(list(WELL.items())[:voters]))
    assert any("no majority" in reason for reason in decide.why_not_stop(found, "a"))


def test_a_learner_is_not_needed_and_its_illness_holds_nobody_up() -> None:
    assert decide.why_not_stop(health(**WELL, l1="unreachable"), "b") == []
    assert decide.why_not_stop(health(**WELL, l1="healthy"), "l1") == []


def test_without_a_leader_or_an_answer_nobody_is_stopped() -> None:
    assert decide.why_not_stop(health(None, **WELL), "a") == ["the cluster has no leader"]
    for nothing in (None, {}, {"members": []}):
        assert decide.why_not_stop(nothing, "a") == ["no member says how the cluster is"]
        assert decide.not_healthy(nothing) == ["no member says how the cluster is"]


def test_an_upgrade_wants_all_members_well() -> None:
    assert decide.not_healthy(health(**WELL)) == []
    assert decide.not_healthy(health(**WELL, l1="lagging")) == ["l1 is lagging"]
    assert decide.not_healthy(health(None, **WELL)) == ["the cluster has no leader"]


def test_a_member_is_well_when_it_is_healthy_under_a_leader() -> None:
    assert decide.is_well(health(**WELL), "b")
    assert not decide.is_well(health(**WELL | {"b": "lagging"}), "b")
    assert not decide.is_well(health(None, **WELL), "b")
    assert not decide.is_well(health(**WELL), "stranger")
    assert not decide.is_well(None, "b")


def test_hosts_of_a_cluster_are_those_whose_agent_says_so() -> None:
    look = {
        "member": {"status": {"cluster_id": "1", "removed": False}},
        "fresh": {"status": {"cluster_id": "", "removed": False}},
        "removed": {"status": {"cluster_id": "1", "removed": True}},
        "silent": {"status": None},
    }
    hostvars: dict[str, Any] = {name: {"raft_cluster_look": found} for name, found in look.items()}
    hostvars["not looked at"] = {}
    assert decide.members(list(hostvars), hostvars) == ["member"]


def test_every_directory_on_the_way_is_named() -> None:
    assert decide.paths(["/var", "/lib", "/raft"]) == ["/var", "/var/lib", "/var/lib/raft"]


@pytest.mark.parametrize("role", role_docs.roles(), ids=lambda role: role.name)
def test_a_role_says_what_its_variables_mean(role: Path) -> None:
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    for spec in specs.values():
        assert spec["options"].keys() == defaults.keys()
        for name, option in spec["options"].items():
            assert option.get("default", defaults[name]) == defaults[name], name
    assert (role / "README.md").read_text() == role_docs.page(role), "run make docs"


def test_the_roles_are_there() -> None:
    assert [role.name.removeprefix("raft_") for role in role_docs.roles()] == [
        "autobackup",
        "board",
        "cluster",
        "node",
        "preflight",
        "tls",
    ]


def variables() -> dict[str, Any]:
    """All that an inventory may set: the roles' own, and those of ansible/README.md."""
    known: dict[str, Any] = {}
    for role in role_docs.roles():
        specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
        known |= next(iter(specs.values()))["options"]
    shared = re.findall(r"^\| `(raft_\w+)` \|", README.read_text(), re.MULTILINE)
    return known | dict.fromkeys(shared)


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
def test_an_example_of_an_inventory_sets_what_there_is(inventory: Path) -> None:
    """Also what it has commented out."""
    text = inventory.read_text()
    group = yaml.safe_load(text)["raft"]
    assert len(group["hosts"]) == 3
    named = set(re.findall(r"\b(raft_\w+):", text))
    assert named <= variables().keys()
    assert set(group["vars"]) - named == {"ansible_user"}


def test_the_page_on_the_boards_explains_what_their_inventory_sets() -> None:
    text = (ROOT / "ansible/inventory/rock5b.example.yml").read_text()
    named = set(re.findall(r"\b(raft_\w+):", text))
    assert len(named) >= 4
    page = (ROOT / "docs" / "rock5b.md").read_text()
    assert {name for name in named if f"`{name}" not in page and f"{name}:" not in page} == set()


@pytest.mark.parametrize("name", ["quickstart-lima.md", "quickstart-rock5b.md", "rock5b.md"])
def test_a_page_on_deployment_names_variables_that_there_are(name: str) -> None:
    page = (ROOT / "docs" / name).read_text()
    named = set(re.findall(r"\b(raft_(?:board|node|autobackup|ebpf|backup|force)\w*)", page))
    assert named <= variables().keys() | {"raft_board", "raft_node"}


def test_timing_in_the_pages_is_what_an_agent_takes() -> None:
    for match in re.finditer(r"timing: ({.*})", (ROOT / "docs" / "rock5b.md").read_text()):
        timing = yaml.safe_load(match[1])
        assert timing["heartbeat_interval_ms"] < timing["election_timeout_min_ms"]
        assert timing.keys() <= set(Timing.__struct_fields__)
