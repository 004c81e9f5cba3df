"""What happened at this node: the newest events, for `raftctl events` and the log."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime

from raft_agent.api.protocol import EventItem

KEPT = 1000

# What an operator should look at; all other events are for who wants to know.
WARNINGS = frozenset(
    {
        "warning",
        "storage_failed",
        "disk_stalls",
        "removed",
        "log_lost",
        "address_refused",
        "join_refused",
        "snapshot_failed",
        "snapshot_damaged",
        "snapshot_refused",
        "snapshot_stays_refused",
        "snapshot_unreadable",
        "recovery_begins",
        "recovered",
        "superseded",
        "superseded_ignored",
        "survivor_refused",
        "snapshot_spoilt",
        "state_differs",
        "member_differs",
        "states_disputed",
        "kernel_bypassed",
        "kernel_degraded",
        "kernel_fault_set",
        "export_degraded",
        "export_repaired",
        "export_refused",
        "export_behind",
        "certificates_refused",
        "certificate_ends",
        "authority_ends",
        "crl_is_old",
    }
)

# What people read. Member ids stand in the facts under these names and are shown by member name.
_MEMBERS = ("leader", "target", "sender")
_TEXTS = {
    "cluster_founded": "founded the cluster {cluster_id} with {members} members",
    "cluster_adopted": "joined the cluster {cluster_id}",
    "bootstrap_waits": "waiting to be joined: {reason}",
    "first_start": "first start: {founder} forms the cluster once {others} and this node have "
    "found each other",
    "waits_to_be_joined": "waiting to be joined: {reason}",
    "pre_vote_started": "asking whether an election for term {next_term} has a chance",
    "election_started": "standing for election",
    "election_deferred": "the leader was heard {leader_silence_us} µs ago by the kernel: "
    "waiting once more",
    "leader_elected": "leads from now on",
    "leader_found": "follows {leader}",
    "leader_lost": "has not heard from {leader} any more",
    "stepped_down": "leads no more",
    "quorum_lost": "no quorum answers: steps down",
    "disk_stalls": "its disk has hung since index {index}: looks for another leader",
    "transfer_started": "hands leadership over to {target}",
    "transfer_failed": "{target} did not take over in time: leads on",
    "log_truncated": "dropped the uncommitted entries {from_index} to {last_index}, "
    "which the leader does not have",
    "log_refilled": "the damaged end of the log is whole again, up to {index}",
    "configuration_changes": "the configuration changes with index {index}: voters {voters}, "
    "learners {learners}",
    "configuration_in_force": "members are now {members}",
    "catching_up": "{target} is catching up: round {round}, up to index {index}",
    "learner_promoted": "{target} has caught up and becomes a voter",
    "address_moved": "{sender} is at {address} from now on",
    "address_refused": "{sender} can't be at its new address: {reason}",
    "log_lost": "{sender} has lost its log and may not come back as if it had not: remove it with "
    "raftctl leave, empty its data directory, and add it with raftctl join",
    "removed": "is no member any more: it was removed, and its id is refused for ever",
    "recovery_begins": "is asked to go on alone, and what only lost members had was given up: "
    "generation {generation} of the cluster is to begin with index {index}",
    "recovered": "generation {generation} of the cluster has begun with index {index}, here alone",
    "superseded": "takes no part any more: the cluster was recovered at {sender} without this "
    "node, as generation {generation}",
    "superseded_ignored": "{sender} has recovered the cluster as generation {generation}, although "
    "this node follows a leader that has a majority: keep one of the two, and empty the data "
    "directories of the others",
    "survivor_taken_in": "{name}, which survived, comes in again from {address}",
    "survivor_refused": "{name}, which survived, can't come in again: {reason}",
    "restored": "begins the cluster {cluster_id} with what a backup held, up to index {index}",
    "join_asked": "asks {address} to be added",
    "join_refused": "was not added: {reason}",
    "cluster_joined": "joined the cluster {cluster_id}",
    "export_degraded": "the exported map {map} is not as it should be here: {reason}",
    "export_behind": "writing exported maps takes longer than the log: {waiting} changes waited, "
    "so all is compared later instead",
    "export_declared": "the map {map} of raft.toml is exported",
    "export_refused": "the map {map} of raft.toml can't be exported: {reason}",
    "export_mended": "the exported map {map} is as it should be again",
    "export_repaired": "{entries} entries of the exported map {map} had been changed by somebody "
    "else: they are as they should be again",
    "snapshot_taken": "took a snapshot at index {index}: {size_bytes} bytes in {took_ms} ms",
    "snapshot_failed": "could not take a snapshot, and tries again later: {reason}",
    "snapshot_offered": "{target} needs entries that the log has lost: sends the snapshot of index "
    "{index}",
    "snapshot_sent": "{target} has the snapshot of index {index}",
    "snapshot_refused": "{target} found the snapshot of index {index} damaged: takes a new one",
    "snapshot_stays_refused": "has no good snapshot of index {index}: looks for another leader",
    "snapshot_unreadable": "can't read the snapshot of index {index}, takes a new one: {reason}",
    "snapshot_spoilt": "its snapshot of index {index} has gone bad on the disk, takes a new one: "
    "{reason}",
    "snapshot_arrives": "gets a snapshot of index {index} from {sender}",
    "snapshot_damaged": "the snapshot of index {index} from {sender} came damaged; it is sent anew",
    "snapshot_installed": "has the state of index {index} now, from a snapshot",
    "kernel_attached": "the kernel part is attached to {interfaces}",
    "kernel_bypassed": "the kernel part is attached to {interfaces}, but bypassed: {reason}",
    "kernel_degraded": "the kernel part is degraded ({interfaces}): {reason}",
    "kernel_detached": "the kernel part is off",
    "kernel_fault_set": "loses {per_mille} ‰ of the packets of {peer} ({direction}) on purpose, "
    "for {duration_ms} ms",
    "kernel_faults_healed": "loses no packets of {peer} on purpose any more",
    "kernel_leader_seen": "the kernel saw {sender} lead in term {of_term}",
    "kernel_term_raised": "the kernel saw term {of_term}, from {sender}",
    "kernel_stranger": "the kernel saw a connection from {address}, which is no member: {done}",
    "kernel_bad_header": "the kernel found no frame where one should begin {way} {address}: "
    "{magic}",
    "kernel_lost_sync": "the kernel lost its place in the stream {way} {address}: {reason}",
    "kernel_fault_hit": "the kernel loses {per_mille} ‰ of the packets {way} {address} on purpose",
    "kernel_more": "the kernel reported {count} more events than are shown",
    "state_differs": "its state differs from the other members' after index {index}: serves "
    "nothing until it is rebuilt (raftctl rebuild)",
    "member_differs": "the state of {target} differs from the others' after index {index}: "
    "rebuild it there with raftctl rebuild",
    "states_disputed": "no majority of the members has equal states after index {index}: nothing "
    "is read or written until one has",
    "audit_unanswered": "too few members told in time what their state comes to after index "
    "{index}",
    "rebuilding": "throws its state away and starts anew from its disk: {reason}",
    "storage_failed": "takes no part any more: {reason}",
    "certificates_read": "has read its certificates anew: its own ends on {ends}",
    "certificates_refused": "goes on with the certificates that it has: {reason}",
    "certificate_ends": "the certificate in {file} ends on {ends}: have a new one made",
    "authority_ends": "the last authority in {file} ends on {ends}, and all that it has signed: "
    "replace it as docs/security.md says",
    "crl_is_old": "the list of revoked certificates in {file} should have been made anew by {due}; "
    "it is held on to",
    "audit": "{who}: {what}: {outcome}",
    "word_kept": "votes for nobody for {ms} ms: it may have promised so before it was started anew",
    "version_promised": "has promised to know version {version} of the cluster: no raft-agent that "
    "does not opens its data directory any more",
    "version_raised": "the cluster's version is {version} from now on",
    "started": "started version {version}",
    "stopping": "is stopping",
    "warning": "{text}",
    "malformed_append": "ignored AppendEntries from {sender} that do not follow each other",
    "impossible_reply": "ignored a reply of {sender} for entries that were never sent",
}


class EventLog:
    """Keeps the newest events and passes new ones on. `counts`: by kind, since the start."""

    def __init__(self, member_name: Callable[[int], str]) -> None:
        self._member_name = member_name
        self.counts: Counter[str] = Counter()
        self._events: deque[EventItem] = deque(maxlen=KEPT)
        self._subscribers: set[Callable[[EventItem], None]] = set()

    def add(self, kind: str, term: int, facts: dict[str, int | str]) -> EventItem:
        self.counts[kind] += 1
        shown = dict(facts)
        for key in _MEMBERS:
            member = shown.get(key)
            if isinstance(member, int):
                shown[key] = self._member_name(member) if member else "nobody"
        text = _TEXTS[kind].format_map(shown)
        event = EventItem(rfc3339(time.time()), kind, term, text, shown)
        self._events.append(event)
        for on_event in list(self._subscribers):
            on_event(event)
        return event

    def recent(self, limit: int) -> list[EventItem]:
        """The newest `limit` events, oldest first."""
        return list(self._events)[max(len(self._events) - limit, 0) :]

    def subscribe(self, on_event: Callable[[EventItem], None]) -> Callable[[], None]:
        self._subscribers.add(on_event)
        return lambda: self._subscribers.discard(on_event)


def rfc3339(seconds: float) -> str:
    """A time since 1970 as RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
