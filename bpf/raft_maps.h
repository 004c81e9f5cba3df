/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What the TC program and the agent share: the maps and what is in them. The
 * only source of these layouts; kernel/layout.py is tested against it. Little
 * endian on every machine, times in nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef RAFT_MAPS_H
#define RAFT_MAPS_H

#include <linux/types.h>

#define RAFT_MAX_FLOWS	     1024 /* the loader asks for more on many CPUs */
#define RAFT_MAX_STRANGERS   1024
#define RAFT_MAX_ALLOWED     4096
#define RAFT_MAX_FAULTS	     256
#define RAFT_MAX_FAULT_NS    300000000000ULL
#define RAFT_MAX_JUMP	     (64U << 20)
#define RAFT_EVENTS_BYTES    (64 * 1024)
#define RAFT_FRAME_TYPES     40 /* enum raft_frame_type is below this */
#define RAFT_RECENT_BITS     5
#define RAFT_RECENT	     (1 << RAFT_RECENT_BITS)
#define RAFT_LATENCY_BUCKETS 32 /* a power of two */
#define RAFT_LATENCY_SHIFT   11 /* bucket 0 ends at 2^11 ns, each further one at twice that */
#define RAFT_MAX_LATENCY_NS  60000000000ULL
#define RAFT_PORT_WORDS	     1024 /* 65,536 ports, 64 in a word */
#define RAFT_HEADER_ROOM     128  /* a header takes 48; the verifier can prove this */

/* Read-only data, frozen at load. */
struct raft_config {
	__u64 local_member_id; /* nobody else's word counts under it; 0: not known */
	__u16 raft_port;       /* host order: the port that the agent listens on */
	__u8 faults_enabled;   /* 0: the fault code is dead and removed by the verifier */
	__u8 reserved[5];
};

enum raft_direction {
	RAFT_INGRESS = 0,
	RAFT_EGRESS = 1,
};

/* One TCP connection, as this host sees it. IPv4 as ::ffff:a.b.c.d. */
struct raft_flow_key {
	__be32 local[4];
	__be32 remote[4];
	__u16 local_port; /* host order */
	__u16 remote_port;
};

struct raft_type_count {
	__u64 frames;
	__u64 bytes; /* headers and bodies */
};

/* When a frame with this request id passed last; slot: see raft_recent_slot. */
struct raft_recent {
	__u64 request_id;
	__u64 time_ns;
};

/* The newest AppendEntries or Heartbeat header that came for the first time. */
struct raft_stamp {
	__u64 time_ns; /* 0: none yet */
	__u64 term;
	__u64 sender;
};

enum raft_sync {
	RAFT_SYNC_NONE = 0, /* no packet seen */
	RAFT_SYNC_YES = 1,  /* next_header is where a header starts */
	RAFT_SYNC_LOST = 2, /* looking for a header at the start of each segment */
};

/* Where the next header stands in the TCP stream. */
struct raft_walker {
	__u32 next_header; /* sequence number of the next header's first byte */
	__u32 highest;	   /* sequence number behind the last byte seen */
	__u32 lost_at;	   /* where the header should have been that was not found */
	__u32 start;	   /* sequence number of the connection's first byte */
	__u32 stray;	   /* sequence number behind the last stray packet */
	__u8 sync;	   /* enum raft_sync */
	__u8 have;	   /* bytes of the next header that came with earlier segments */
	__u8 reserved[2];
	__u64 sender;		       /* whose frames this connection carries; 0: not known */
	__u8 header[RAFT_HEADER_ROOM]; /* the header at hand, or its beginning */
};

/* One direction of a flow. Everything counts up; a reconnect from the same port goes on. */
struct raft_counters {
	/* What every packet or frame changes stands together, for the cache's sake. */
	__u64 packets;
	__u64 bytes;	     /* with all headers */
	__u64 segments;	     /* what the packets are on the wire, before GRO or after GSO */
	__u64 payload_bytes; /* TCP payload, retransmissions too */
	__u64 stream_bytes;  /* how far the TCP stream went on; gaps count as passed */
	__u64 last_ns;	     /* the last packet */
	__u64 term;	     /* of the newest frame between members */
	__u64 sender;
	struct raft_walker walker;
	struct raft_stamp append;
	__u64 entries; /* the count field of AppendEntries headers */
	__u64 syn;
	__u64 fin;
	__u64 rst;
	__u64 retransmissions; /* packets that begin with bytes below the highest seen */
	__u64 retransmitted_bytes;
	__u64 gaps; /* packets that begin above the highest byte seen */
	__u64 gap_bytes;
	__u64 strays;	   /* packets further off than any window; two in a row are followed */
	__u64 fragments;   /* first fragments; later ones carry no port */
	__u64 fault_drops; /* dropped by the fault map; in no other counter */
	__u64 sync_lost;
	__u64 sync_regained;
	__u64 unparsed_bytes; /* stream bytes between where sync was lost and regained */
	__u64 bad_headers;    /* where a header should be stood something else */
	struct raft_type_count types[RAFT_FRAME_TYPES];
	struct raft_recent recent[RAFT_RECENT];
	/* Of requests in this direction, until the response passed in the other one. */
	__u64 append_latency[RAFT_LATENCY_BUCKETS];
	__u64 heartbeat_latency[RAFT_LATENCY_BUCKETS];
};

struct raft_flow {
	struct raft_counters direction[2]; /* by enum raft_direction */
};

