/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Drops packets from the addresses below the cluster's keys fw/deny/. The agent
 * keeps deny_v4 as the log says; this program only looks. While its copy is not
 * fresh it does what its owner chose.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "raft_export.h"

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 10000);
	__type(key, struct raft_ipv4_prefix);
	__type(value, __u32);
} deny_v4_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct raft_status);
} raft_status_v1 SEC(".maps");

const volatile __u32 drop_when_stale = 0;

SEC("xdp")
int deny(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct raft_ipv4_prefix source = {.prefixlen = 32};
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *)(ethernet + 1);
	const void *reason;

	if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	__builtin_memcpy(source.address, &ip->saddr, sizeof(source.address));
	switch (raft_find_fresh(&deny_v4_v1, &raft_status_v1, &source, &reason)) {
	case RAFT_FOUND:
		return XDP_DROP;
	case RAFT_STALE:
		return drop_when_stale ? XDP_DROP : XDP_PASS;
	default:
		return XDP_PASS;
	}
}

char LICENSE[] SEC("license") = "GPL";
