"""Transactions and leases as clients ask for them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import Client, RequestFailed, SyncClient
from raft_agent.api.protocol import (
    Compare,
    DeleteKey,
    GetKey,
    ListKeys,
    PutKey,
    Relation,
    Target,
)
from raft_agent.machine import transactions
from raft_agent.machine.commands import ExpireLease
from tests.unit.api.raw_client import RawClient, connected
from tests.unit.api.single_node import SingleNode, run, serving

Check = Callable[[Client, SingleNode], Awaitable[None]]


def with_client(tmp_path: Path, check: Check) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Client(tmp_path / "s") as client:
            await check(client, node)

    run(main())


def with_raw(tmp_path: Path, check: Callable[[RawClient, SingleNode], Awaitable[None]]) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), connected(tmp_path / "s") as client:
            await check(client, node)

    run(main())


def test_a_transaction_does_one_branch_and_says_which(tmp_path: Path) -> None:
    async def check(client: Client, _node: SingleNode) -> None:
        await client.put("balance", b"5")
        compares = [Compare(Target.VALUE, "balance", Relation.EQUAL, b"5")]
        then = [PutKey("balance", b"4"), PutKey("spent", b"1")]
        done = await client.txn(compares, then, [GetKey("balance")])
        assert (done.succeeded, done.revision) == (True, 2)
        again = await client.txn(compares, then, [GetKey("balance"), ListKeys("", 1)])
        assert (again.succeeded, again.revision) == (False, 2)
        assert again.results[0].keys == [protocol.KeyValue("balance", b"4", 2, 1, 2)]
        assert again.results[1].more

    with_client(tmp_path, check)


def test_a_transaction_in_json_has_values_in_base64(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        value = base64.b64encode(b"\x00\xff").decode()
        [reply] = await client.ask(
            [
                "txn",
                1,
                [["value", "k", "!=", value], ["version", "k", "<", 1]],
                [["put", "k", value], ["get", "k"], ["delete_prefix", "x/"]],
            ],
            as_json=True,
        )
        assert reply[1] is None
        assert reply[2]["succeeded"] is True
        assert reply[2]["results"][1]["keys"][0]["value"] == value
        [reply] = await client.ask(["txn", 1, [["value", "k", "=", value]], []], as_json=True)
        assert reply[1]["code"] == "bad_request"  # it would do nothing

    with_raw(tmp_path, check)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([[["age", "k", "=", 1]], [["get", "k"]]], "age"),
        ([[["value", "k", "~", b""]], [["get", "k"]]], "~"),
        ([[["value", "k", "=", 1]], [["get", "k"]]], "compared with a value"),
        ([[], [["txn", []]]], "txn"),
        ([[], [["put", "k"]]], "length"),
        ([[], [["put", "k", b""], ["delete", "k"]]], "changed twice"),
        ([[], [["get", "k"]] * (transactions.MAX_OPERATIONS + 1)], "limit is 128"),
        ([[], [["delete", "k" * 5000]]], "4096"),
    ],
)
def test_a_transaction_that_makes_no_sense_is_a_bad_request(
    tmp_path: Path, fields: list[Any], words: str
) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        [reply] = await client.ask(["txn", 1, *fields])
        assert reply[1]["code"] == "bad_request"
        assert words in reply[1]["error"]
        assert node.machine.last_applied == 0

    with_raw(tmp_path, check)


def test_a_lease_holds_its_keys_until_it_ends(tmp_path: Path) -> None:
    async def check(client: Client, node: SingleNode) -> None:
        granted = await client.lease_grant(5)
        assert granted.ttl_ms == 5000
        await client.put("k", b"v", lease=granted.lease)
        found = await client.get("k")
        assert found is not None
        assert found.lease == granted.lease
        assert (await client.list("k")).keys == [found]
        assert (await client.lease_keepalive(granted.lease)) == granted
        shown = await client.lease_show(granted.lease)
        assert shown == protocol.LeaseInfo(granted.lease, 5000, 5000, 1, ["k"])
        assert await client.lease_list() == [protocol.LeaseInfo(granted.lease, 5000, 5000, 1)]
        renewed = node.machine.leases.get(granted.lease)
        assert renewed is not None
        node.apply_commands([ExpireLease(granted.lease, renewed.renewed_index)])
        assert await client.get("k") is None

    with_client(tmp_path, check)


def test_what_is_asked_of_a_lease_that_has_ended_is_refused_in_plain_words(tmp_path: Path) -> None:
    async def check(client: Client, _node: SingleNode) -> None:
        lease = (await client.lease_grant(5)).lease
        await client.put("k", b"v", lease=lease)
        assert (await client.lease_revoke(lease)).deleted == 1
        for ask in (
            client.lease_keepalive(lease),
            client.lease_revoke(lease),
            client.lease_show(lease),
            client.put("k", b"", lease=lease),
            client.txn([], [PutKey("k", b"", lease)]),
        ):
            with pytest.raises(RequestFailed, match=f"no lease {lease}, or no longer") as refused:
                await ask
            assert refused.value.code is protocol.ErrorCode.LEASE_NOT_FOUND
        with pytest.raises(RequestFailed, match="from 1000 to"):
            await client.lease_grant(0.5)

    with_client(tmp_path, check)


def test_a_follower_passes_leases_and_transactions_on_to_the_leader(tmp_path: Path) -> None:
    async def main() -> None:
        leader, follower = SingleNode("node-01"), SingleNode("node-02")
        async with serving(leader, tmp_path / "l") as api, serving(follower, tmp_path / "f"):
            follower.leader, follower.leader_api = "node-01", api
            async with Client(tmp_path / "f") as client:
                lease = (await client.lease_grant(5)).lease
                await client.txn([], [PutKey("k", b"", lease)])
                await client.lease_keepalive(lease)
                shown = await client.lease_show(lease)
                assert (shown.remaining_ms, shown.keys) == (5000, ["k"])
                await client.lease_revoke(lease)
            async with connected(tmp_path / "f") as raw:
                for request in (["txn", 1, [], [["get", "k"]]], ["lease_grant", 1, 5000]):
                    [reply] = await raw.ask(request)
                    assert reply[1]["code"] == "not_leader"

    run(main())


def test_the_blocking_client_has_all_of_it(tmp_path: Path) -> None:
    def use() -> None:
        with SyncClient(str(tmp_path / "s")) as client:
            lease = client.lease_grant(5).lease
            client.put("k/1", b"1", lease=lease)
            client.put("k/2", b"2", if_revision=0)
            page = client.list("k/", limit=1)
            assert ([item.key for item in page.keys], page.more) == (["k/1"], True)
            assert client.lease_keepalive(lease).ttl_ms == 5000
            done = client.txn([], [DeleteKey("k/2"), GetKey("k/1")])
            assert [item.deleted for item in done.results] == [1, 0]
            assert client.lease_revoke(lease).deleted == 1

    async def check(_client: Client, _node: SingleNode) -> None:
        await asyncio.get_running_loop().run_in_executor(None, use)

    with_client(tmp_path, check)


def test_a_scan_reads_all_pages(tmp_path: Path) -> None:
    async def check(client: Client, _node: SingleNode) -> None:
        for part in range(11):
            keys = [PutKey(f"k/{part * 100 + number:04}", b"") for number in range(100)]
            await client.txn([], keys)
        await client.put("other", b"")
        found = [item.key async for item in client.scan("k/")]
        assert found == [f"k/{number:04}" for number in range(1100)]

    with_client(tmp_path, check)
