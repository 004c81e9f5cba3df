/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * For programs that read exported maps: what the status map holds, and lookups
 * that say how current they have to be. Include it behind <linux/bpf.h> and
 * <bpf/bpf_helpers.h>; Linux 5.10 has all that it needs. Little endian.
 *
 * Everything up to applied_index is in the maps. While a batch is written, some
 * of what is up to writing_index is there already: who needs several keys of one
 * moment looks at the status before and behind and wants both numbers equal and
 * the same.
 */
#ifndef RAFT_EXPORT_H
#define RAFT_EXPORT_H

#include <linux/types.h>

enum raft_node_role {
	RAFT_FOLLOWER = 0,
	RAFT_LEADER = 1,
	RAFT_CANDIDATE = 2,
	RAFT_LEARNER = 3,
	RAFT_NO_ROLE = 4,
};

enum raft_export_state {
	RAFT_EXPORT_FILLING = 0, /* the agent has just begun */
	RAFT_EXPORT_READY = 1,
	RAFT_EXPORT_DEGRADED = 2, /* some map is not what the log says */
	RAFT_EXPORT_STOPPED = 3,  /* the agent has ended; the maps stay as they are */
};

struct raft_status {
	__u64 applied_index;
	__u64 writing_index;
	__u64 term;
	__u64 leader_id;
	__u64 fresh_until_ns; /* CLOCK_BOOTTIME; 0: never */
	__u32 role;	      /* enum raft_node_role */
	__u32 state;	      /* enum raft_export_state */
};

/* struct bpf_lpm_trie_key of the types ipv4_prefix and ipv6_prefix. */
struct raft_ipv4_prefix {
	__u32 prefixlen;
	__u8 address[4];
};

struct raft_ipv6_prefix {
	__u32 prefixlen;
	__u8 address[16];
};

enum raft_answer {
	RAFT_ABSENT = 0, /* the key is not there */
	RAFT_FOUND = 1,
	RAFT_STALE = 2, /* this copy is too old to tell */
};

static __always_inline const struct raft_status *raft_status_of(void *status_map)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(status_map, &key);
}

static __always_inline int raft_is_fresh(void *status_map)
{
	const struct raft_status *status = raft_status_of(status_map);

	return status && bpf_ktime_get_boot_ns() < status->fresh_until_ns;
}

/* Whatever this copy says, however old it is. */
static __always_inline enum raft_answer raft_find(void *map, const void *key, const void **value)
{
	*value = bpf_map_lookup_elem(map, key);
	return *value ? RAFT_FOUND : RAFT_ABSENT;
}

/* Only while this copy is fresh. */
static __always_inline enum raft_answer raft_find_fresh(void *map, void *status_map,
							const void *key, const void **value)
{
	*value = 0;
	if (!raft_is_fresh(status_map))
		return RAFT_STALE;
	return raft_find(map, key, value);
}

/* Only when everything up to the log index is in this copy. */
static __always_inline enum raft_answer raft_find_at(void *map, void *status_map, const void *key,
						     __u64 index, const void **value)
{
	const struct raft_status *status = raft_status_of(status_map);

	*value = 0;
	if (!status || status->applied_index < index)
		return RAFT_STALE;
	return raft_find(map, key, value);
}

#endif
