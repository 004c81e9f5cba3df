"""raft.toml, the environment and --set: what is taken, and which of them wins."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from raft_agent.config import ConfigError, load
from raft_agent.config.schema import FIELDS, environment_name
from tests.unit.config_files import PEERS, SERVER, read, refusal


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "raft.toml"


TLS = '[tls]\nca = "/a/ca.pem"\ncert = "/a/cert.pem"\nkey = "/a/key.pem"\n'


def test_a_file_with_only_a_name_and_a_directory_gets_the_contracts_defaults(file: Path) -> None:
    config = read(file, SERVER)
    assert config.server.node_id == "node-01"
    assert config.server.listen_addr == "0.0.0.0:5555"
    assert config.server.data_dir == "/var/lib/raft"
    assert config.server.log_level == "info"
    assert config.ipc_socket == "/tmp/raft-node-01.sock"  # noqa: S108
    assert (config.server.ipc_group, config.server.http_addr) == (None, None)
    assert config.timing.heartbeat_interval_ms == 50
    assert config.timing.election_timeout_min_ms == 150
    assert config.timing.election_timeout_max_ms == 300
    assert (config.ebpf.enabled, config.ebpf.interface) == (False, "eth0")
    assert (config.ebpf.pin_dir, config.ebpf.firewall) == (None, "off")
    assert (config.cluster.name, config.cluster.bootstrap, config.cluster.join) == (
        "default",
        False,
        (),
    )
    assert (config.peers, config.notes) == ((), ())


def test_peers_are_sorted_by_name(file: Path) -> None:
    config = read(file, SERVER + PEERS)
    assert [(peer.id, peer.address) for peer in config.peers] == [
        ("node-02", "10.0.0.2:5555"),
        ("node-03", "10.0.0.3:5555"),
    ]


def test_every_key_can_be_set_by_environment_and_by_override(file: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    samples = {
        "server.node_id": "other",
        "server.listen_addr": "127.0.0.1:7000",
        "server.advertise_addr": "10.9.9.9:7000",
        "server.data_dir": "/srv/raft",
        "server.log_level": "debug",
        "server.log_format": "json",
        "server.ipc_socket": "/run/raft/other.sock",
        "server.ipc_group": group,
        "server.http_addr": "127.0.0.1:9555",
        "timing.heartbeat_interval_ms": "40",
        "timing.election_timeout_min_ms": "160",
        "timing.election_timeout_max_ms": "320",
        "timing.disk_stall_ms": "4000",
        "timing.clock_drift_ppm": "200",
        "timing.state_check_interval_ms": "5000",
        "storage.snapshot_entries": "5000",
        "storage.snapshot_log_mib": "8",
        "ebpf.enabled": "true",
        "ebpf.interface": "auto",
        "ebpf.pin_dir": "/sys/fs/bpf/other",
        "ebpf.fresh_ms": "2000",
        "ebpf.firewall": "audit",
        "ebpf.firewall_allow": "192.0.2.7, 10.0.0.0/8",
        "cluster.name": "staging",
        "cluster.bootstrap": "true",
        "cluster.join": "10.0.0.1:5555, 10.0.0.2:5555",
        "cluster.token": "0123456789abcdef",
        "tls.ca": "/etc/raft/other-ca.pem",
        "tls.cert": "/etc/raft/other.pem",
        "tls.key": "/etc/raft/other-key.pem",
        "tls.crl": "/etc/raft/crl.pem",
        "tls.clear_headers": "false",
    }
    assert samples.keys() == {
        f"{section}.{name}" for section, fields in FIELDS.items() for name in fields
    }
    for key, text in samples.items():
        section, name = key.split(".")
        # One of the files alone is refused.
        start = SERVER + TLS if section == "tls" else SERVER
        default = getattr(getattr(read(file, start), section), name)
        by_environment = read(file, start, **{environment_name(section, name): text})
        by_override = read(file, start, f"{key}={text}")
        value = getattr(getattr(by_environment, section), name)
        assert value == getattr(getattr(by_override, section), name)
        assert value != default, key
        assert type(value) is FIELDS[section][name].kind, key


def test_an_override_wins_over_the_environment_and_that_over_the_file(file: Path) -> None:
    assert read(file, SERVER, RAFT_SERVER_NODE_ID="b").server.node_id == "b"
    config = read(file, SERVER, "server.node_id=c", "server.node_id=d", RAFT_SERVER_NODE_ID="b")
    assert config.server.node_id == "d"


def test_a_value_that_is_overridden_need_not_be_right(file: Path) -> None:
    text = '[server]\nnode_id = 5\ndata_dir = "/d"\n'
    assert read(file, text, "server.node_id=a").server.node_id == "a"


def test_an_empty_variable_counts_as_not_set_and_an_empty_override_as_the_default(
    file: Path,
) -> None:
    text = SERVER + 'log_level = "debug"\n'
    assert read(file, text, RAFT_SERVER_LOG_LEVEL="").server.log_level == "debug"
    assert read(file, text, "server.log_level=").server.log_level == "info"


def test_peers_can_be_set_as_one_list(file: Path) -> None:
    config = read(file, SERVER + PEERS, RAFT_PEERS="b=10.1.0.2:1, c=10.1.0.3:2")
    assert [(peer.id, peer.address) for peer in config.peers] == [
        ("b", "10.1.0.2:1"),
        ("c", "10.1.0.3:2"),
    ]
    assert [peer.id for peer in read(file, SERVER + PEERS, "peers=x=h:1").peers] == ["x"]
    assert "has no" in refusal(file, SERVER, "peers=10.1.0.2:1")


def test_the_log_filter_is_no_key(file: Path) -> None:
    config = read(file, SERVER, RAFT_LOG="debug", RAFT_LOG_FORMAT="json")
    assert (config.server.log_level, config.server.log_format) == ("info", "text")


def test_a_variable_that_looks_like_a_key_is_noted_and_those_of_kubernetes_are_not(
    file: Path,
) -> None:
    config = read(
        file,
        SERVER,
        RAFT_SERVER_NODEID="x",
        RAFT_SERVER_PORT="tcp://10.0.0.1:5555",
        RAFT_SERVER_SERVICE_HOST="10.0.0.1",
    )
    assert config.notes == (
        "RAFT_SERVER_NODEID in the environment is not a key and has no effect; "
        "RAFT_SERVER_NODE_ID is one",
    )


def test_paths_do_not_depend_on_a_later_working_directory(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = read(file, SERVER, "server.data_dir=here", "server.ipc_socket=s")
    assert config.server.data_dir == str(tmp_path / "here")
    assert config.ipc_socket == str(tmp_path / "s")


def test_it_remembers_what_to_load_again(file: Path) -> None:
    config = read(file, SERVER, "server.log_level=debug")
    again = load(Path(config.path), overrides=config.overrides, environ={})
    assert again == config


def test_what_this_version_lacks_is_accepted_and_noted(file: Path) -> None:
    text = SERVER + '[cluster]\njoin = ["10.0.0.1:5555"]\n'
    notes = read(file, text).notes
    assert [note.split(" is set")[0] for note in notes] == [
        "cluster.join",
    ]


def test_unwise_timeouts_are_noted(file: Path) -> None:
    text = SERVER + "[timing]\nelection_timeout_min_ms = 60\nelection_timeout_max_ms = 60\n"
    first, second = read(file, text).notes
    assert "split the votes" in first
    assert "one lost heartbeat" in second


def test_one_list_of_all_members_serves_every_node(file: Path) -> None:
    text = SERVER + PEERS + '[[peers]]\nid = "node-01"\naddress = "10.0.0.1:5555"\n'
    config = read(file, text)
    assert [peer.id for peer in config.peers] == ["node-02", "node-03"]
    assert config.advertise_address() == "10.0.0.1:5555"


def test_an_own_entry_that_contradicts_the_own_address_is_refused(file: Path) -> None:
    text = SERVER + 'listen_addr = "10.0.0.9:5555"\n' + PEERS.replace("node-02", "node-01")
    assert refusal(file, text) == (
        'raft.toml:10: the peer "node-01" has this node\'s own name, but the address '
        "10.0.0.2:5555 instead of 10.0.0.9:5555: correct server.node_id, or this address"
    )


def test_another_peer_with_the_own_address_is_refused(file: Path) -> None:
    text = SERVER + 'advertise_addr = "10.0.0.2:5555"\n' + PEERS
    assert refusal(file, text) == (
        'raft.toml:10: the peer "node-02" has this node\'s own address 10.0.0.2:5555'
    )


def test_a_node_that_is_its_only_peer_is_told_how_to_found_a_cluster(file: Path) -> None:
    text = SERVER + '[[peers]]\nid = "node-01"\naddress = "10.0.0.1:5555"\n'
    assert "bootstrap = true" in refusal(file, text)


def test_the_listen_address_is_advertised_unless_it_is_a_wildcard(file: Path) -> None:
    config = read(file, SERVER, "server.listen_addr=127.0.0.1:6001")
    assert config.advertise_address() == "127.0.0.1:6001"
    config = read(file, SERVER, "server.advertise_addr=node.example:6002")
    assert config.advertise_address() == "node.example:6002"


def test_behind_a_wildcard_the_route_to_the_peers_tells_the_address(file: Path) -> None:
    config = read(file, SERVER, "server.listen_addr=0.0.0.0:6001", "peers=b=127.0.0.1:6002")
    assert config.advertise_address() == "127.0.0.1:6001"


def test_without_a_route_to_any_peer_it_says_what_to_set(file: Path) -> None:
    config = read(file, SERVER, "peers=b=no-such-host.invalid:6002")
    with pytest.raises(ConfigError, match=r'set server.advertise_addr = "ADDRESS:5555"'):
        config.advertise_address()
