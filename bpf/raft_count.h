/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What a packet and what a frame header change in the maps.
 *
 * Packets of one direction of a TCP connection are handled one after the
 * other but for moments (a sender that moves to another CPU). Sums are atomic;
 * a walker that is overtaken in such a moment finds a gap and says so.
 */
#ifndef RAFT_COUNT_H
#define RAFT_COUNT_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "raft_maps.h"
#include "raft_parse.h"
#include "raft_wire.h"

#define ADD(counter, n) ((void)__sync_fetch_and_add(&(counter), (n)))

static __always_inline void count_stat(__u32 stat)
{
	__u64 *count = bpf_map_lookup_elem(&stats, &stat);

	if (count)
		*count += 1;
}

static __always_inline void emit(const struct raft_packet *packet, __u32 kind, __u32 detail,
				 __u64 term, __u64 sender)
{
	struct raft_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count_stat(RAFT_STAT_EVENTS_LOST + kind);
		return;
	}
	event->time_ns = packet->now_ns;
	event->term = term;
	event->sender = sender;
	event->kind = kind;
	event->detail = detail;
	event->flow = packet->key;
	event->direction = packet->direction;
	__builtin_memset(event->reserved, 0, sizeof(event->reserved));
	bpf_ringbuf_submit(event, 0);
}

static __always_inline struct raft_flow *flow_of(const struct raft_flow_key *key)
{
	struct raft_flow *flow = bpf_map_lookup_elem(&flows, key);
	__u32 zero = 0;
	void *empty;

	if (flow)
		return flow;
	empty = bpf_map_lookup_elem(&empty_flow, &zero);
	if (!empty)
		return NULL;
	bpf_map_update_elem(&flows, key, empty, BPF_NOEXIST);
	return bpf_map_lookup_elem(&flows, key);
}

static __always_inline void count_packet(struct __sk_buff *skb, const struct raft_packet *packet,
					 struct raft_counters *counters)
{
	ADD(counters->packets, 1);
	ADD(counters->bytes, skb->len);
	ADD(counters->segments, skb->gso_segs > 1 ? skb->gso_segs : 1);
	if (packet->length)
		ADD(counters->payload_bytes, packet->length);
	if (packet->flags & TCP_SYN)
		ADD(counters->syn, 1);
	if (packet->flags & TCP_FIN)
		ADD(counters->fin, 1);
	if (packet->flags & TCP_RST)
		ADD(counters->rst, 1);
	if (packet->fragment)
		ADD(counters->fragments, 1);
	counters->last_ns = packet->now_ns;
}

/* 1 unless x is 0, without the branch that the verifier would have to follow both ways. */
static __always_inline __u64 is_nonzero(__u64 x)
{
	__u64 sign = x | -x;

	asm volatile("" : "+r"(sign));
	return sign >> 63;
}

/* How many times 2^RAFT_LATENCY_SHIFT ns must double to be above `ns`. */
static __always_inline __u32 latency_bucket(__u64 ns)
{
	__u64 rest = ns >> RAFT_LATENCY_SHIFT;
	__u64 bucket = 0, step;

	step = is_nonzero(rest >> 16) << 4;
	rest >>= step;
	bucket += step;
	step = is_nonzero(rest >> 8) << 3;
	rest >>= step;
	bucket += step;
	step = is_nonzero(rest >> 4) << 2;
	rest >>= step;
	bucket += step;
	step = is_nonzero(rest >> 2) << 1;
	rest >>= step;
	bucket += step;
	step = is_nonzero(rest >> 1);
	rest >>= step;
	bucket += step + is_nonzero(rest);
	return bucket % RAFT_LATENCY_BUCKETS;
}

/* Fibonacci hashing by the highest bits: request ids of one connection come in strides. */
static __always_inline __u32 raft_recent_slot(__u64 request_id)
{
	return request_id * 0x9e3779b97f4a7c15ULL >> (64 - RAFT_RECENT_BITS);
}

