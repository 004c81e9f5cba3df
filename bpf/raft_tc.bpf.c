// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * TC classifier that sees Raft: counts packets, frames and entries per TCP
 * connection, measures latencies and stamps the leader's last word.
 *
 * The verdict is TC_ACT_UNSPEC, "go on": to the filters behind this one as if
 * it was not there. The exceptions are in raft_admit.h. UAPI headers and
 * helpers of kernel 5.10 only; no function calls between programs' parts,
 * since arm64 can't mix them with tail calls before 6.0.
 */
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "raft_maps.h"
#include "raft_wire.h"
#include "raft_parse.h"
#include "raft_count.h"
#include "raft_walk.h"
#include "raft_admit.h"

const volatile struct raft_config config = {};

static __always_inline int handle(struct __sk_buff *skb, __u32 direction)
{
	struct raft_counters *counters;
	struct raft_packet *packet;
	struct raft_flow *flow;
	__u32 zero = 0, old;

	if (is_plainly_foreign(skb, direction, config.raft_port))
		return TC_ACT_UNSPEC;
	packet = bpf_map_lookup_elem(&packets, &zero);
	if (!packet)
		return TC_ACT_UNSPEC;
	packet->direction = direction;
	switch (parse(skb, config.raft_port, packet)) {
	case PARSED_OURS:
		break;
	case PARSED_LATER_FRAGMENT:
		count_stat(RAFT_STAT_LATER_FRAGMENTS);
		return TC_ACT_UNSPEC;
	case PARSED_UNREADABLE:
		count_stat(RAFT_STAT_UNREADABLE);
		return TC_ACT_UNSPEC;
	default:
		return TC_ACT_UNSPEC;
	}
	packet->now_ns = bpf_ktime_get_ns();
	if (direction == RAFT_INGRESS && !is_admitted(packet, config.raft_port))
		return TC_ACT_SHOT;
	flow = flow_of(&packet->key);
	if (!flow) {
		count_stat(RAFT_STAT_NO_FLOW);
		return TC_ACT_UNSPEC;
	}
	counters = &flow->direction[direction];
	if (config.faults_enabled && is_lost_to_fault(packet)) {
		ADD(counters->fault_drops, 1);
		return TC_ACT_SHOT;
	}
	count_packet(skb, packet, counters);
	old = follow(counters, packet);
	if (old < packet->length && find_start(counters, packet, old)) {
		bpf_tail_call(skb, &walkers, 0);
		/* Not reached unless the kernel refuses. */
		lose_sync(packet, counters, packet->seq + packet->at, RAFT_EVENT_LOST_SYNC,
			  RAFT_LOST_TOO_MANY);
	}
	return TC_ACT_UNSPEC;
}

SEC("tc/ingress")
int raft_ingress(struct __sk_buff *skb)
{
	return handle(skb, RAFT_INGRESS);
}

SEC("tc/egress")
int raft_egress(struct __sk_buff *skb)
{
	return handle(skb, RAFT_EGRESS);
}

/*
 * One header: 1 when it was counted, 0 when the walk ends. `at` is its offset
 * in the payload, even when it began in an earlier segment.
 */
static __always_inline int take(struct raft_flow *flow, struct raft_packet *packet,
				const struct raft_frame_header *header, __u32 at)
{
	struct raft_counters *counters = &flow->direction[packet->direction & 1];
	struct raft_walker *walker = &counters->walker;
	__u32 seq = packet->seq + at;

	if (packet->resync) {
		if (!is_header(header) || (walker->sender && walker->sender != header->sender))
			return 0;
		packet->resync = 0;
		walker->sync = RAFT_SYNC_YES;
		ADD(counters->sync_regained, 1);
		ADD(counters->unparsed_bytes, seq - walker->lost_at);
	} else if (!is_header(header)) {
		ADD(counters->bad_headers, 1);
		lose_sync(packet, counters, seq, RAFT_EVENT_BAD_HEADER, header->magic);
		return 0;
	}
	count_frame(flow, packet, header);
	walker->next_header = seq + HEADER_SIZE + header->body_length;
	packet->at = at + HEADER_SIZE + header->body_length;
	return 1;
}

/* The header at packet->at, or the end of it when it began in an earlier segment. */
static __always_inline int take_next(struct __sk_buff *skb, struct raft_flow *flow,
				     struct raft_packet *packet)
{
	struct raft_counters *counters = &flow->direction[packet->direction & 1];
	struct raft_walker *walker = &counters->walker;
	__u32 at = packet->at, begun = walker->have;

	if (at >= packet->length)
		return 0;
	if (gather(skb, walker, packet->payload + at, packet->length - at)) {
		lose_sync(packet, counters, packet->seq + at - begun, RAFT_EVENT_LOST_SYNC,
			  RAFT_LOST_UNREADABLE);
		return 0;
	}
	if (walker->have < HEADER_SIZE)
		return 0;
	walker->have = 0;
	return take(flow, packet, (const struct raft_frame_header *)walker->header, at - begun);
}

SEC("tc")
int raft_walk(struct __sk_buff *skb)
{
	struct raft_packet *packet;
	struct raft_flow *flow;
	__u32 zero = 0;
	int i;

	packet = bpf_map_lookup_elem(&packets, &zero);
	if (!packet)
		return TC_ACT_UNSPEC;
	flow = bpf_map_lookup_elem(&flows, &packet->key);
	if (!flow)
		return TC_ACT_UNSPEC;
	for (i = 0; i < FRAMES_PER_PROGRAM; i++)
		if (!take_next(skb, flow, packet))
			return TC_ACT_UNSPEC;
	bpf_tail_call(skb, &walkers, 0);
	lose_sync(packet, &flow->direction[packet->direction & 1], packet->seq + packet->at,
		  RAFT_EVENT_LOST_SYNC, RAFT_LOST_TOO_MANY);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual MIT/GPL";
