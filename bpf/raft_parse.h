/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * From a packet to its TCP payload: Ethernet, VLAN tags, devices without a
 * link header, IPv4 with options, IPv6 with extension headers, fragments.
 */
#ifndef RAFT_PARSE_H
#define RAFT_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "raft_maps.h"

#define VLAN_TAGS	   2
#define EXTENSION_HEADERS  6
#define IP4_FRAGMENT_PART  0x1fff
#define IP4_MORE_FRAGMENTS 0x2000
#define IP6_FRAGMENT_PART  0xfff8
#define IP6_MORE_FRAGMENTS 0x0001

#ifndef IPPROTO_HOPOPTS
#define IPPROTO_HOPOPTS	 0
#define IPPROTO_ROUTING	 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_DSTOPTS	 60
#endif

struct vlan_tag {
	__be16 tci;
	__be16 protocol;
};

enum parsed {
	PARSED_FOREIGN,
	PARSED_OURS,
	PARSED_LATER_FRAGMENT,
	PARSED_UNREADABLE,
};

/* Where the network header is if the packet's own bytes are to say it. */
static __always_inline __u32 guess_network(struct __sk_buff *skb)
{
	__be16 protocol = 0;

	bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_proto), &protocol, sizeof(protocol));
	return protocol == (__be16)skb->protocol ? ETH_HLEN : 0;
}

/*
 * The relative helper knows where the network header is, on every kind of
 * device, but sees only the linear part of the packet. Nearly always the
 * headers are there.
 */
static __always_inline long load_network(struct __sk_buff *skb, __u32 at, void *to, __u32 size)
{
	if (!bpf_skb_load_bytes_relative(skb, at, to, size, BPF_HDR_START_NET))
		return 0;
	return bpf_skb_load_bytes(skb, guess_network(skb) + at, to, size);
}

/* Offset of the network header from skb->data, which no helper tells. */
static __always_inline __u32 find_network(struct __sk_buff *skb)
{
	__u64 wanted, found;

	if (bpf_skb_load_bytes_relative(skb, 0, &wanted, sizeof(wanted), BPF_HDR_START_NET))
		return guess_network(skb);
	if (!bpf_skb_load_bytes(skb, ETH_HLEN, &found, sizeof(found)) && found == wanted)
		return ETH_HLEN;
	if (!bpf_skb_load_bytes(skb, 0, &found, sizeof(found)) && found == wanted)
		return 0;
	/* A tag that the device left in front of the network header. */
	return ETH_HLEN + sizeof(struct vlan_tag);
}

/* ::ffff:a.b.c.d (RFC 4291 §2.5.5.2) */
static __always_inline void map_ip4(__u8 *to, __be32 address)
{
	__builtin_memset(to, 0, 10);
	to[10] = 0xff;
	to[11] = 0xff;
	__builtin_memcpy(to + 12, &address, sizeof(address));
}

static __always_inline enum parsed parse_ip4(struct __sk_buff *skb, __u32 at,
					     struct raft_packet *packet)
{
	__u8 *source = packet->direction == RAFT_INGRESS ? packet->key.remote : packet->key.local;
	__u8 *target = packet->direction == RAFT_INGRESS ? packet->key.local : packet->key.remote;
	struct iphdr ip;
	__u16 fragment;

	if (load_network(skb, at, &ip, sizeof(ip)))
		return PARSED_FOREIGN;
	if (ip.version != 4 || ip.ihl < 5 || ip.protocol != IPPROTO_TCP)
		return PARSED_FOREIGN;
	fragment = bpf_ntohs(ip.frag_off);
	if (fragment & IP4_FRAGMENT_PART)
		return PARSED_LATER_FRAGMENT;
	packet->fragment = !!(fragment & IP4_MORE_FRAGMENTS);
	packet->tcp_at = at + ip.ihl * 4;
	/* 0 in packets of more than 64 KiB that were never on a wire (BIG TCP). */
	packet->ip_ends = ip.tot_len ? at + bpf_ntohs(ip.tot_len) : 0;
	map_ip4(source, ip.saddr);
	map_ip4(target, ip.daddr);
	return PARSED_OURS;
}

static __always_inline enum parsed parse_ip6(struct __sk_buff *skb, __u32 at,
					     struct raft_packet *packet)
{
	__u8 *source = packet->direction == RAFT_INGRESS ? packet->key.remote : packet->key.local;
	__u8 *target = packet->direction == RAFT_INGRESS ? packet->key.local : packet->key.remote;
	struct ipv6hdr ip;
	__u8 next;
	int i;

