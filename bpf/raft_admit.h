/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The only two reasons for which a packet is dropped: a stranger's new
 * connection while the filter is enforced, and a fault that a test asked for.
 */
#ifndef RAFT_ADMIT_H
#define RAFT_ADMIT_H

#include "raft_count.h"

static __always_inline int is_allowed(const struct raft_flow_key *key)
{
	struct raft_prefix prefix = {.bits = 128};
	__u64 remote[2], local[2];

	__builtin_memcpy(remote, key->remote, sizeof(remote));
	__builtin_memcpy(local, key->local, sizeof(local));
	/* From this host to itself. */
	if (remote[0] == local[0] && remote[1] == local[1])
		return 1;
	__builtin_memcpy(prefix.address, key->remote, sizeof(prefix.address));
	return bpf_map_lookup_elem(&allowed, &prefix) != NULL;
}

static __always_inline void note_stranger(const struct raft_packet *packet, int dropped)
{
	struct raft_stranger *known = bpf_map_lookup_elem(&strangers, packet->key.remote);

	if (!known) {
		struct raft_stranger first = {
			.connections = 1,
			.dropped = dropped,
			.first_ns = packet->now_ns,
			.last_ns = packet->now_ns,
		};

		bpf_map_update_elem(&strangers, packet->key.remote, &first, BPF_ANY);
		emit(packet, RAFT_EVENT_UNKNOWN_SOURCE, dropped, 0, 0);
		return;
	}
	ADD(known->connections, 1);
	if (dropped)
		ADD(known->dropped, 1);
	known->last_ns = packet->now_ns;
}

/* Whether the packet may pass the filter, which looks at new connections to our port alone. */
static __always_inline int is_admitted(const struct raft_packet *packet, __u16 raft_port)
{
	struct raft_control *wanted;
	__u32 zero = 0;
	int drop;

	if ((packet->flags & (TCP_SYN | TCP_ACK)) != TCP_SYN || packet->key.local_port != raft_port)
		return 1;
	wanted = bpf_map_lookup_elem(&control, &zero);
	if (!wanted || wanted->firewall_mode == RAFT_FIREWALL_OFF)
		return 1;
	if (is_allowed(&packet->key)) {
		count_stat(RAFT_STAT_FIREWALL_ADMITTED);
		return 1;
	}
	/* A dead agent renews nothing, so that nobody is locked out by it. */
	drop = wanted->firewall_mode == RAFT_FIREWALL_ENFORCE &&
	       packet->now_ns < wanted->enforce_until_ns;
	note_stranger(packet, drop);
	count_stat(drop ? RAFT_STAT_FIREWALL_DROPPED : RAFT_STAT_FIREWALL_AUDITED);
	return !drop;
}

static __always_inline int is_lost_to_fault(const struct raft_packet *packet)
{
	struct raft_fault_key key = {.direction = packet->direction};
	struct raft_fault *fault;

	__builtin_memcpy(key.remote, packet->key.remote, sizeof(key.remote));
	fault = bpf_map_lookup_elem(&faults, &key);
	if (!fault || packet->now_ns >= fault->until_ns ||
	    fault->until_ns - packet->now_ns > RAFT_MAX_FAULT_NS)
		return 0;
	if (bpf_get_prandom_u32() % 1000 >= fault->per_mille)
		return 0;
	if (!fault->hits)
		emit(packet, RAFT_EVENT_FAULT_HIT, fault->per_mille, 0, 0);
	ADD(fault->hits, 1);
	count_stat(RAFT_STAT_FAULT_DROPPED);
	return 1;
}

#endif /* RAFT_ADMIT_H */
