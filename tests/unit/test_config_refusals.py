"""What a configuration is refused for, and that people are told where and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft_agent.config import ConfigError, load
from raft_agent.config.values import MAX_SOCKET_PATH_BYTES, split_address
from tests.unit.config_files import PEERS, SERVER, read, refusal

SERVER_KEYS = (
    "[server] has node_id, listen_addr, advertise_addr, data_dir, log_level, log_format, "
    "ipc_socket, ipc_group, http_addr"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "raft.toml"


def test_everything_wrong_in_a_file_is_said_at_once_in_its_order(file: Path) -> None:
    text = """\
# a comment
[server]
node_id = "node 1"
listen_adr = "10.0.0.1:5555"
motto = '''
two
lines'''
data_dir = 5

[timing]
heartbeat_interval_ms = 200

[[peers]]
id = "a"
address = "0.0.0.0:5555"
[[peers]]
id = "b"
[tsl]
[servr]
"""
    assert refusal(file, text).splitlines() == [
        "raft.toml:3: server.node_id must start with a letter or digit and hold only "
        'A-Z a-z 0-9 . _ -, but is "node 1"',
        "raft.toml:4: unknown key server.listen_adr; did you mean server.listen_addr?",
        f"raft.toml:5: unknown key server.motto; {SERVER_KEYS}",
        "raft.toml:8: server.data_dir must be a string, but is 5",
        "raft.toml:11: timing.election_timeout_min_ms (150, the default) must be greater than "
        "timing.heartbeat_interval_ms (200), else followers stand for election under a living "
        "leader; about 600 is usual",
        'raft.toml:15: the peer\'s address must be an address that can be dialled; "0.0.0.0" '
        "stands for every interface of a machine and means nothing to others",
        "raft.toml:16: this peer has no address",
        "raft.toml:18: unknown section tsl; did you mean tls?",
        "raft.toml:19: unknown section servr; did you mean server?",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('server = {node_id = "a", data_dir = "/d", colour = 1}\n', 1),
        ('server.node_id = "a"\nserver.data_dir = "/d"\nserver.colour = 1\n', 3),
        ('\n[server]\nnode_id = "a"\ndata_dir = "/d"\n"colour" = [\n1,\n2]\n', 5),
    ],
)
def test_the_line_is_found_in_every_style_of_toml(file: Path, text: str, line: int) -> None:
    assert refusal(file, text) == f"raft.toml:{line}: unknown key server.colour; {SERVER_KEYS}"


@pytest.mark.parametrize(
    ("key", "given", "proposed"),
    [
        ("listen_addr", "10.0.0.1", "10.0.0.1:5555"),
        ("listen_addr", "5556", "127.0.0.1:5556"),
        ("listen_addr", "10.0.0.1:", "10.0.0.1:5555"),
        ("listen_addr", ":5556", "0.0.0.0:5556"),
        ("http_addr", "localhost", "localhost:9555"),
        ("http_addr", "9555", "127.0.0.1:9555"),
    ],
)
def test_half_an_address_is_answered_with_a_whole_one(
    file: Path, key: str, given: str, proposed: str
) -> None:
    text = f'[server]\nnode_id = "a"\ndata_dir = "/d"\n{key} = "{given}"\n'
    assert f'"{proposed}"' in refusal(file, text)
    file.write_text(text.replace(f'"{given}"', f'"{proposed}"'))
    assert getattr(load(file, environ={}).server, key) == proposed


def test_a_key_in_the_wrong_place_is_told_its_section(file: Path) -> None:
    text = 'log_level = "info"\n' + SERVER + "[cluster]\nheartbeat_interval_ms = 5\n"
    assert refusal(file, text).splitlines() == [
        "raft.toml:1: unknown key log_level; did you mean server.log_level?",
        "raft.toml:6: unknown key cluster.heartbeat_interval_ms; did you mean "
        "timing.heartbeat_interval_ms?",
    ]


def test_a_key_like_no_other_is_told_which_there_are(file: Path) -> None:
    sections = "the sections are server, timing, storage, ebpf, cluster, tls, peers"
    said = refusal(file, "foo = 1\n" + SERVER, "server.nope=1", "no.such=1", "foo=1").splitlines()
    assert said == [
        f"raft.toml:1: unknown key foo: keys are in sections, as in server.node_id; {sections}",
        f"--set server.nope=1: unknown key server.nope; {SERVER_KEYS}",
        f"--set no.such=1: unknown key no.such; {sections}",
        f"--set foo=1: unknown key foo: keys are in sections, as in server.node_id; {sections}",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.b = 1\na.b = 2\n", 'raft.toml:2: is not valid TOML: "a.b" is there already'),
        ("b = 1\nb = 2", 'raft.toml:2: is not valid TOML: "b" is there already'),
        ("x = {b = 1, b = 2}\n", 'raft.toml:1: is not valid TOML: "b" is there already'),
        (
            "[server]\nnode_id = '1'\n[server]\n",
            "raft.toml:3: is not valid TOML: [server] is there already",
        ),
        ("[peers]\n[[peers]]\n", "raft.toml:2: is not valid TOML: [[peers]] is there already"),
    ],
)
def test_what_is_there_twice_is_named(file: Path, text: str, said: str) -> None:
    assert refusal(file, text) == said


def test_a_boolean_is_shown_as_toml_writes_it(file: Path) -> None:
    text = "timing.heartbeat_interval_ms = true\nebpf.interface = false\n" + SERVER
    assert refusal(file, text).splitlines() == [
        "raft.toml:1: timing.heartbeat_interval_ms must be a whole number, but is true",
        "raft.toml:2: ebpf.interface must be a string, but is false",
    ]


@pytest.mark.parametrize(
    "wrong", ['id = "node-02"\naddress = "nowhere"\n', 'address = "10.0.0.2:5555"\n']
)
def test_a_wrong_peer_is_the_only_thing_wrong(file: Path, wrong: str) -> None:
    own = '[[peers]]\nid = "node-01"\naddress = "10.0.0.1:5555"\n'
    for peers in (f"{own}[[peers]]\n{wrong}", f"[[peers]]\n{wrong}{own}"):
        assert len(refusal(file, SERVER + peers).splitlines()) == 1
    said = refusal(file, SERVER, "peers=node-01=10.0.0.1:5555,node-02")
    assert said.endswith('"node-02" has no "="')
    assert len(said.splitlines()) == 1


def test_the_log_filter_in_the_environment_is_checked_like_a_key(file: Path) -> None:
    said = refusal(file, SERVER, RAFT_LOG="xx", RAFT_LOG_FORMAT="yy").splitlines()
    assert said[0].startswith(
        'RAFT_LOG in the environment: must hold levels like "info" or "info,raft.transport=debug"; '
        '"xx" is none of'
    )
    assert said[1:] == ['RAFT_LOG_FORMAT in the environment: must be text or json; "yy" is neither']
    assert read(file, SERVER, RAFT_LOG=" ", RAFT_LOG_FORMAT="json").server.log_format == "text"


def test_a_syntax_error_has_its_line(file: Path) -> None:
    assert refusal(file, SERVER + "log_level = info\n").startswith(
        "raft.toml:4: is not valid TOML: "
    )
    assert refusal(file, '[server]\nnode_id = "a').startswith("raft.toml:2: is not valid TOML")


@pytest.mark.parametrize("value", ["info", "node-01", "10.0.0.1:5555", "/var/lib"])
def test_forgotten_quotes_are_named(file: Path, value: str) -> None:
    said = refusal(file, SERVER + f"key = {value}  # comment\n")
    assert said.endswith(f'text needs quotes: key = "{value}"')


def test_a_missing_or_unreadable_file_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"raft\.toml: can't be read: No such file"):
        load(file, environ={})
    file.write_bytes(b"[server]\nnode_id = '\xff'\n")
    with pytest.raises(ConfigError, match=r"raft\.toml:2: is not UTF-8"):
        load(file, environ={})


def test_name_and_directory_are_required(file: Path) -> None:
    assert refusal(file, "[server]\n").splitlines() == [
        'raft.toml:1: server.node_id is missing: add node_id = "node-01" to [server]',
        'raft.toml:1: server.data_dir is missing: add data_dir = "/var/lib/raft" to [server]',
    ]
    assert refusal(file, "").startswith("raft.toml: server.node_id is missing")


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("server.node_id", "5", "a string"),
        ("timing.heartbeat_interval_ms", '"50"', "a whole number"),
        ("timing.heartbeat_interval_ms", "50.0", "a whole number"),
        ("timing.heartbeat_interval_ms", "true", "a whole number"),
        ("ebpf.enabled", "1", "true or false"),
        ("cluster.join", '"10.0.0.1:5555"', "a list of strings"),
        ("cluster.join", "[1]", "a list of strings"),
    ],
)
def test_a_wrong_type_is_refused_with_the_right_one(
    file: Path, key: str, value: str, wanted: str
) -> None:
    assert f"{key} must be {wanted}, but is" in refusal(file, f"{key} = {value}\n")


def test_a_wrong_value_outside_the_file_is_placed_where_it_was_said(file: Path) -> None:
    said = refusal(
        file,
        SERVER,
        "timing.election_timeout_min_ms=soon",
        "no.such=key",
        "server.node_id",
        RAFT_EBPF_ENABLED="maybe",
    )
    assert len(said.splitlines()) == 4
    assert "--set no.such=key: unknown key no.such" in said
    assert "--set server.node_id: must have the form section.key=value" in said
    assert (
        "--set timing.election_timeout_min_ms=soon: timing.election_timeout_min_ms must be "
        'a whole number, but is "soon"' in said
    )
    assert (
        "RAFT_EBPF_ENABLED in the environment: ebpf.enabled must be true or false, "
        'but is "maybe"' in said
    )


@pytest.mark.parametrize(
    ("text", "override"),
    [
        ("", "cluster.token=hunter2"),
        ("", "cluster.tokn=hunter2"),
        ("", "token=hunter2"),
        ("", "cluster.token hunter2"),
        ("", "cluster.TOKEN=hunter2"),
        ("[cluster]\ntoken = ['hunter2']\n", "cluster.name=x"),
        ("[cluster]\ntoken = hunter2\n", "cluster.name=x"),
    ],
)
def test_a_secret_that_is_refused_is_not_shown(file: Path, text: str, override: str) -> None:
    said = refusal(file, SERVER + text, override)
    assert "tok" in said.lower()
    assert "hunter2" not in said


def test_a_secret_in_the_environment_that_is_refused_is_not_shown(file: Path) -> None:
    said = refusal(file, SERVER, RAFT_CLUSTER_TOKEN="hunter2")
    assert "RAFT_CLUSTER_TOKEN" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "-a", ".hidden", "ü", "a\n", "x" * 64])
def test_a_name_that_is_unfit_for_files_and_sockets_is_refused(file: Path, name: str) -> None:
    text = SERVER.replace('"node-01"', f"{name!r}" if "\n" not in name else '"a\\n"')
    assert "raft.toml:2: server.node_id must" in refusal(file, text)


@pytest.mark.parametrize("name", ["a", "node-01", "Node_1.eu", "x" * 63, "7"])
def test_a_fit_name_is_taken(file: Path, name: str) -> None:
    assert read(file, SERVER.replace("node-01", name)).server.node_id == name


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:http",
        "10.0.0.1:-1",
        ":5555",
        "*:5555",
        "10.0.0.256:5555",
        "10.0.1:5555",
        "fe80::1:5555",
        "[fe80::zz]:5555",
        "a b:5555",
        "-a:5555",
        "",
    ],
)
def test_an_unusable_address_is_refused(file: Path, address: str) -> None:
    text = SERVER + f'listen_addr = "{address}"\n'
    assert "raft.toml:4: server.listen_addr must" in refusal(file, text)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("10.0.0.1:5555", ("10.0.0.1", 5555)),
        ("node-01.example:1", ("node-01.example", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[::]:5555", ("::", 5555)),
    ],
)
def test_usable_addresses_are_taken_apart(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["0.0.0.0:5555", "[::]:5555"])
def test_nobody_can_dial_a_wildcard(file: Path, address: str) -> None:
    for override in (
        f"server.advertise_addr={address}",
        f"cluster.join={address}",
        f"peers=b={address}",
    ):
        assert "can be dialled" in refusal(file, SERVER, override)


def test_ids_and_addresses_of_peers_are_used_once(file: Path) -> None:
    assert refusal(file, SERVER + PEERS.replace("node-02", "node-03")) == (
        'raft.toml:8: two peers have the id "node-03"; every member needs a name of its own'
    )
    assert refusal(file, SERVER + PEERS.replace("0.0.2", "0.0.3")) == (
        'raft.toml:9: the peers "node-03" and "node-02" have the same address 10.0.0.3:5555'
    )


def test_peers_must_be_an_array_of_tables_with_known_keys(file: Path) -> None:
    assert "[[peers]]" in refusal(file, SERVER + '[peers]\nid = "a"\n')
    assert "unknown key port of a peer" in refusal(file, SERVER + PEERS + "port = 5\n")


@pytest.mark.parametrize("low", [50, 49])
def test_the_election_timeout_must_be_greater_than_the_heartbeat(file: Path, low: int) -> None:
    text = SERVER + f"[timing]\nelection_timeout_min_ms = {low}\nheartbeat_interval_ms = 50\n"
    assert refusal(file, text).startswith(
        f"raft.toml:5: timing.election_timeout_min_ms ({low}) must be greater than "
        "timing.heartbeat_interval_ms (50)"
    )


def test_the_longest_timeout_must_not_be_less_than_the_shortest(file: Path) -> None:
    assert refusal(file, SERVER + "[timing]\nelection_timeout_min_ms = 500\n") == (
        "raft.toml:5: timing.election_timeout_max_ms (300, the default) must not be less than "
        "timing.election_timeout_min_ms (500); about 1000 is usual"
    )


@pytest.mark.parametrize("value", [0, -5, 600_001])
def test_times_have_bounds(file: Path, value: int) -> None:
    text = SERVER + f"[timing]\nheartbeat_interval_ms = {value}\n"
    assert "must be from 1 to 600000 milliseconds" in refusal(file, text)


@pytest.mark.parametrize(
    "cluster",
    [
        "[cluster]\nbootstrap = true\n" + PEERS,
        '[cluster]\njoin = ["10.0.0.1:5555"]\n' + PEERS,
        '[cluster]\nbootstrap = true\njoin = ["10.0.0.1:5555"]\n',
    ],
)
def test_ways_to_start_exclude_each_other(file: Path, cluster: str) -> None:
    assert refusal(file, SERVER + cluster).endswith("remove one of the two")


def test_a_socket_path_that_the_system_can_not_hold_is_refused(file: Path) -> None:
    fits = "/" + "s" * (MAX_SOCKET_PATH_BYTES - 1)
    assert read(file, SERVER, f"server.ipc_socket={fits}").ipc_socket == fits
    assert "limit for sockets" in refusal(file, SERVER, f"server.ipc_socket={fits}s")


def test_a_group_that_does_not_exist_is_refused_with_the_command_that_makes_it(
    file: Path,
) -> None:
    assert "groupadd --system no-such-group" in refusal(
        file, SERVER, "server.ipc_group=no-such-group"
    )


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "a b", "a/b"])
def test_an_interface_name_that_can_not_be_is_refused(file: Path, name: str) -> None:
    assert "ebpf.interface must" in refusal(file, SERVER + f'[ebpf]\ninterface = "{name}"\n')


def test_log_levels_and_formats_are_checked(file: Path) -> None:
    assert '"loud" is none of debug' in refusal(file, SERVER, "server.log_level=loud")
    assert "raft.sound" in refusal(file, SERVER, "server.log_level=info,raft.sound=debug")
    assert '"text" or "json"' in refusal(file, SERVER, "server.log_format=xml")


def test_a_section_must_be_a_table(file: Path) -> None:
    assert refusal(file, f"timing = 5\n{SERVER}") == (
        "raft.toml:1: timing must be a table: write [timing]"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a = {'[' * 3000}", "recursion"),
        (f"a = {'{a = ' * 1000}", "recursion"),
        (f"[timing]\nheartbeat_interval_ms = {'1' * 5000}\n", "4300 digits"),
        ("#" * (64 << 10) + "\n", "is larger than 65536 bytes"),
    ],
    ids=["arrays", "tables", "digits", "size"],
)
def test_toml_that_asks_too_much_of_the_parser_is_refused(file: Path, text: str, said: str) -> None:
    assert said in refusal(file, text)


def test_a_very_long_file_is_refused_without_a_search_for_the_lines(file: Path) -> None:
    assert refusal(file, "\n" * 5_000 + "[servr]\n").startswith("raft.toml: unknown section servr")
