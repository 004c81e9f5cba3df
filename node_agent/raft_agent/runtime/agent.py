"""One node from its data directory to its sockets: puts the rooms together, and has them do what
the core decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raft_agent import __version__
from raft_agent.api.host import Failure, Outcome
from raft_agent.api.protocol import ErrorCode
from raft_agent.api.server import ApiServer
from raft_agent.config import Config
from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.recovery import standing_of
from raft_agent.consensus.types import (
    Abandon,
    Configuration,
    ConfigurationChanged,
    Judgement,
    Note,
    PeerConnected,
    PeerLost,
    Role,
    RoleChanged,
    SnapshotMeta,
    StateJudged,
    Superseded,
)
from raft_agent.logs import LogContext
from raft_agent.machine.commands import Command
from raft_agent.runtime.auditor import Auditor
from raft_agent.runtime.certificates import make_certificates, make_credentials
from raft_agent.runtime.engine import Answer, Engine, Excuses, now_us
from raft_agent.runtime.events import WARNINGS, EventLog
from raft_agent.runtime.export_side import ExportSide
from raft_agent.runtime.first_words import say_what_is_awaited, say_what_was_restored
from raft_agent.runtime.front import Front
from raft_agent.runtime.held import Held, open_held
from raft_agent.runtime.identity import dial_targets, make_node, own_address
from raft_agent.runtime.joining import applicant_for
from raft_agent.runtime.kernel_side import KernelSide
from raft_agent.runtime.lease_keeper import LeaseKeeper
from raft_agent.runtime.loop_lag import LoopLag
from raft_agent.runtime.notes import Notes
from raft_agent.runtime.proposals import Proposals
from raft_agent.runtime.readings import Readings
from raft_agent.runtime.rebuilding import Rebuilder
from raft_agent.runtime.restoring import Restorer
from raft_agent.runtime.snapshotter import Snapshotter
from raft_agent.runtime.versions import VersionKeeper
from raft_agent.runtime.views import Views, members_line
from raft_agent.runtime.word import Word
from raft_agent.storage.store import StorageFailure
from raft_agent.transport.transport import Hello, Transport, TransportHandlers
from raft_agent.versions import VersionError

if TYPE_CHECKING:
    from raft_agent.http.server import HttpServer
    from raft_agent.tls.credentials import Credentials

log = logging.getLogger("raft.runtime")

_STORAGE_FAILED = "Use another member, and look at this one's disk and log"


class Agent:
    """Implements the engine's `Observer`; what is asked of the node is answered by its `front`.

    `ended` is set with None when the node is to start anew (after a full disk, once there is room;
    because it was told to rebuild what it holds; or when `abandoned` names a generation, with an
    empty data directory), or with the error that stops the node.
    """

    def __init__(
        self,
        config: Config,
        context: LogContext,
        held: Held | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """`held`: the data directory, open; it is closed again when this raises. Opened here when
        it is None, and the loop stands still meanwhile. `credentials`: those that config.tls names,
        when they were read already. Raises StorageError, and TlsError when they can't be used."""
        self._config = config
        self._context = context
        self._loop = loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.shortage = ""
        self.abandoned = ""
        self.node_name = config.server.node_id
        self._store, self.machine = held or open_held(config)
        try:
            self._certificates = make_certificates(
                config, credentials or make_credentials(config), self._event
            )
            self._build(config)
        except BaseException:
            self._store.close()
            raise

    def _build(self, config: Config) -> None:
        loop = self._loop
        recovered = self._store.recovered
        timing = config.timing
        address = own_address(config, recovered)
        peers = tuple(peer.id for peer in config.peers)
        self.node = node = make_node(config, recovered, address)
        self._word = Word(self._store, node.state.settings.election_timeout_min_us)
        self._transport = Transport(
            member_id=recovered.member_id,
            name=self.node_name,
            cluster_id=recovered.cluster_id,
            listen_addr=config.server.listen_addr,
            advertise_addr=address,
            election_timeout_max_ms=timing.election_timeout_max_ms,
            security=None if self._certificates is None else self._certificates.security,
            handlers=TransportHandlers(
                on_message=self._on_message,
                on_peer_up=lambda peer, name: self.engine.feed(PeerConnected(peer, name)),
                on_peer_down=lambda peer: self.engine.feed(PeerLost(peer)),
                on_forward=lambda sender, body, reply: self._api.serve_forwarded(
                    body,
                    reply,
                    self._views.member_name(sender),
                    is_member=self._views.is_member(sender),
                    certified=self._transport.certified_name(sender),
                ),
                on_client=lambda certificate: self._api.remote_client(certificate.identity),
                on_superseded=lambda *told: self.engine.feed(Superseded(*told)),
                standing=lambda: standing_of(node.state),
                on_version_ask=self._on_version_ask,
                on_version_promise=self._on_version_promise,
                on_outdated=lambda text: self.on_fatal(VersionError(text)),
                admit=self._admit,
            ),
            versions=self.machine.versions,
        )
        self._transport.set_generation(node.generation)
        self._views = Views(
            name=self.node_name,
            node=node,
            transport=self._transport,
            configured_peers=peers,
            silence_limit_us=max(2 * timing.election_timeout_max_ms, 1000) * 1000,
        )
        self._events = EventLog(self._views.member_name)
        self.engine = Engine(
            node=node,
            store=self._store,
            transport=self._transport,
            observer=self,
            loop=loop,
            # The tests that count needless elections need worse timers to compare with. What the
            # variable may say was checked with the configuration.
            excuses=Excuses(os.environ.get("RAFT_TEST_EXCUSES") or "all"),
        )
        self._kernel = KernelSide(config, self._transport, self.engine, self._views, self._event)
        self._views.ebpf = self._kernel.status
        self._views.disputed_index = lambda: self.machine.disputed_index
        self._build_services(config, address)
        self._build_keepers(config)
        self._build_entrances(config)

    def _build_services(self, config: Config, address: str) -> None:
        """What stands between the core and those who ask something of it."""
        loop, node = self._loop, self.node
        self._proposals = Proposals(loop, self.engine.feed)
        self._lease_keeper = LeaseKeeper(loop, self._propose_ends, now_us)
        self._exports = ExportSide(
            config,
            node=node,
            machine=self.machine,
            propose=self._proposals.add,
            is_fit=lambda: self.front.unfit is None,
            loop=loop,
            tell=self._event,
        )
        self._versions = VersionKeeper(
            node=node,
            machine=self.machine,
            store=self._store,
            transport=self._transport,
            proposals=self._proposals,
            loop=loop,
            tell=self._event,
        )
        self._proposals.problem = self._versions.problem
        self._views.versions = self._versions
        self.front = Front(
            config=config,
            loop=loop,
            engine=self.engine,
            machine=self.machine,
            transport=self._transport,
            views=self._views,
            events=self._events,
            kernel=self._kernel,
            exports=self._exports,
            proposals=self._proposals,
            lease_keeper=self._lease_keeper,
            tell=self._event,
            versions=self._versions,
        )
        self._applicant = applicant_for(
            config,
            node,
            self._transport,
            address,
            is_certified=self._certificates is not None,
            tell=self._event,
        )

    def _build_keepers(self, config: Config) -> None:
        """What takes the state to the disk, has it from there, and compares it."""
        loop, node = self._loop, self.node
        self._snapshotter = Snapshotter(
            node=node,
            machine=self.machine,
            store=self._store,
            loop=loop,
            feed=self.engine.feed,
            tell=self._event,
            due_bytes=config.storage.snapshot_log_mib << 20,
            due_entries=config.storage.snapshot_entries,
        )
        self._notes = Notes(
            self._views, self._transport, self._snapshotter, self._events, tell=self._event
        )
        self._restorer = Restorer(
            self.machine,
            self._store.snapshots,
            loop,
            before=lambda: loop.create_task(self._stop_reading()),
            fail=self.on_fatal,
        )
        self._auditor = Auditor(
            node=node,
            machine=self.machine,
            snapshotter=self._snapshotter,
            loop=loop,
            feed=self.engine.feed,
        )
        rebuilder = Rebuilder(
            node, Path(config.server.data_dir), loop, tell=self._event, end=self._start_anew
        )
        self.front.rebuild_with(rebuilder.rebuild)

    def _build_entrances(self, config: Config) -> None:
        """Where others ask."""
        self._api = ApiServer(
            self.front, socket_path=Path(config.ipc_socket), group=config.server.ipc_group
        )
        self._loop_lag = LoopLag(self._loop)
        self.front.readings = Readings(
            node=self.node,
            machine=self.machine,
            store=self._store,
            transport=self._transport,
            engine=self.engine,
            proposals=self._proposals,
            barriers=self.front.barriers,
            snapshotter=self._snapshotter,
            auditor=self._auditor,
            loop_lag=self._loop_lag,
            events=self._events,
            views=self._views,
            kernel=self._kernel,
            exports=self._exports,
            certificates=self._certificates,
            count_clients=lambda: self._api.connection_count,
        )
        self._http = self._make_http()

    def _make_http(self) -> HttpServer | None:
        if self._config.server.http_addr is None:
            return None
        # An agent without it stays small: aiohttp and what it brings take 14 MB.
        from raft_agent.http.server import HttpServer  # noqa: PLC0415

        return HttpServer(self.front, self._config.server.http_addr)

    # --- life

    async def start(self) -> None:
        """Serve. Raises OSError when an address or the socket can't be had."""
        self._event("started", version=__version__)
        for warning in self._store.recovered.warnings:
            self._event("warning", text=warning)
        say_what_was_restored(self._store.recovered, self._event)
        self._word.give(self._event)
        if self._certificates is not None:
            self._certificates.start()
        await self._transport.start()
        self._set_peers(self.node.configuration)
        self._kernel.start()
        self._exports.start()
        await self._api.start()
        if self._http is not None:
            await self._http.start()
        self._loop_lag.start()
        self.engine.start()
        self._store.scrub(
            self._config.timing.state_check_interval_ms / 1000,
            post=self.engine.post,
            on_log_damaged=self.engine.found_damage,
            on_snapshot_damaged=self._on_snapshot_spoilt,
        )
        if self._applicant is not None:
            self._applicant.start()
        say_what_is_awaited(
            self._config,
            self._store.recovered,
            self.node,
            self._views,
            self._event,
            asks=self._applicant is not None,
        )

    async def stop(self) -> None:
        """Hand leadership over, then close everything; outcomes not known by then stay unknown."""
        self._event("stopping")
        if self.node.role is Role.LEADER and self.node.progress and not self.ended.done():
            await self._hand_over()
        if self._applicant is not None:
            self._applicant.stop()
        self._word.close()
        self._lease_keeper.close()
        self._versions.close()
        self.engine.close()
        self._restorer.stop()
        await self._stop_reading()
        self._give_up(
            Failure(ErrorCode.SHUTTING_DOWN, "The agent is stopping", "Try another member")
        )
        self._loop_lag.stop()
        if self._http is not None:
            await self._http.close()
        await self._api.close()
        await self._transport.close()
        if self._certificates is not None:
            self._certificates.stop()
        await self._kernel.stop()
        await self._exports.stop()
        await self._loop.run_in_executor(None, self._store.close)

    def _start_anew(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _propose_ends(self, ends: Sequence[Command], done: Callable[[Outcome], None]) -> None:
        """While states are disputed no lease ends; those that are due are proposed again later."""
        if self.front.unfit is None:
            self._proposals.add(ends, done)

    async def _stop_reading(self) -> None:
        self._auditor.stop()
        await self._snapshotter.stop()

    def reload_certificates(self) -> None:
        """Read them anew, soon; what comes of it is an event."""
        if self._certificates is not None:
            self._certificates.reload()

    def has_room(self) -> bool:
        """After the disk was full: whether a new start could go on writing. Blocks."""
        return self._store.has_room()

    async def _hand_over(self) -> None:
        done = asyncio.Event()
        self.front.transfer_leadership("", lambda _: done.set())
        # The core gives up by itself after one election timeout, unless its disk stalls.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                done.wait(), 2 * self._config.timing.election_timeout_max_ms / 1000
            )

    def _give_up(self, failure: Failure) -> None:
        self._proposals.give_up(failure)
        self.front.give_up(failure)

    def _event(self, kind: str, **facts: int | str) -> None:
        # Effects come after the step: what the core is by now is what the line should say.
        self._context.role, self._context.term = str(self.node.role), self.node.current_term
        event = self._events.add(kind, self.node.current_term, facts)
        level = logging.WARNING if kind in WARNINGS else logging.INFO
        log.log(level, "%s", event.text)

    # --- transport

    def _on_message(self, sender: int, message: object) -> None:
        self._kernel.handled(sender, message)
        self.engine.received(sender, message)

    def _on_version_ask(self, sender: int, version: int) -> None:
        self._versions.asked(sender, version)

    def _on_version_promise(self, sender: int, version: int) -> None:
        self._versions.answered(sender, version)

    def _admit(self, hello: Hello) -> None:
        self._versions.admit(hello)

    def _set_peers(self, configuration: Configuration | None) -> None:
        if configuration is not None:
            self._kernel.follow(configuration)
        own_id = self.node.state.member_id
        self._transport.set_peers(dial_targets(self._config, configuration, own_id))

    # --- Observer

    def on_apply(self, batch: Batch) -> None:
        if self.node.state.diverged_index:
            return  # a state that is known to be wrong is left as it is
        self._proposals.applied(batch, self.machine.apply(batch))
        self._lease_keeper.applied()
        self._versions.applied()
        self._snapshotter.applied(len(batch.record))
        if batch.kind == BatchKind.AUDIT:
            self._auditor.applied(batch)
            self.front.unfit = self._auditor.unfit()

    def on_judged(self, effect: StateJudged) -> None:
        self._auditor.judged(effect)
        unfit = self.front.unfit = self._auditor.unfit()
        if unfit is not None and effect.judgement is Judgement.DIFFERS:
            self._auditor.stop()
            self._proposals.give_up(unfit)
            self.front.give_up_reads(unfit)
            self._api.end_streams(unfit)

    def on_applied(self, index: int) -> None:
        self._exports.applied(index)
        self.front.barriers.applied(index)

    def on_snapshot_durable(self, snapshot: SnapshotMeta, restored: Callable[[], None]) -> None:
        def go_on() -> None:
            self._versions.applied()
            self._proposals.skipped(snapshot.index)
            restored()
            self._exports.adopted()
            self.front.unfit = self._auditor.unfit()
            self.front.barriers.applied(snapshot.index)

        self._restorer.begin(snapshot, go_on)

    def on_snapshot_unreadable(self, index: int, reason: str) -> None:
        # What the machine holds can be read all the same.
        if self._snapshotter.take():
            self._event("snapshot_unreadable", index=index, reason=reason)

    def _on_snapshot_spoilt(self, index: int, what: str) -> None:
        self._event("snapshot_spoilt", index=index, reason=what)
        self._snapshotter.take()

    def on_answer(self, answer: Answer) -> None:
        self.front.answered(answer)

    def on_role(self, change: RoleChanged) -> None:
        self._context.role, self._context.term = str(change.role), change.term
        if change.leader:
            self._notes.leader_is_known()
        self._lease_keeper.role(change.role is Role.LEADER, self.machine.leases)
        self._versions.role(change.role is Role.LEADER)
        self._exports.role(change.role is Role.LEADER)
        if change.role is not Role.LEADER:
            self._proposals.stepped_down()
        self.front.gatherer.look()

    def on_configuration(self, change: ConfigurationChanged) -> None:
        self._views.note = ""
        self._transport.set_generation(self.node.generation)
        self.front.gatherer.look()
        self._set_peers(change.configuration)
        if change.index > 1:
            line = members_line(change.configuration)
            self._event("configuration_in_force", members=line)

    def on_note(self, note: Note) -> None:
        self._notes.take(note)

    def on_storage_failed(self, failure: StorageFailure) -> None:
        self._give_up(Failure(ErrorCode.STORAGE_FAILED, failure.reason, _STORAGE_FAILED))
        self.shortage = failure.shortage
        if failure.shortage:
            self._start_anew()

    def on_abandon(self, effect: Abandon) -> None:
        self.abandoned = f"before-{effect.generation:016x}"
        self._start_anew()

    def on_fatal(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
