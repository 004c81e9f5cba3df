"""Faults in transactions, in leases, and in what a leader does with them."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import late_renewals, short_leases, transactions

_MACHINE = "raft_agent.machine.machine"
_TRANSACTIONS = "raft_agent.machine.transactions"
_LEASES = "raft_agent.machine.leases"
_CLOCK = "raft_agent.machine.lease_clock"
_SNAPSHOT = "raft_agent.machine.snapshot"

_STATES = ("two nodes have other states", "state machine safety", "have other states")
_WRONG = ("not the model's answer", "linearizable")
_EARLY = ("a lease ended before its time",)

FAULTS = (
    Fault(
        "any_compare_is_enough",
        "a transaction succeeds when one of its compares holds",
        (
            Edit(
                _TRANSACTIONS,
                "succeeded = all(self._holds(compare) for compare in compares)",
                "succeeded = any(self._holds(compare) for compare in compares)",
            ),
        ),
        _WRONG,
        focus=transactions,
    ),
    Fault(
        "both_branches_done",
        "a transaction that does not succeed does what stands under then, too",
        (
            Edit(
                _TRANSACTIONS,
                "        results = [self._do(operation) for operation in operations]\n",
                "        results = [self._do(operation) for operation in operations]\n"
                "        free = [o for o in then if not getattr(o, 'lease', 0)]\n"
                "        [] if succeeded else [self._do(o) for o in free]\n",
            ),
        ),
        _WRONG,
        focus=transactions,
    ),
    Fault(
        "transaction_done_in_part",
        "a transaction that names a lease which is gone does what comes before that",
        (
            Edit(
                _TRANSACTIONS,
                "            if lease not in self._store.leases:\n"
                "                return LeaseGone(lease)\n",
                "            if lease not in self._store.leases:\n"
                "                [self._do(o) for o in operations if not getattr(o, 'lease', 0)]\n"
                "                return LeaseGone(lease)\n",
            ),
        ),
        _WRONG,
        focus=transactions,
        seed=2,
    ),
    Fault(
        "reads_do_not_see_the_writes_before",
        "the reads of a transaction are done before its writes",
        (
            Edit(
                _TRANSACTIONS,
                "        results = [self._do(operation) for operation in operations]\n",
                "        reads = [self._do(o) for o in operations if isinstance(o, GetKey)]\n"
                "        results = [\n"
                "            reads.pop(0) if isinstance(o, GetKey) else self._do(o)\n"
                "            for o in operations\n"
                "        ]\n",
            ),
        ),
        _WRONG,
        focus=transactions,
    ),
    Fault(
        "transactions_not_remembered",
        "a transaction that is sent again is done again",
        (
            Edit(
                "raft_agent.machine.sessions",
                "        results[sequence] = Repeated(index, term, result)\n"
                "        heapq.heappush(session.unacked, sequence)\n"
                "        self._result_count += 1\n",
                "        if type(result) is TransactionDone:\n"
                "            return result\n"
                "        results[sequence] = Repeated(index, term, result)\n"
                "        heapq.heappush(session.unacked, sequence)\n"
                "        self._result_count += 1\n",
            ),
        ),
        (*_WRONG, "is told to stand at", "takes effect twice"),
        focus=transactions,
        seed=2,
    ),
    Fault(
        "plain_put_keeps_the_lease",
        "a key that is put without a lease ends with the one that it had",
        (
            Edit(
                _MACHINE,
                "            key = old.key\n            if self._lease_of:\n"
                "                self.leases.detach(key)\n",
                "            key = old.key\n",
            ),
        ),
        _WRONG,
        focus=transactions,
    ),
    Fault(
        "keys_outlive_their_lease",
        "a lease ends, and its keys stay",
        (
            Edit(
                _LEASES,
                "        store.change(key, None, revision=revision, index=index, lease=lease_id)\n",
                "        pass\n",
            ),
        ),
        _WRONG,
        focus=transactions,
    ),
    Fault(
        "renewal_on_its_way_does_not_count",
        "a lease ends although it was renewed after its end was proposed",
        (
            Edit(
                _LEASES,
                "lease is not None and lease.renewed_index != renewed_index",
                "lease is not None and lease.renewed_index > index",
            ),
        ),
        _EARLY,
        focus=late_renewals,
    ),
    Fault(
        "leases_not_in_the_snapshot",
        "a snapshot holds no leases",
        (
            Edit(
                _SNAPSHOT,
                "yield from self._cut(Section.LEASES, leases, lambda _: 0)",
                "leases.clear()",
            ),
        ),
        (*_STATES, *_WRONG),
        focus=transactions,
    ),
    Fault(
        "keys_of_leases_not_in_the_snapshot",
        "a snapshot holds leases, but not which keys end with them",
        (
            Edit(
                _SNAPSHOT,
                "yield from self._cut(Section.LEASE_KEYS, leased, lambda item: len(item[1]))",
                "pass",
            ),
        ),
        (*_STATES, *_WRONG),
        focus=transactions,
    ),
    Fault(
        "snapshot_shares_leases",
        "a lease that changes while a snapshot is taken changes in the snapshot, too",
        (Edit(_LEASES, "lease is not None and lease.view < self._view", "False"),),
        ("two nodes have other states", "have other states", "binds the key"),
        focus=transactions,
        seed=2,
    ),
    Fault(
        "new_leader_counts_from_the_old_ones_time",
        "a new leader takes it that every lease has half of its time left",
        (
            Edit(
                _CLOCK,
                "(now_us + lease.ttl_ms * 1000, lease.id, lease.renewed_index) for lease in leases",
                "(now_us + lease.ttl_ms * 500, lease.id, lease.renewed_index) for lease in leases",
            ),
        ),
        _EARLY,
        focus=short_leases,
    ),
    Fault(
        "renewals_not_heard",
        "a leader counts a lease's time from its grant, whatever was renewed",
        (
            Edit(
                _CLOCK,
                "        return lease is not None and lease.renewed_index == item[2]\n",
                "        return lease is not None\n",
            ),
            Edit(
                _LEASES,
                "lease is not None and lease.renewed_index != renewed_index",
                "False",
            ),
        ),
        _EARLY,
        focus=short_leases,
    ),
    Fault(
        "end_proposed_once",
        "an end that was proposed and got lost is never proposed again",
        (
            Edit(
                _CLOCK,
                "            heapq.heapreplace(self._due, (now_us + RETRY_US, item[1], item[2]))\n",
                "            heapq.heappop(self._due)\n",
            ),
            Edit(
                _CLOCK,
                "        self._due = [\n"
                "            (now_us + lease.ttl_ms * 1000, lease.id, lease.renewed_index) "
                "for lease in leases\n"
                "        ]\n",
                "        self._due = []\n",
            ),
        ),
        ("a lease that nobody keeps alive does not end",),
        focus=short_leases,
    ),
)