static __always_inline int is_leaders_word(__u8 type)
{
	return type == RAFT_APPEND_ENTRIES || type == RAFT_HEARTBEAT;
}

/* Remembers when the frame passed; of a response, how long it was after its request. */
static __always_inline void measure(struct raft_flow *flow, const struct raft_packet *packet,
				    const struct raft_frame_header *header)
{
	__u32 slot = raft_recent_slot(header->request_id);
	struct raft_counters *there = &flow->direction[packet->direction & 1];
	struct raft_counters *back = &flow->direction[~packet->direction & 1];
	struct raft_recent *recent = &there->recent[slot];
	__u64 sent_ns;

	if (!header->request_id)
		return;
	recent->request_id = header->request_id;
	recent->time_ns = packet->now_ns;
	if (header->type != RAFT_APPEND_REPLY && header->type != RAFT_HEARTBEAT_REPLY)
		return;
	recent = &back->recent[slot];
	sent_ns = recent->time_ns;
	/* Overwritten by a later request, not seen, or of a former connection: a sample less. */
	if (recent->request_id != header->request_id || !sent_ns ||
	    packet->now_ns - sent_ns > RAFT_MAX_LATENCY_NS)
		return;
	recent->time_ns = 0;
	slot = latency_bucket(packet->now_ns - sent_ns);
	if (header->type == RAFT_APPEND_REPLY)
		ADD(back->append_latency[slot], 1);
	else
		ADD(back->heartbeat_latency[slot], 1);
}

static __always_inline void notice_changes(const struct raft_packet *packet,
					   const struct raft_frame_header *header)
{
	struct raft_view *seen;
	__u32 zero = 0, kind = 0;

	seen = bpf_map_lookup_elem(&view, &zero);
	if (!seen)
		return;
	if (header->term > seen->term) {
		seen->term = header->term;
		kind = RAFT_EVENT_TERM_RAISED;
	}
	if (is_leaders_word(header->type) && header->term > seen->leader_term) {
		seen->leader_term = header->term;
		seen->leader = header->sender;
		/* One event is enough: a new leader comes with its term. */
		kind = RAFT_EVENT_NEW_LEADER;
	}
	if (kind)
		emit(packet, kind, 0, header->term, header->sender);
}

static __always_inline int is_header(const struct raft_frame_header *header)
{
	return header->magic == RAFT_WIRE_MAGIC && header->version == RAFT_WIRE_VERSION &&
	       !header->reserved && header->body_length <= RAFT_WIRE_MAX_SEALED && header->type &&
	       header->type < RAFT_FRAME_TYPES;
}

static __always_inline void count_frame(struct raft_flow *flow, const struct raft_packet *packet,
					const struct raft_frame_header *header)
{
	struct raft_counters *counters = &flow->direction[packet->direction & 1];
	__u32 type = header->type;

	if (type < RAFT_FRAME_TYPES) {
		ADD(counters->types[type].frames, 1);
		ADD(counters->types[type].bytes, sizeof(*header) + header->body_length);
	}
	measure(flow, packet, header);
	if (!header->sender || type >= RAFT_CLIENT_REQUEST)
		return;
	counters->walker.sender = header->sender;
	counters->sender = header->sender;
	/* These name a term that is only asked about, and that may never come (§9.6 of the thesis). */
	if (type == RAFT_PRE_VOTE || type == RAFT_PRE_VOTE_REPLY)
		return;
	counters->term = header->term;
	if (type == RAFT_APPEND_ENTRIES && header->count)
		ADD(counters->entries, header->count);
	if (packet->direction == RAFT_INGRESS && is_leaders_word(type) &&
	    header->sender != config.local_member_id) {
		counters->append.time_ns = packet->now_ns;
		counters->append.term = header->term;
		counters->append.sender = header->sender;
	}
	notice_changes(packet, header);
}

#endif /* RAFT_COUNT_H */
