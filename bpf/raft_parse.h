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

/* Byte and bits of RFC 9293 §3.1. */
#define TCP_FLAGS_AT 13
enum tcp_flag {
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_ACK = 16,
};

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

static __always_inline void take_ip4(struct raft_packet *packet, __be32 source, __be32 target)
{
	struct raft_flow_key *key = &packet->key;
	int in = packet->direction == RAFT_INGRESS;

	/* ::ffff:a.b.c.d (RFC 4291 §2.5.5.2) */
	key->local[0] = 0;
	key->local[1] = 0;
	key->local[2] = bpf_htonl(0xffff);
	key->local[3] = in ? target : source;
	key->remote[0] = 0;
	key->remote[1] = 0;
	key->remote[2] = bpf_htonl(0xffff);
	key->remote[3] = in ? source : target;
}

static __always_inline void take_ip6(struct raft_packet *packet, const struct ipv6hdr *ip)
{
	const __be32 *source = ip->saddr.in6_u.u6_addr32, *target = ip->daddr.in6_u.u6_addr32;
	struct raft_flow_key *key = &packet->key;
	int in = packet->direction == RAFT_INGRESS;
	int i;

	for (i = 0; i < 4; i++) {
		__be32 from = source[i], to = target[i];

		asm volatile("" : "+r"(from), "+r"(to));
		key->local[i] = in ? to : from;
		key->remote[i] = in ? from : to;
	}
}

static __always_inline enum parsed parse_ip4(struct __sk_buff *skb, __u32 at,
					     struct raft_packet *packet)
{
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
	take_ip4(packet, ip.saddr, ip.daddr);
	return PARSED_OURS;
}

static __always_inline enum parsed parse_ip6(struct __sk_buff *skb, __u32 at,
					     struct raft_packet *packet)
{
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
	take_ip6(packet, &ip);
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

/* What nearly every packet looks like: nothing optional, all headers in the linear part. */
#define PLAIN_TCP (ETH_HLEN + sizeof(struct iphdr))

/* Its IPv4 header; NULL when the packet is not like that, and `parse` has to look. */
static __always_inline const struct iphdr *plain_headers(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	const struct ethhdr *ethernet = data;
	const struct iphdr *ip = data + ETH_HLEN;

	if (data + PLAIN_TCP + sizeof(struct tcphdr) > (void *)(long)skb->data_end)
		return NULL;
	if (skb->protocol != bpf_htons(ETH_P_IP) || ethernet->h_proto != bpf_htons(ETH_P_IP))
		return NULL;
	/* Without a link header the first byte would be 0x45, and chance could do the rest. */
	if (ethernet->h_dest[0] >> 4 == 4 || ip->version != 4 || ip->ihl != 5)
		return NULL;
	if (ip->frag_off & bpf_htons(IP4_FRAGMENT_PART | IP4_MORE_FRAGMENTS))
		return NULL;
	return ip;
}

static __always_inline const struct tcphdr *plain_tcp(const struct iphdr *ip)
{
	return (const void *)(ip + 1);
}

static __always_inline void take_tcp(struct raft_packet *packet, const struct tcphdr *tcp)
{
	__u16 source = bpf_ntohs(tcp->source), target = bpf_ntohs(tcp->dest);

	packet->key.local_port = packet->direction == RAFT_INGRESS ? target : source;
	packet->key.remote_port = packet->direction == RAFT_INGRESS ? source : target;
	packet->flags = ((const __u8 *)tcp)[TCP_FLAGS_AT];
	packet->seq = bpf_ntohl(tcp->seq) + !!(packet->flags & TCP_SYN);
}

/* `payload` is where the TCP header says that it starts, `ends` where the IP header says it ends. */
static __always_inline void take_payload(struct __sk_buff *skb, struct raft_packet *packet,
					 __u32 payload, __u32 ends)
{
	/* Short packets are padded on Ethernet; of those that are cut off there is less. */
	if (ends > skb->len)
		ends = skb->len;
	packet->payload = payload;
	packet->length = ends > payload ? ends - payload : 0;
}

/* TCP of the agent's port: ours when the packet belongs to it. */
static __always_inline enum parsed parse_tcp(struct __sk_buff *skb, __u16 raft_port,
					     struct raft_packet *packet)
{
	struct tcphdr tcp = {};
	__u32 network;

	/* When it is cut off the ports may still be there; the length field is 0 then. */
	if (load_network(skb, packet->tcp_at, &tcp, sizeof(tcp)) &&
	    load_network(skb, packet->tcp_at, &tcp, offsetof(struct tcphdr, seq)))
		return PARSED_FOREIGN;
	if (!is_our_port(packet->direction, raft_port, tcp.source, tcp.dest))
		return PARSED_FOREIGN;
	if (tcp.doff < 5)
		return PARSED_UNREADABLE;
	take_tcp(packet, &tcp);
	network = find_network(skb);
	take_payload(skb, packet, network + packet->tcp_at + tcp.doff * 4,
		     packet->ip_ends ? network + packet->ip_ends : skb->len);
	return PARSED_OURS;
}

static __always_inline enum parsed parse_plain(struct __sk_buff *skb, const struct iphdr *ip,
					       struct raft_packet *packet)
{
	const struct tcphdr *tcp = plain_tcp(ip);

	if (tcp->doff < 5)
		return PARSED_UNREADABLE;
	take_ip4(packet, ip->saddr, ip->daddr);
	packet->fragment = 0;
	take_tcp(packet, tcp);
	take_payload(skb, packet, PLAIN_TCP + tcp->doff * 4,
		     ip->tot_len ? ETH_HLEN + bpf_ntohs(ip->tot_len) : skb->len);
	return PARSED_OURS;
}

static __always_inline enum parsed parse(struct __sk_buff *skb, __u16 raft_port,
					 struct raft_packet *packet)
{
	const struct iphdr *plain = plain_headers(skb);
	__be16 protocol = skb->protocol;
	enum parsed parsed;
	__u32 at = 0;
	int i;

	/* Its ports were looked at before. */
	if (plain && plain->protocol == IPPROTO_TCP)
		return parse_plain(skb, plain, packet);
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
	return parsed == PARSED_OURS ? parse_tcp(skb, raft_port, packet) : parsed;
}

#endif /* RAFT_PARSE_H */
