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

/* Of nearly all packets that are not ours this is all that runs. */
static __always_inline int enter(struct __sk_buff *skb, __u32 direction)
{
	const struct iphdr *plain = plain_headers(skb);
	struct raft_packet *packet;
	__u32 zero = 0;

	if (plain && (plain->protocol != IPPROTO_TCP ||
		      !is_our_port(direction, config.raft_port, plain_tcp(plain)->source,
				   plain_tcp(plain)->dest)))
		return TC_ACT_UNSPEC;
	packet = bpf_map_lookup_elem(&packets, &zero);
	if (!packet)
		return TC_ACT_UNSPEC;
	packet->direction = direction;
	bpf_tail_call(skb, &parts, PART_PACKET);
	/* Nobody holds the table of programs any more: the agent is gone. */
	return TC_ACT_UNSPEC;
}

SEC("tc/ingress")
int raft_ingress(struct __sk_buff *skb)
{
	return enter(skb, RAFT_INGRESS);
}

SEC("tc/egress")
int raft_egress(struct __sk_buff *skb)
{
	return enter(skb, RAFT_EGRESS);
}

SEC("tc")
int raft_packet(struct __sk_buff *skb)
{
	struct raft_counters *counters;
	struct raft_packet *packet;
	struct raft_flow *flow;
	__u32 zero = 0, old;

	packet = bpf_map_lookup_elem(&packets, &zero);
	if (!packet)
		return TC_ACT_UNSPEC;
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
	if (packet->direction == RAFT_INGRESS && !is_admitted(packet, config.raft_port))
		return TC_ACT_SHOT;
	flow = flow_of(&packet->key);
	if (!flow) {
		count_stat(RAFT_STAT_NO_FLOW);
		return TC_ACT_UNSPEC;
	}
	counters = &flow->direction[packet->direction & 1];
	if (config.faults_enabled && is_lost_to_fault(packet)) {
		ADD(counters->fault_drops, 1);
		return TC_ACT_SHOT;
	}
	count_packet(skb, packet, counters);
	old = follow(counters, packet);
	if (old == packet->length || !find_start(counters, packet, old))
		return TC_ACT_UNSPEC;
	/* The first frame here, since mostly there is no other. */
	if (take_next(skb, flow, packet) && packet->at < packet->length) {
		bpf_tail_call(skb, &parts, PART_WALK);
		lose_sync(packet, counters, packet->seq + packet->at, RAFT_EVENT_LOST_SYNC,
			  RAFT_LOST_TOO_MANY);
	}
	return TC_ACT_UNSPEC;
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
	bpf_tail_call(skb, &parts, PART_WALK);
	lose_sync(packet, &flow->direction[packet->direction & 1], packet->seq + packet->at,
		  RAFT_EVENT_LOST_SYNC, RAFT_LOST_TOO_MANY);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual MIT/GPL";
