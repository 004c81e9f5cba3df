"""A new node that asks to be added, and how it proves that it may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from raft_agent.api import protocol
from raft_agent.api.protocol import ErrorCode
from raft_agent.runtime.joining import Applicant, Doorkeeper, proof
from tests.unit.runtime.jumping import run

TOKEN = "known to all members"
NAME, ADDRESS = "node-04", "127.0.0.1:5558"


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def asking(nonce: bytes, token: str = TOKEN) -> protocol.JoinSelf:
    return protocol.JoinSelf(1, NAME, ADDRESS, nonce, proof(token, nonce, NAME, ADDRESS))


# --- a member's side ------------------------------------------------------------------------------


def test_a_challenge_is_good_once() -> None:
    door = Doorkeeper(TOKEN, Clock())
    request = asking(door.challenge())
    assert door.problem(request) is None
    refused = door.problem(request)
    assert refused is not None
    assert refused.code is ErrorCode.REFUSED


def test_a_challenge_that_met_a_wrong_proof_is_used_up() -> None:
    door = Doorkeeper(TOKEN, Clock())
    nonce = door.challenge()
    assert door.problem(asking(nonce, "another than theirs")) is not None
    assert door.problem(asking(nonce)) is not None


def test_a_challenge_is_good_for_half_a_minute() -> None:
    clock = Clock()
    door = Doorkeeper(TOKEN, clock)
    first, second = asking(door.challenge()), asking(door.challenge())
    clock.now_s += 30
    assert door.problem(first) is None
    clock.now_s += 0.001
    assert door.problem(second) is not None


def test_a_challenge_that_nobody_gave_is_refused() -> None:
    assert Doorkeeper(TOKEN, Clock()).problem(asking(b"0123456789abcdef")) is not None


def test_a_flood_of_challenges_costs_the_oldest_only() -> None:
    door = Doorkeeper(TOKEN, Clock())
    oldest, second = asking(door.challenge()), asking(door.challenge())
    newest = [asking(door.challenge()) for _ in range(1023)][-1]
    assert door.problem(oldest) is not None
    assert door.problem(second) is None
    assert door.problem(newest) is None


def test_no_two_challenges_are_the_same() -> None:
    door = Doorkeeper(TOKEN, Clock())
    assert len({door.challenge() for _ in range(100)}) == 100


def test_a_proof_is_of_all_that_is_asked_for() -> None:
    known = (TOKEN, b"nonce", NAME, ADDRESS)
    others = [
        ("another than theirs", b"nonce", NAME, ADDRESS),
        (TOKEN, b"other", NAME, ADDRESS),
        (TOKEN, b"nonce", "node-05", ADDRESS),
        (TOKEN, b"nonce", NAME, "127.0.0.1:5559"),
        # The same characters, divided otherwise.
        (TOKEN, b"nonce", NAME + ADDRESS[:1], ADDRESS[1:]),
    ]
    assert len(proof(*known)) == 32
    assert len({proof(*fields) for fields in [known, *others]}) == len(others) + 1


def test_a_name_or_address_that_was_not_proved_is_refused() -> None:
    for change in ({"name": "node-05"}, {"address": "127.0.0.1:5559"}):
        door = Doorkeeper(TOKEN, Clock())
        request = msgspec.structs.replace(asking(door.challenge()), **change)
        assert door.problem(request) is not None


def test_without_a_token_the_certificate_with_that_name_is_proof_enough() -> None:
    door = Doorkeeper(None, Clock())
    assert door.problem(asking(door.challenge()), NAME) is None
    refused = door.problem(asking(door.challenge()), "node-05")
    assert refused is not None
    assert "the certificate is node-05's" in refused.error


def test_where_there_is_a_token_no_certificate_stands_for_it() -> None:
    door = Doorkeeper(TOKEN, Clock())
    assert door.problem(asking(door.challenge(), "another"), NAME) is not None


def test_without_a_token_nobody_is_let_in_and_a_person_can_do_it() -> None:
    door = Doorkeeper(None, Clock())
    refused = door.problem(asking(door.challenge()))
    assert refused is not None
    assert refused.code is ErrorCode.REFUSED
    assert refused.hint == f"At a member: raftctl join {NAME} {ADDRESS}"


# --- the new node's side --------------------------------------------------------------------------

MEMBERS = ("127.0.0.1:5555", "127.0.0.1:5556")


class Wire:
    """Connections to those members of which `peers` has the id; `serve` answers there."""

    def __init__(self, serve: Callable[[protocol.Request], bytes | None]) -> None:
        self.peers = {MEMBERS[0]: 1, MEMBERS[1]: 2}
        self.dialled: list[str] = []
        self.asked: list[tuple[int, protocol.Request]] = []
        self._serve = serve

    def set_peers(self, targets: list[object]) -> None:
        self.dialled = [target.address for target in targets]  # type: ignore[attr-defined]

    def peer_at(self, address: str) -> int:
        return self.peers.get(address, 0)

    def forward(
        self, peer: int, body: bytes, on_reply: Callable[[bytes | None, bool], None]
    ) -> None:
        request = protocol.REQUEST_DECODER.decode(body)
        self.asked.append((peer, request))
        asyncio.get_running_loop().call_soon(on_reply, self._serve(request), True)


def reply(result: object) -> bytes:
    return protocol.ENCODER.encode(
        protocol.Reply(1, None, msgspec.Raw(protocol.ENCODER.encode(result)))
    )


def refusal(text: str) -> bytes:
    return protocol.ENCODER.encode(protocol.Reply(1, protocol.Error(text, ErrorCode.REFUSED)))


class NewNode:
    """An applicant that gives up being fresh once it was let in, or has asked `rounds` times."""

    def __init__(self, serve: Callable[[protocol.Request], bytes | None], rounds: int = 3) -> None:
        self.wire = Wire(serve)
        self.events: list[tuple[str, dict[str, str]]] = []
        self.is_member = False
        self._rounds = rounds
        self.ended = asyncio.Event()

    def is_fresh(self) -> bool:
        challenges = [
            request
            for peer, request in self.wire.asked
            if isinstance(request, protocol.JoinChallenge)
        ]
        if self.is_member or len(challenges) >= self._rounds:
            self.ended.set()
            return False
        return True

    async def apply(self, token: str = TOKEN) -> None:
        applicant = Applicant(
            token=token,
            name=NAME,
            address=ADDRESS,
            targets=MEMBERS,
            transport=self.wire,  # type: ignore[arg-type]
            is_fresh=self.is_fresh,
            tell=lambda kind, **facts: self.events.append((kind, facts)),
        )
        applicant.start()
        await self.ended.wait()
        applicant.stop()


def member(door: Doorkeeper, let_in: Callable[[], None]) -> Callable[[protocol.Request], bytes]:
    """Serves with the challenges of `door`."""

    def serve(request: protocol.Request) -> bytes:
        if isinstance(request, protocol.JoinChallenge):
            return reply(protocol.ChallengeResult(door.challenge()))
        assert isinstance(request, protocol.JoinSelf)
        problem = door.problem(request)
        if problem is not None:
            return refusal(problem.error)
        let_in()
        return reply(protocol.MembershipResult(7, [], [], "added"))

    return serve


def test_a_new_node_with_the_token_is_let_in() -> None:
    async def test() -> None:
        def let_in() -> None:
            node.is_member = True

        node = NewNode(member(Doorkeeper(TOKEN, Clock()), let_in))
        await node.apply()
        assert node.is_member
        assert node.wire.dialled == list(MEMBERS)
        assert node.events == [("join_asked", {"address": MEMBERS[0]})]

    run(test)


def test_a_new_node_with_another_token_asks_on_and_says_why_once() -> None:
    async def test() -> None:
        node = NewNode(member(Doorkeeper(TOKEN, Clock()), lambda: None), rounds=10)
        await node.apply("another than theirs")
        assert len(node.wire.asked) >= 18
        told = [facts["reason"] for kind, facts in node.events if kind == "join_refused"]
        assert told == [f"{NAME} could not prove that it knows the cluster's token"]
        shown = [item.proof for _, item in node.wire.asked if isinstance(item, protocol.JoinSelf)]
        assert all(b"another than theirs" not in item for item in shown)

    run(test)


def test_a_member_that_is_not_connected_is_passed_over() -> None:
    async def test() -> None:
        node = NewNode(member(Doorkeeper(TOKEN, Clock()), lambda: None))
        del node.wire.peers[MEMBERS[0]]
        await node.apply()
        assert {peer for peer, _ in node.wire.asked} == {2}

    run(test)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\xc1", f"the answer of {MEMBERS[0]} can't be read"),
        (reply("no challenge"), f"the answer of {MEMBERS[0]} can't be read"),
        (refusal("This node belongs to no cluster yet"), "This node belongs to no cluster yet"),
    ],
)
def test_an_answer_that_helps_nobody_is_said_and_the_next_member_asked(
    answer: bytes, words: str
) -> None:
    async def test() -> None:
        node = NewNode(lambda _request: answer)
        await node.apply()
        assert {peer for peer, _ in node.wire.asked} == {1, 2}
        kind, facts = node.events[0]
        assert kind == "join_refused"
        assert words in facts["reason"]

    run(test)


def test_no_answer_is_no_reason_to_stop_asking() -> None:
    async def test() -> None:
        node = NewNode(lambda _request: None, rounds=5)
        await node.apply()
        assert len(node.wire.asked) == 5
        assert node.events == []

    run(test)