/* What belongs to no flow. */
enum raft_stat {
	RAFT_STAT_NO_FLOW = 0,	     /* packets of a flow for which there was no room */
	RAFT_STAT_UNREADABLE,	     /* packets on our port cut off within their headers */
	RAFT_STAT_LATER_FRAGMENTS,   /* TCP of any port: only first fragments carry one */
	RAFT_STAT_FIREWALL_ADMITTED, /* new connections, in audit and enforce mode */
	RAFT_STAT_FIREWALL_AUDITED,  /* … that would have been dropped */
	RAFT_STAT_FIREWALL_DROPPED,
	RAFT_STAT_FAULT_DROPPED,
	RAFT_STAT_EVENTS_LOST, /* + enum raft_event_kind: the ring buffer was full */
	RAFT_STATS = RAFT_STAT_EVENTS_LOST + 8,
};

enum raft_event_kind {
	RAFT_EVENT_NEW_LEADER = 1,
	RAFT_EVENT_TERM_RAISED = 2,
	RAFT_EVENT_UNKNOWN_SOURCE = 3, /* detail: 1 dropped, 0 let through */
	RAFT_EVENT_BAD_HEADER = 4,     /* detail: the four bytes where the magic should be */
	RAFT_EVENT_LOST_SYNC = 5,      /* detail: enum raft_lost_reason */
	RAFT_EVENT_FAULT_HIT = 6,      /* detail: per mille; the first packet of each fault */
};

enum raft_lost_reason {
	RAFT_LOST_GAP = 1,	/* bytes with a header in them never passed here */
	RAFT_LOST_TOO_MANY = 2, /* more frames in a packet than are walked */
	RAFT_LOST_UNREADABLE = 3,
};

struct raft_event {
	__u64 time_ns;
	__u64 term;
	__u64 sender;
	__u32 kind; /* enum raft_event_kind */
	__u32 detail;
	struct raft_flow_key flow;
	__u8 direction;
	__u8 reserved[3];
};

/* The newest term and leader that any frame named, for events of changes. */
struct raft_view {
	__u64 term;
	__u64 leader_term;
	__u64 leader;
};

enum raft_firewall_mode {
	RAFT_FIREWALL_OFF = 0,
	RAFT_FIREWALL_AUDIT = 1,
	RAFT_FIREWALL_ENFORCE = 2,
};

/* What changes while the program runs. */
struct raft_control {
	__u64 enforce_until_ns; /* renewed by the agent; behind it nothing is dropped */
	__u32 firewall_mode;	/* enum raft_firewall_mode */
	__u32 reserved;
};

struct raft_prefix {
	__u32 bits; /* of the 128; IPv4 is behind ::ffff:0:0/96 */
	__be32 address[4];
};

struct raft_address {
	__be32 words[4];
};

struct raft_stranger {
	__u64 connections;
	__u64 dropped;
	__u64 first_ns;
	__u64 last_ns;
};

struct raft_fault_key {
	__be32 remote[4];
	__u32 direction; /* enum raft_direction */
};

struct raft_fault {
	__u64 until_ns; /* at most RAFT_MAX_FAULT_NS ahead, or it does not count */
	__u64 hits;
	__u32 per_mille;
	__u32 reserved;
};

/*
 * The packet at hand, on the CPU that handles it. It is kept in a map and not
 * on the stack because the verifier forgets what it knows of a map's values:
 * so the ways through the parser end in one state, and not in hundreds.
 */
struct raft_packet {
	struct raft_flow_key key;
	__u32 direction; /* enum raft_direction */
	__u64 now_ns;
	__u32 tcp_at;  /* offset of the TCP header from the network header */
	__u32 ip_ends; /* where the IP packet ends, from there too; 0: its length can't say */
	__u32 payload; /* offset of the TCP payload from skb->data */
	__u32 length;  /* of the payload */
	__u32 seq;     /* sequence number of the payload's first byte */
	__u32 at;      /* offset in the payload of the next header or its missing part */
	__u8 flags;    /* enum tcp_flag */
	__u8 fragment; /* the first one of several */
	__u8 resync;   /* out of sync; a header here is a find, none is no news */
	__u8 reserved[1];
};

#ifdef __bpf__
#include <bpf/bpf_helpers.h>

const volatile struct raft_config config = {};

/*
 * Counters, walkers and stamps per flow. LRU, so that SYNs with forged sources
 * push each other out and not the peers, who send many times a second.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, RAFT_MAX_FLOWS);
	__type(key, struct raft_flow_key);
	__type(value, struct raft_flow);
} flows SEC(".maps");

/* A flow of zeros to start with: it would not fit on the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct raft_flow);
} empty_flow SEC(".maps");

/* Counters by enum raft_stat. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RAFT_STATS);
	__type(key, __u32);
	__type(value, __u64);
} stats SEC(".maps");

/* struct raft_event of what changed. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RAFT_EVENTS_BYTES);
} events SEC(".maps");

/* The one struct raft_view. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct raft_view);
} view SEC(".maps");

/* The one struct raft_control. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct raft_control);
} control SEC(".maps");

/* Bit p % 64 of word p / 64: peers listen on port p. raft_port counts without its bit. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RAFT_PORT_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} peer_ports SEC(".maps");

/* Who may open connections to raft_port; the value means nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, RAFT_MAX_ALLOWED);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct raft_prefix);
	__type(value, __u32);
} allowed SEC(".maps");

/* Who tried to, and may not; by address. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, RAFT_MAX_STRANGERS);
	__type(key, struct raft_address);
	__type(value, struct raft_stranger);
} strangers SEC(".maps");

/* Packets to lose, per peer and direction; looked at only with faults_enabled. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RAFT_MAX_FAULTS);
	__type(key, struct raft_fault_key);
	__type(value, struct raft_fault);
} faults SEC(".maps");

/* The one struct raft_packet. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct raft_packet);
} packets SEC(".maps");

#endif /* __bpf__ */

#endif /* RAFT_MAPS_H */
