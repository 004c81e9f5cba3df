/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The frame header that stands before every message of raft-ebpf, on TCP and
 * on the Unix socket. Little endian on every machine. This file is the only
 * source of the layout: the agent's Python struct is tested against it.
 */
#ifndef RAFT_WIRE_H
#define RAFT_WIRE_H

#include <linux/types.h>

#define RAFT_WIRE_MAGIC		     0x54464152U /* "RAFT" as bytes on the wire */
#define RAFT_WIRE_VERSION	     1
#define RAFT_WIRE_HEADER_SIZE	     48
#define RAFT_WIRE_MAX_BODY	     (32U << 20)
/* With TLS the body is records that carry the whole frame, and are a little longer. */
#define RAFT_WIRE_MAX_SEALED	     (RAFT_WIRE_MAX_BODY + (64U << 10))
/* An AppendEntries body starts with these fields; batches follow. */
#define RAFT_WIRE_APPEND_FIELDS_SIZE 32

enum raft_frame_type {
	RAFT_HELLO = 1,
	RAFT_HELLO_REPLY = 2,
	RAFT_PRE_VOTE = 3,
	RAFT_PRE_VOTE_REPLY = 4,
	RAFT_REQUEST_VOTE = 5,
	RAFT_VOTE_REPLY = 6,
	RAFT_APPEND_ENTRIES = 7,
	RAFT_APPEND_REPLY = 8,
	RAFT_HEARTBEAT = 9,
	RAFT_HEARTBEAT_REPLY = 10,
	RAFT_TIMEOUT_NOW = 11,
	RAFT_READ_INDEX = 12,
	RAFT_READ_INDEX_REPLY = 13,
	RAFT_BOOTSTRAP_ASK = 14,
	RAFT_BOOTSTRAP_ANSWER = 15,
	RAFT_BOOTSTRAP_INSTALL = 16,
	RAFT_SNAPSHOT_CHUNK = 17,
	RAFT_SNAPSHOT_REPLY = 18,
	RAFT_ANNOUNCE = 19,
	RAFT_REMOVED = 20,
	RAFT_AUDIT_REPORT = 21,
	RAFT_VERSION_ASK = 27,
	RAFT_VERSION_PROMISE = 28,
	RAFT_CLIENT_REQUEST = 32,
	RAFT_CLIENT_REPLY = 33,
	RAFT_CLIENT_PUSH = 34,
	RAFT_FORWARD_REQUEST = 35,
	RAFT_FORWARD_REPLY = 36,
	RAFT_TLS_HANDSHAKE = 37,
	RAFT_TLS_FRAME = 38,
};

enum raft_frame_flag {
	RAFT_FLAG_JSON = 1 << 0,
};

/*
 * checksum is the CRC32C of this header with checksum = 0, continued over the
 * body; for RAFT_APPEND_ENTRIES over the first RAFT_WIRE_APPEND_FIELDS_SIZE
 * bytes of the body only, since each batch behind them has a CRC32C of its own.
 */
struct raft_frame_header {
	__le32 magic;
	__u8 version;
	__u8 type;	    /* enum raft_frame_type */
	__le16 flags;	    /* enum raft_frame_flag */
	__le32 body_length; /* bytes that follow this header */
	__le32 checksum;
	__le64 sender; /* member id; 0: a client */
	__le64 term;
	__le64 request_id; /* a reply repeats its request's */
	__le32 count;	   /* entries or requests in the body */
	__le32 reserved;   /* 0 */
};

#endif /* RAFT_WIRE_H */
