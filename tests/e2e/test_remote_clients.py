"""Clients over TLS against real agents: what each role may do, and who is refused and how."""

from __future__ import annotations

import asyncio
import datetime
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.api.client import AgentNotReachable, Client, Endpoint, RequestFailed, SyncClient
from raft_agent.tls.channel import Channel
from raft_agent.tls.credentials import PeerCertificate
from raft_agent.tls.errors import TlsError
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Identity, Kind, Role
from tests.e2e.agents import Agent, LocalCluster, free_ports, local_cluster, wait_for
from tests.e2e.certified import (
    LOOPBACK,
    answer,
    certified_cluster,
    endpoint,
    options,
    raftctl,
    replace,
    use,
)
from tests.unit.tls.papers import Office, client, node

DENIED = protocol.ErrorCode.PERMISSION_DENIED


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return Office(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def cluster(office: Office) -> Iterator[LocalCluster]:
    with certified_cluster(office) as running:
        yield running


@pytest.fixture
def leader(cluster: LocalCluster) -> Agent:
    return cluster.leader()


class Rogue(Endpoint):
    """Shows any certificate, and looks at nobody's."""

    def __init__(self, address: str, files: TlsFiles) -> None:
        host, _, port = address.rpartition(":")
        self.host, self.port, self._address = host, int(port), address
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.load_cert_chain(files.cert, files.key)

    def _channel(self) -> Channel:
        return Channel(self._context, server_side=False)

    def _check(self, _der: bytes) -> PeerCertificate:
        identity = Identity(Kind.NODE, "anybody")
        return PeerCertificate(identity, b"", 0, datetime.datetime.now(datetime.UTC))


def refusal(agent: Agent, files: TlsFiles) -> str:
    """What whoever shows these files is told when it wants to write."""
    with pytest.raises(AgentNotReachable) as caught, SyncClient(Rogue(agent.address, files)) as bad:
        bad.put("k", b"never")
    return str(caught.value)


def logged(agent: Agent, words: str) -> list[str]:
    """The agent's lines with these words, once there is one."""

    def found() -> list[str] | None:
        return [line for line in agent.log_text().splitlines() if words in line] or None

    return wait_for(f"{words!r} in the log of {agent.name}", found)


def audits(agent: Agent) -> list[str]:
    return [event.text for event in agent.events() if event.kind == "audit"]


# --- roles ----------------------------------------------------------------------------------------


def test_a_reader_reads_and_changes_nothing(leader: Agent, office: Office) -> None:
    with SyncClient(endpoint(leader, office, Role.READER)) as reader:
        assert reader.get("nothing") is None
        assert reader.request(protocol.Status(1)).node_id == leader.name
        for write in (
            protocol.Put(1, "k", b"v"),
            protocol.Send(1, "hi"),
            protocol.LeaseGrant(1, 5000),
            protocol.Leave(1, "node-02"),
        ):
            with pytest.raises(RequestFailed) as caught:
                reader.request(write)
            assert caught.value.code is DENIED


def test_a_writer_writes_and_leaves_the_cluster_alone(leader: Agent, office: Office) -> None:
    with SyncClient(endpoint(leader, office, Role.WRITER)) as writer:
        assert writer.put("written", b"by a writer").revision
        for change in (protocol.SettingSet(1, "messages_keep", 7), protocol.LeaderTransfer(1)):
            with pytest.raises(RequestFailed) as caught:
                writer.request(change)
            assert caught.value.code is DENIED
        found = writer.get("written")
        assert found is not None
        assert found.value == b"by a writer"


def test_an_admin_changes_the_cluster_and_that_is_kept(leader: Agent, office: Office) -> None:
    with SyncClient(endpoint(leader, office, Role.ADMIN, "carol")) as admin:
        admin.request(protocol.SettingSet(1, "messages_keep", 1234))
    [line] = [text for text in audits(leader) if "carol" in text]
    assert line.startswith("client carol (admin) at 127.0.0.1:")
    assert line.endswith(": setting_set name=messages_keep value=1234: done")
    assert f"INFO raft.audit {leader.name}" in leader.log_text()


def test_without_a_role_every_request_is_denied(leader: Agent, office: Office) -> None:
    with SyncClient(endpoint(leader, office, None)) as nobody:
        for request in (protocol.Status(1), protocol.Get(1, "k"), protocol.WatchMessages(1)):
            with pytest.raises(RequestFailed, match="gives no role") as caught:
                nobody.request(request)
            assert caught.value.code is DENIED


def test_a_follower_checks_before_it_passes_a_request_on(
    cluster: LocalCluster, office: Office
) -> None:
    follower, leader = cluster.followers()[0], cluster.leader()
    with SyncClient(endpoint(follower, office, Role.READER)) as reader:
        with pytest.raises(RequestFailed) as caught:
            reader.request(protocol.Put(1, "k", b"v", forward=True))
        assert caught.value.code is DENIED
    with SyncClient(endpoint(follower, office, Role.WRITER)) as writer:
        assert writer.put("by way of a follower", b"v").revision
    with SyncClient(endpoint(follower, office, Role.ADMIN, "dave")) as admin:
        admin.request(protocol.SettingSet(1, "messages_keep", 4321, True))
    what = "setting_set name=messages_keep value=4321: done"
    [asked] = [text for text in audits(follower) if what in text]
    assert asked.startswith("client dave (admin) at ")
    [served] = [text for text in audits(leader) if what in text]
    assert served == f"a client of {follower.name}: {what}"


def test_raftctl_reaches_an_agent_over_tls(leader: Agent, office: Office) -> None:
    files = office.issue(client("erin", Role.WRITER))
    done = raftctl("status", **options(leader, files))
    assert f"Node ID:      {leader.name}" in done.stdout
    done = raftctl("propose", "put", "far", "away", **options(leader, files))
    assert done.returncode == 0, done.stderr
    assert raftctl("propose", "get", "far", **options(leader, files)).stdout == "away\n"
    done = raftctl("-o", "json", "leave", "node-02", **options(leader, files))
    assert (done.returncode, answer(done)["code"]) == (1, "permission_denied")


def test_doctor_examines_an_agent_over_tls(leader: Agent, office: Office) -> None:
    files = office.issue(client("doctor", Role.READER))
    findings = answer(raftctl("-o", "json", "doctor", **options(leader, files)))["findings"]
    found = {finding["check"]: finding["level"] for finding in findings}
    assert found["tls"] == found["agent"] == found["quorum"] == "ok"
    done = raftctl("--server-name", "node-09", "doctor", **options(leader, files))
    assert done.returncode == 1
    assert "say by --server-name which node is meant" in done.stdout


def test_bench_runs_over_tls(leader: Agent, office: Office) -> None:
    files = office.issue(client("frank", Role.WRITER))
    for more in ((), ("--processes", "2")):
        words = ("-o", "json", "bench", "put", "--clients", "8", "--duration", "0.5")
        done = raftctl(*words, "--warmup", "0", *more, **options(leader, files))
        assert done.returncode == 0, done.stderr
        measured = answer(done)
        assert measured["ops"] > 0
        assert (measured["errors"], measured["unknown"]) in ((0, 0), ({}, 0))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_bench_keeps_to_its_rate_over_tls(leader: Agent, office: Office, processes: str) -> None:
    files = office.issue(client("grace", Role.WRITER))
    words = ("-o", "json", "bench", "put", "--clients", "4", "--rate", "10", "--duration", "2")
    done = raftctl(*words, "--warmup", "0", "--processes", processes, **options(leader, files))
    assert done.returncode == 0, done.stderr
    measured = answer(done)
    assert measured["rate"] == 10
    # One per process may be due at the very end, and one when it begins.
    assert 0 < measured["ops"] <= 10 * measured["duration_s"] + 2 * int(processes)


def test_bench_finds_the_leader_by_the_address_of_members(
    cluster: LocalCluster, office: Office
) -> None:
    follower, leader = cluster.followers()[0], cluster.leader()
    files = office.issue(client("henry", Role.WRITER))
    words = ("bench", "send", "--clients", "2", "--duration", "0.2", "--warmup", "0")
    done = raftctl(*words, **options(follower, files))
    assert done.returncode == 0, done.stderr
    assert f"going to {leader.name} at {leader.address}" in done.stderr


def test_a_watch_follows_over_tls(leader: Agent, office: Office) -> None:
    with (
        SyncClient(endpoint(leader, office, Role.READER)) as reader,
        SyncClient(endpoint(leader, office, Role.WRITER)) as writer,
    ):
        stream = reader.stream(protocol.WatchKeys(1, "seen/", prefix=True))
        next(stream)
        writer.put("seen/a", b"1" * 100_000)
        event = next(stream)
        assert (event.key, len(event.value)) == ("seen/a", 100_000)


def test_the_asyncio_client_finds_the_leader_over_tls(
    cluster: LocalCluster, office: Office
) -> None:
    async def main() -> None:
        agents = {agent.name: endpoint(agent, office, Role.WRITER) for agent in cluster}
        async with Client(agents, timeout_s=20) as some:
            done = await asyncio.gather(*(some.put(f"k{n}", b"x") for n in range(200)))
            assert len({result.revision for result in done}) == 200
            async with some.watch_keys("new/", prefix=True) as watch:
                await some.put("new/k", b"y")
                async for event in watch:
                    assert event.key == "new/k"
                    break

    asyncio.run(main())


def test_sighup_reads_the_certificates_again(cluster: LocalCluster) -> None:
    follower = cluster.followers()[0]

    def times_read() -> int:
        return sum(event.kind == "certificates_read" for event in follower.events())

    before = times_read()
    follower.signal(signal.SIGHUP)
    wait_for("the certificates to be read", lambda: times_read() > before or None)


# --- refusals -------------------------------------------------------------------------------------


def test_a_foreign_client_is_refused_with_one_line(leader: Agent, tmp_path: Path) -> None:
    foreign = Office(tmp_path).issue(client("mallory", Role.ADMIN))
    assert refusal(leader, foreign)
    [line] = logged(leader, "was not signed by an authority of this cluster")
    assert "WARNING raft.transport" in line


@pytest.mark.parametrize(
    ("at_days", "words"), [(-2, "certificate has expired"), (2, "certificate is not valid yet")]
)
def test_a_client_out_of_its_time_is_refused(
    leader: Agent, office: Office, at_days: int, words: str
) -> None:
    assert refusal(leader, office.issue(client("late", Role.ADMIN), at_days=at_days))
    assert logged(leader, words)


def test_a_nodes_certificate_is_no_clients(leader: Agent, office: Office) -> None:
    files = office.issue(node("node-09", LOOPBACK))
    with pytest.raises(TlsError, match="a client's is needed"):
        Endpoint(leader.address, files)
    with SyncClient(Rogue(leader.address, files)) as impostor:
        with pytest.raises(RequestFailed, match="no client's") as caught:
            impostor.put("k", b"never")
        assert caught.value.code is DENIED


def test_a_client_refuses_a_node_under_a_name_that_is_not_its_own(
    leader: Agent, office: Office
) -> None:
    files = office.issue(client("careful", Role.READER))
    with SyncClient(Endpoint(leader.address, files, server_name=leader.name)) as right:
        assert right.request(protocol.Status(1)).node_id == leader.name
    with (
        pytest.raises(AgentNotReachable, match="is for other hosts"),
        SyncClient(Endpoint(leader.address, files, server_name="node-99")),
    ):
        pass


def test_a_client_refuses_another_authoritys_node(leader: Agent, tmp_path: Path) -> None:
    files = Office(tmp_path).issue(client("lost", Role.READER))
    with (
        pytest.raises(AgentNotReachable, match="not signed by an authority"),
        SyncClient(Endpoint(leader.address, files)),
    ):
        pass


def test_a_revoked_client_is_out_at_once_and_for_good(
    cluster: LocalCluster, office: Office
) -> None:
    leader = cluster.leader()
    files = office.issue(client("eve", Role.ADMIN))
    with SyncClient(Endpoint(leader.address, files)) as standing:
        stream = standing.stream(protocol.WatchKeys(1, "k"))
        next(stream)
        serial = x509.load_pem_x509_certificate(Path(files.cert).read_bytes()).serial_number
        replace(office.crl, office.authority.revoke([serial], office.crl.read_bytes()))
        with pytest.raises(AgentNotReachable):
            next(stream)
    assert refusal(leader, files)
    assert logged(leader, "the certificate of client eve (admin) is revoked")
    with SyncClient(endpoint(leader, office, Role.READER)) as other:
        assert other.request(protocol.Status(1)).node_id == leader.name


def test_raftctl_says_what_is_wrong_with_its_own_files(leader: Agent, office: Office) -> None:
    files = office.issue(client("gina", Role.READER), at_days=-2)
    done = raftctl("status", **options(leader, files))
    assert done.returncode == 1
    assert f"{files.cert}: the certificate of" in done.stderr
    assert "has ended on" in done.stderr
    done = raftctl("--endpoint", leader.address, "status")
    assert done.returncode == 2
    assert "--endpoint takes --cacert and --cert and --key, too" in done.stderr


def test_a_name_that_is_not_in_the_nodes_certificate_leads_to_the_option_for_it(
    leader: Agent, office: Office
) -> None:
    given = options(leader, office.issue(client("hugo", Role.READER)))
    done = raftctl("--server-name", "node-99", "status", **given)
    assert done.returncode == 5
    assert "its certificate is for other hosts" in done.stderr
    assert "--server-name NAME" in done.stderr
    assert raftctl("--server-name", leader.name, "status", **given).returncode == 0


def test_requests_without_tls_are_refused_where_it_is_spoken(leader: Agent) -> None:
    host, _, port = leader.address.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as plain:
        body = protocol.ENCODER.encode([protocol.Put(1, "k", b"never")])
        plain.sendall(wire.encode(wire.FrameType.CLIENT_REQUEST, body, count=1))
        plain.settimeout(5)
        answered = b""
        while data := plain.recv(4096):
            answered += data
    assert b"revision" not in answered
    assert logged(leader, "a plain frame of type 32 where TLS is spoken")


def test_a_cluster_without_tls_says_so_once_and_serves_no_remote_clients(
    office: Office,
) -> None:
    with local_cluster(1, extra="[cluster]\nbootstrap = true\n") as alone:
        agent = alone.leader()
        [line] = [line for line in agent.log_text().splitlines() if "there is no [tls]" in line]
        assert "WARNING" in line
        with (
            pytest.raises(AgentNotReachable),
            SyncClient(endpoint(agent, office, Role.ADMIN)),
        ):
            pass
        assert agent.status() is not None


def test_a_new_node_with_a_certificate_is_added_because_it_asks(office: Office) -> None:
    with certified_cluster(office) as running:
        port = free_ports(1)[0]
        home = running.leader().directory.parent / "node-04"
        seeds = ", ".join(f'"{agent.address}"' for agent in running)
        new = Agent(
            "node-04",
            home,
            f'[server]\nnode_id = "node-04"\nlisten_addr = "127.0.0.1:{port}"\n'
            f'data_dir = "{home / "data"}"\nipc_socket = "{home / "ipc.sock"}"\n'
            f"[cluster]\njoin = [{seeds}]\n",
            (),
        )
        use(new, office.issue(node("node-04", LOOPBACK), crl=True))
        running.agents["node-04"] = new
        new.start()

        def is_voter() -> bool | None:
            status = new.status()
            return True if status is not None and "node-04" in status.voters else None

        wait_for("node-04 to be a voter", is_voter)
