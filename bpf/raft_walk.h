/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The walker: from frame header to frame header along the TCP stream, however
 * the stream was cut into segments. The sequence number of the next header is
 * kept per direction of a flow; a header that begins in one segment and ends
 * in another is gathered there too.
 */
#ifndef RAFT_WALK_H
#define RAFT_WALK_H

#include "raft_count.h"

/* Frames per program; the verifier follows each of them. 33 programs follow each other at most. */
#define FRAMES_PER_PROGRAM 48
#define HEADER_SIZE	   RAFT_WIRE_HEADER_SIZE

int raft_packet(struct __sk_buff *skb);
int raft_walk(struct __sk_buff *skb);

enum part {
	PART_PACKET, /* of our port: for both directions the same */
	PART_WALK,   /* goes on with itself: one loop of that size would take too long to verify */
	PARTS,
};

/* The programs that go on where another one ended. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PARTS);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct __sk_buff *));
} parts SEC(".maps") = {
	.values =
		{
			[PART_PACKET] = (void *)&raft_packet,
			[PART_WALK] = (void *)&raft_walk,
		},
};

/* Whether sequence number a stands before b (RFC 9293 §3.4). */
static __always_inline int before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

/* `at` is the sequence number of the header that can't be read. */
static __always_inline void lose_sync(const struct raft_packet *packet,
				      struct raft_counters *counters, __u32 at, __u32 kind,
				      __u32 detail)
{
	counters->walker.sync = RAFT_SYNC_LOST;
	counters->walker.lost_at = at;
	counters->walker.have = 0;
	ADD(counters->sync_lost, 1);
	emit(packet, kind, detail, counters->term, counters->walker.sender);
}

static __always_inline void start_walking(struct raft_walker *walker, __u32 seq)
{
	walker->sync = RAFT_SYNC_YES;
	walker->next_header = seq;
	walker->highest = seq;
	walker->start = seq;
	walker->have = 0;
	walker->sender = 0;
}

/*
 * Follows the sequence numbers. Returns how many of the payload's first bytes
 * passed before; all of them when nothing is left to look at.
 */
static __always_inline __u32 follow(struct raft_counters *counters,
				    const struct raft_packet *packet)
{
	struct raft_walker *walker = &counters->walker;
	__u32 seq = packet->seq, length = packet->length;
	__u32 old = 0;

	/* A SYN that is no repetition is a new connection, from the same port perhaps. */
	if (packet->flags & TCP_SYN && (walker->sync == RAFT_SYNC_NONE || walker->start != seq))
		start_walking(walker, seq);
	if (walker->sync == RAFT_SYNC_NONE) {
		/* A connection older than the program: from here on as if sync had been lost. */
		start_walking(walker, seq);
		walker->sync = RAFT_SYNC_LOST;
		walker->lost_at = seq;
	}
	if (!length)
		return 0;
	if (seq - walker->highest + RAFT_MAX_JUMP > 2 * RAFT_MAX_JUMP) {
		__u32 expected = walker->stray;

		/* No window is that wide: forged, or much passed by unseen. A second one decides. */
		ADD(counters->strays, 1);
		walker->stray = seq + length;
		if (seq != expected)
			return length;
		if (walker->sync == RAFT_SYNC_YES)
			lose_sync(packet, counters, walker->next_header, RAFT_EVENT_LOST_SYNC,
				  RAFT_LOST_GAP);
		walker->highest = seq;
	}
	if (before(seq, walker->highest)) {
		old = walker->highest - seq;
		if (old > length)
			old = length;
		ADD(counters->retransmissions, 1);
		ADD(counters->retransmitted_bytes, old);
		if (old == length)
			return old;
	} else if (seq != walker->highest) {
		ADD(counters->gaps, 1);
		ADD(counters->gap_bytes, seq - walker->highest);
		/* No matter within a body. */
		if (walker->sync == RAFT_SYNC_YES &&
		    (walker->have || before(walker->next_header, seq)))
			lose_sync(packet, counters, walker->next_header, RAFT_EVENT_LOST_SYNC,
				  RAFT_LOST_GAP);
	}
	ADD(counters->stream_bytes, seq + length - walker->highest);
	walker->highest = seq + length;
	return old;
}

/* Whether a header may stand in the packet, whose first `old` bytes passed before; and where. */
static __always_inline int find_start(const struct raft_counters *counters,
				      struct raft_packet *packet, __u32 old)
{
	const struct raft_walker *walker = &counters->walker;

	packet->resync = walker->sync == RAFT_SYNC_LOST;
	if (packet->resync) {
		packet->at = 0;
		return !old && packet->length >= HEADER_SIZE;
	}
	packet->at = walker->next_header + walker->have - packet->seq;
	return packet->at < packet->length;
}

/* Takes what there is of a header at `at` into the walker. Returns 0, or < 0 on failure. */
static __always_inline long gather(struct __sk_buff *skb, struct raft_walker *walker, __u32 at,
				   __u32 available)
{
	__u64 have = walker->have;
	__u64 size;

	if (have >= HEADER_SIZE)
		return -1;
	size = HEADER_SIZE - have;
	if (size > available)
		size = available;
	/* Masks that change nothing, in a form that every verifier understands. */
	asm volatile("" : "+r"(size), "+r"(have));
	size = ((size - 1) & (RAFT_HEADER_ROOM / 2 - 1)) + 1;
	have &= RAFT_HEADER_ROOM / 2 - 1;
	if (bpf_skb_load_bytes(skb, at, walker->header + have, size))
		return -1;
	walker->have = have + size;
	return 0;
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

#endif /* RAFT_WALK_H */