	if (load_network(skb, at, &ip, sizeof(ip)) || ip.version != 6)
		return PARSED_FOREIGN;
	next = ip.nexthdr;
	at += sizeof(ip);
	packet->fragment = 0;
	packet->ip_ends = ip.payload_len ? at + bpf_ntohs(ip.payload_len) : 0;
	for (i = 0; i < EXTENSION_HEADERS && next != IPPROTO_TCP; i++) {
		/* RFC 8200 §4: next header, length; of a fragment header offset and M behind them. */
		struct {
			__u8 next;
			__u8 length;
			__be16 fragment;
		} head;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_DSTOPTS && next != IPPROTO_AH)
			return PARSED_FOREIGN;
		if (load_network(skb, at, &head, sizeof(head)))
			return PARSED_FOREIGN;
		if (next == IPPROTO_FRAGMENT) {
			if (bpf_ntohs(head.fragment) & IP6_FRAGMENT_PART)
				return head.next == IPPROTO_TCP ? PARSED_LATER_FRAGMENT
								: PARSED_FOREIGN;
			packet->fragment = !!(bpf_ntohs(head.fragment) & IP6_MORE_FRAGMENTS);
			at += 8;
		} else if (next == IPPROTO_AH) {
			at += (head.length + 2) * 4;
		} else {
			at += (head.length + 1) * 8;
		}
		next = head.next;
	}
	if (next != IPPROTO_TCP)
		return PARSED_FOREIGN;
	packet->tcp_at = at;
	__builtin_memcpy(source, &ip.saddr, 16);
	__builtin_memcpy(target, &ip.daddr, 16);
	return PARSED_OURS;
}

static __always_inline int is_peer_port(__u16 port)
{
	__u32 word = port / 64;
	__u64 *bits = bpf_map_lookup_elem(&peer_ports, &word);

	return bits && *bits >> (port % 64) & 1;
}

/* Whether a packet between these ports, as the packet has them, belongs to the agent. */
static __always_inline int is_our_port(__u32 direction, __u16 raft_port, __be16 source,
				       __be16 target)
{
	__u16 local = bpf_ntohs(direction == RAFT_INGRESS ? target : source);
	__u16 remote = bpf_ntohs(direction == RAFT_INGRESS ? source : target);

	return local == raft_port || remote == raft_port || is_peer_port(remote);
}

/*
 * The short way out for most of what passes: one look at an IPv4 header
 * without options and the ports behind it. Says nothing of anything else.
 */
static __always_inline int is_plainly_foreign(struct __sk_buff *skb, __u32 direction,
					      __u16 raft_port)
{
	struct {
		struct iphdr ip;
		__be16 ports[2];
	} head;

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes_relative(skb, 0, &head, sizeof(head), BPF_HDR_START_NET))
		return 0;
	if (head.ip.version != 4 || head.ip.ihl != 5 ||
	    head.ip.frag_off & bpf_htons(IP4_FRAGMENT_PART))
		return 0;
	return head.ip.protocol != IPPROTO_TCP ||
	       !is_our_port(direction, raft_port, head.ports[0], head.ports[1]);
}

/* TCP of the agent's port: ours when the packet belongs to it. */
static __always_inline enum parsed parse_tcp(struct __sk_buff *skb, __u16 raft_port,
					     struct raft_packet *packet)
{
	struct raft_flow_key *key = &packet->key;
	struct tcphdr tcp = {};

	/* When it is cut off the ports may still be there; the length field is 0 then. */
	if (load_network(skb, packet->tcp_at, &tcp, sizeof(tcp)) &&
	    load_network(skb, packet->tcp_at, &tcp, offsetof(struct tcphdr, seq)))
		return PARSED_FOREIGN;
	if (!is_our_port(packet->direction, raft_port, tcp.source, tcp.dest))
		return PARSED_FOREIGN;
	key->local_port = bpf_ntohs(packet->direction == RAFT_INGRESS ? tcp.dest : tcp.source);
	key->remote_port = bpf_ntohs(packet->direction == RAFT_INGRESS ? tcp.source : tcp.dest);
	if (tcp.doff < 5)
		return PARSED_UNREADABLE;
	packet->syn = tcp.syn;
	packet->ack = tcp.ack;
	packet->fin = tcp.fin;
	packet->rst = tcp.rst;
	packet->seq = bpf_ntohl(tcp.seq) + tcp.syn;
	/* From here on where the payload starts; find_payload goes on with it. */
	packet->payload = packet->tcp_at + tcp.doff * 4;
	return PARSED_OURS;
}

static __always_inline void find_payload(struct __sk_buff *skb, struct raft_packet *packet)
{
	__u32 at = packet->payload;
	__u32 payload = find_network(skb) + at;
	__u32 length = skb->len > payload ? skb->len - payload : 0;

	/* Short packets are padded on Ethernet, so the IP header has the last word. */
	if (packet->ip_ends) {
		__u32 said = packet->ip_ends > at ? packet->ip_ends - at : 0;

		if (said < length)
			length = said;
	}
	packet->payload = payload;
	packet->length = length;
}

static __always_inline enum parsed parse(struct __sk_buff *skb, __u16 raft_port,
					 struct raft_packet *packet)
{
	__be16 protocol = skb->protocol;
	enum parsed parsed;
	__u32 at = 0;
	int i;

	for (i = 0; i < VLAN_TAGS; i++) {
		struct vlan_tag tag;

		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		if (load_network(skb, at, &tag, sizeof(tag)))
			return PARSED_FOREIGN;
		protocol = tag.protocol;
		at += sizeof(tag);
	}
	if (protocol == bpf_htons(ETH_P_IP))
		parsed = parse_ip4(skb, at, packet);
	else if (protocol == bpf_htons(ETH_P_IPV6))
		parsed = parse_ip6(skb, at, packet);
	else
		return PARSED_FOREIGN;
	if (parsed != PARSED_OURS)
		return parsed;
	parsed = parse_tcp(skb, raft_port, packet);
	if (parsed == PARSED_OURS)
		find_payload(skb, packet);
	return parsed;
}

#endif /* RAFT_PARSE_H */
