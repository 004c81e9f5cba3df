"""Carries out a plan: strikes begin and end in time, what they leave behind is put right, and who
ends by itself is noticed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from raft_agent.api import protocol
from tests.e2e.agents import UNREACHABLE
from tests.torture import strikes
from tests.torture.history import Acknowledged, Deed, Writer, now_ns
from tests.torture.operating import unexplained
from tests.torture.plan import Blow, Round
from tests.torture.strikes import NotNow, Strike
from tests.torture.world import World

SERVE_S = 10.0
# A check asks all members, and a busy machine lets some of them answer late.
_AGREE_S = 240.0
_REST_S = 60.0
_LAG = 500
_TICK_S = 0.02


class Nemesis:
    """`complaints` are what it saw itself, `delays` what took too long; `recoveries` (kind or
    "many", seconds) how long after each healing a write of some client was acknowledged, as
    `acknowledged` tells."""

    def __init__(self, world: World, book: Writer, acknowledged: Acknowledged) -> None:
        self._world = world
        self._book = book
        self._acknowledged = acknowledged
        self._round = -1
        # (when it is over, in seconds from the round's begin; what strikes; what is noted of it)
        self._active: list[tuple[float, Strike, Deed]] = []
        self.complaints: list[str] = []
        self.delays: list[str] = []
        self.recoveries: list[tuple[str, float]] = []

    def run(self, plan: Iterator[Round], until_ns: int) -> None:
        """Round after round, as many as begin before `until_ns`, or until something is wrong."""
        while now_ns() < until_ns and not self.complaints and not self.delays:
            self._round += 1
            self._strike(next(plan))

    # --- one round

    def _strike(self, what: Round) -> None:
        began_ns = now_ns()
        waiting = sorted(what.blows, key=lambda blow: blow.after_s)
        active = self._active
        done: list[Strike] = []
        while waiting or active:
            now_s = (now_ns() - began_ns) / 1e9
            while waiting and waiting[0].after_s <= now_s:
                blow = waiting.pop(0)
                begun = self._begin(blow, [*(strike for _, strike, _ in active), *done], what)
                if begun is not None:
                    active.append((now_s + blow.lasts_s, *begun))
            for item in [item for item in active if item[0] <= now_s]:
                done.append(self._end(item))
            self._look()
            time.sleep(_TICK_S)
        self._book.flush()
        if done and not self.complaints:
            self._recover(done)
        for strike in done:
            if not self.complaints:
                try:
                    strike.settle()
                except AssertionError as error:
                    self.complaints.append(f"after {strike.kind}: {error}")
            strike.let_go()
        if what.rests:
            self._rest()
        time.sleep(what.calm_s)

    def _rest(self) -> None:
        """Until all agents answer and have what was committed."""
        deadline = time.monotonic() + _REST_S
        while not self.complaints and not self._are_well():
            if time.monotonic() > deadline:
                self.delays.append(f"not all are well {_REST_S:g} s after a round")
                return
            self._look()
            time.sleep(5 * _TICK_S)

    def _are_well(self) -> bool:
        statuses = self._world.statuses()
        used = {node.name for node in self._world.nodes if node.in_use}
        if statuses.keys() != used or any(not status.leader for status in statuses.values()):
            return False
        for node in self._world.running():
            if complaint := unexplained(self._world, node, statuses[node.name].note):
                self.complaints.append(complaint)
        committed = max(status.commit_index for status in statuses.values())
        return all(committed - status.last_applied < _LAG for status in statuses.values())

    def _begin(self, blow: Blow, others: list[Strike], what: Round) -> tuple[Strike, Deed] | None:
        kind = strikes.KINDS[blow.kind]
        if kind.group and any(other.group == kind.group for other in others):
            return None
        strike = kind(self._world, random.Random(blow.seed), blow.lasts_s)
        started = now_ns()
        try:
            text = strike.begin()
        except NotNow:
            strike.let_go()
            return None
        return strike, Deed(kind.kind, started, 0, text, self._round, len(what.blows) == 1)

    def _end(self, item: tuple[float, Strike, Deed]) -> Strike:
        _, strike, deed = item
        self._active.remove(item)
        strike.end()
        deed.ended_ns = now_ns()
        self._book.add(deed)
        return strike

    def _look(self) -> None:
        """Nobody asked an agent to end that ends by itself."""
        for node in self._world.nodes:
            if node.may_end:
                continue
            status = node.reap()
            if status is not None:
                told = (node.agent.log_text().splitlines() or ["nothing"])[-1]
                self.complaints.append(f"{node.name} ended by itself with status {status}: {told}")

    def _recover(self, done: list[Strike]) -> None:
        kind = done[0].kind if len(done) == 1 else "many"
        self.recoveries.append((kind, self._served_in_time(f"the end of {kind}")))

    def _served_in_time(self, after: str) -> float:
        """Seconds until a client's write was acknowledged. Programs that have just been started
        have time to come up first, which on a busy machine takes longer than all the rest."""
        healed_ns = now_ns()
        if not self._until_answering() and not self.complaints:
            self.delays.append(f"not all agents answer {_REST_S:g} s after {after}")
        up_ns = now_ns()
        deadline = time.monotonic() + 3 * SERVE_S
        while (served_ns := self._acknowledged.first_after(healed_ns)) is None:
            if self.complaints:
                return float("inf")
            if time.monotonic() > deadline:
                self.delays.append(f"clients could not write {3 * SERVE_S:g} s after {after}")
                return float("inf")
            self._look()
            time.sleep(_TICK_S)
            self._acknowledged.look()
        if served_ns - up_ns > SERVE_S * 1e9:
            self.delays.append(
                f"{(served_ns - up_ns) / 1e9:.1f} s after {after}, and after all agents were up, a "
                "client's write was acknowledged"
            )
        return (served_ns - healed_ns) / 1e9

    def _until_answering(self) -> bool:
        deadline = time.monotonic() + _REST_S
        while time.monotonic() < deadline and not self.complaints:
            if self._world.statuses().keys() == {node.name for node in self._world.running()}:
                return True
            self._look()
            time.sleep(_TICK_S)
        return False

    # --- the end

    def heal(self) -> float:
        """Everything works again, whatever has struck; how many seconds passed until a client's
        write was acknowledged."""
        for item in [*self._active]:
            self._end(item).let_go()
        for node in self._world.nodes:
            if node.clock is not None:
                node.clock.set_wall(0.0)
            if node.in_use and not node.is_running:
                node.start()
        return self._served_in_time("all was healed")

    def compare_states(self) -> None:
        """All members come to the same state, by the cluster's own comparison."""
        if self.complaints:
            return
        deadline = time.monotonic() + _AGREE_S
        said, unequal = "nothing", False
        while time.monotonic() < deadline:
            for node in self._world.running():
                try:
                    answer = node.agent.ask(protocol.StateCheck(1), timeout_s=10)
                except UNREACHABLE as error:
                    said = f"{node.name}: {error}"
                    continue
                assert isinstance(answer, protocol.StateCheckResult)
                states = {member.name: member.state for member in answer.members}
                digests = {member.digest for member in answer.members}
                if answer.agreed and set(states.values()) == {"agrees"} and len(digests) == 1:
                    return
                said = f"{states}, digests {digests}"
                unequal = "differs" in states.values()
            time.sleep(0.5)
        # Who only says nothing may be late.
        complaints = self.complaints if unequal else self.delays
        complaints.append(f"the members' states are not equal in the end: {said}")
