"""Whose data a directory holds, and where others dial its node."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from raft_agent.config import Config, load
from raft_agent.consensus.types import Configuration, LogImage, Member, Vote
from raft_agent.runtime.identity import check_owner, make_node, own_address
from raft_agent.storage.errors import StorageError
from raft_agent.storage.store import Recovered

OWN_ID = 0xA1


def config_for(directory: Path, listen_addr: str, more: str = "") -> Config:
    path = directory / "raft.toml"
    path.write_text(
        f'[server]\nnode_id = "node-01"\nlisten_addr = "{listen_addr}"\n'
        f'data_dir = "{directory}"\nipc_socket = "{directory}/s"\n{more}'
        "[cluster]\nbootstrap = true\n"
    )
    return load(path, environ={})


def found(*members: Member) -> Recovered:
    """A data directory whose newest configuration has these members."""
    older = Configuration("c1", (Member(OWN_ID, "older", "older:1"),), (OWN_ID,))
    newest = Configuration("c1", members, tuple(item.id for item in members))
    image = LogImage(last_index=2, configurations=((1, older), (2, newest)))
    return Recovered(OWN_ID, "c1", Vote(), None, image, 0, [])


def own(address: str) -> Recovered:
    return found(Member(OWN_ID, "node-01", address), Member(0xB2, "node-02", "127.0.0.1:9"))


EMPTY = Recovered(OWN_ID, "", Vote(), None, LogImage(), 0, [])


def test_the_directory_of_another_name_is_refused(tmp_path: Path) -> None:
    config = config_for(tmp_path, "127.0.0.1:5555")
    with pytest.raises(StorageError, match=r"holds the data of the member 'node-02' \(id 0+a1\)"):
        check_owner(config, found(Member(OWN_ID, "node-02", "127.0.0.1:5555")))


def test_an_own_an_empty_and_a_removed_members_directory_are_taken(tmp_path: Path) -> None:
    config = config_for(tmp_path, "127.0.0.1:5555")
    for recovered in (own("127.0.0.1:5555"), EMPTY, found(Member(0xB2, "node-02", "b:1"))):
        check_owner(config, recovered)


@pytest.mark.parametrize(
    ("listen_addr", "joined_as", "dialled"),
    [
        ("127.0.0.1:5555", "localhost:5555", "localhost:5555"),
        ("0.0.0.0:5555", "localhost:5555", "localhost:5555"),
        ("0.0.0.0:5555", "127.0.0.2:5555", "127.0.0.2:5555"),
        # Another port, another address of this machine, and nobody's address.
        ("127.0.0.1:5556", "localhost:5555", "127.0.0.1:5556"),
        ("127.0.0.1:5555", "127.0.0.2:5555", "127.0.0.1:5555"),
        ("127.0.0.1:5555", "192.0.2.1:5555", "127.0.0.1:5555"),
    ],
)
def test_the_name_people_joined_a_node_by_stands_while_it_listens_there(
    tmp_path: Path, listen_addr: str, joined_as: str, dialled: str
) -> None:
    assert own_address(config_for(tmp_path, listen_addr), own(joined_as)) == dialled


def test_what_the_configuration_file_advertises_goes_before_what_was_joined(tmp_path: Path) -> None:
    config = config_for(tmp_path, "127.0.0.1:5555", 'advertise_addr = "host.example:5555"\n')
    assert own_address(config, own("localhost:5555")) == "host.example:5555"


def test_a_node_in_no_cluster_says_what_its_file_says(tmp_path: Path) -> None:
    assert own_address(config_for(tmp_path, "127.0.0.1:5555"), EMPTY) == "127.0.0.1:5555"


def test_who_had_a_log_that_was_put_aside_founds_no_cluster(tmp_path: Path) -> None:
    config = config_for(tmp_path, "127.0.0.1:5555")
    assert make_node(config, EMPTY, "127.0.0.1:5555").next_deadline_us is not None
    put_aside = msgspec.structs.replace(EMPTY, is_to_be_joined=True)
    assert make_node(config, put_aside, "127.0.0.1:5555").next_deadline_us is None
