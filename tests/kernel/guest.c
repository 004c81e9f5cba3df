// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The first and only process of a virtual machine: loads the program with
 * libbpf, runs it on the packets of /cases, sends the frames of /stream over
 * TCP on lo, prints what the maps hold, and switches the machine off.
 *
 * One line each: "verdict DIRECTION VALUE COUNT"; "map NAME KEY OFFSET:WORD …"
 * in hexadecimal, words of 0 left out; "load_ms N"; "failed WHAT"; and "done"
 * at the very end.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../bpf/raft_maps.h"

#define PORT	    5555
#define LO	    1
#define MAX_VERDICT 16

/* A packet of /cases; the bytes follow. */
struct case_header {
	__u32 direction;
	__u32 length;
};

static const char *const programs[] = {"raft_ingress", "raft_egress"};

static void end(void)
{
	printf("done\n");
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void fail(const char *what, int error)
{
	printf("failed %s: %s\n", what, strerror(error));
	end();
}

static int print_warning(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return level == LIBBPF_WARN ? vprintf(format, arguments) : 0;
}

static char *read_file(const char *path, size_t *size)
{
	struct stat status;
	char *data;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &status) < 0)
		fail(path, errno);
	data = malloc(status.st_size);
	if (!data || read(fd, data, status.st_size) != status.st_size)
		fail(path, errno);
	close(fd);
	*size = status.st_size;
	return data;
}

static void insert_module(const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return; /* built into this kernel */
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		fail(path, errno);
	close(fd);
}

static struct bpf_object *load(void)
{
	struct raft_config config = {.raft_port = PORT};
	struct bpf_object *object = bpf_object__open("/raft_tc.bpf.o");
	struct timespec before, after;
	struct bpf_program *program;
	struct bpf_map *map;
	int error;

	if (!object)
		fail("open the object", errno);
	bpf_object__for_each_program(program, object)
	{
		bpf_program__set_type(program, BPF_PROG_TYPE_SCHED_CLS);
		bpf_program__set_expected_attach_type(program, 0);
	}
	map = bpf_object__find_map_by_name(object, ".rodata");
	if (!map || bpf_map__set_initial_value(map, &config, sizeof(config)))
		fail("set the port", errno);
	clock_gettime(CLOCK_MONOTONIC, &before);
	error = bpf_object__load(object);
	if (error)
		fail("load the object", -error);
	clock_gettime(CLOCK_MONOTONIC, &after);
	printf("load_ms %ld\n",
	       (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000);
	return object;
}

static int program_fd(struct bpf_object *object, int direction)
{
	return bpf_program__fd(bpf_object__find_program_by_name(object, programs[direction & 1]));
}

static void run_cases(struct bpf_object *object)
{
	unsigned int counts[2][MAX_VERDICT] = {};
	size_t size, at = 0;
	char *cases = read_file("/cases", &size);
	int i, verdict, error;

	while (at < size) {
		struct case_header header;

		memcpy(&header, cases + at, sizeof(header));
		at += sizeof(header);
		LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = cases + at,
			    .data_size_in = header.length);
		error = bpf_prog_test_run_opts(program_fd(object, header.direction), &options);
		if (error)
			fail("run the program", -error);
		verdict = (int)options.retval + 1; /* TC_ACT_UNSPEC is -1 */
		if (verdict < 0 || verdict >= MAX_VERDICT)
			verdict = MAX_VERDICT - 1;
		counts[header.direction & 1][verdict]++;
		at += header.length;
	}
	free(cases);
	for (i = 0; i < 2; i++)
		for (verdict = 0; verdict < MAX_VERDICT; verdict++)
			if (counts[i][verdict])
				printf("verdict %d %d %u\n", i, verdict - 1, counts[i][verdict]);
}

/* A serial line takes its time, and most of a flow is zeros. */
static void print_entry(const char *name, const unsigned char *key, size_t key_size,
			const unsigned char *value, size_t size)
{
	__u64 word;
	size_t i;

	printf("map %s ", name);
	for (i = 0; i < key_size; i++)
		printf("%02x", key[i]);
	for (i = 0; i < size; i += sizeof(word)) {
		memcpy(&word, value + i, sizeof(word));
		if (word)
			printf(" %zx:%llx", i, (unsigned long long)word);
	}
	putchar('\n');
}

static void dump(struct bpf_object *object, const char *name)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object, name);
	int fd = bpf_map__fd(map), cpus = libbpf_num_possible_cpus();
	unsigned char key[sizeof(struct raft_flow_key)];
	size_t key_size = bpf_map__key_size(map), size = bpf_map__value_size(map);
	void *previous = NULL;
	unsigned char *value;

	if (bpf_map__type(map) == BPF_MAP_TYPE_PERCPU_ARRAY)
		size *= cpus;
	value = malloc(size);
	while (!bpf_map_get_next_key(fd, previous, key)) {
		if (bpf_map_lookup_elem(fd, key, value))
			fail(name, errno);
		print_entry(name, key, key_size, value, size);
		previous = key;
	}
	free(value);
}

static void attach_to_lo(struct bpf_object *object)
{
	static const enum bpf_tc_attach_point points[] = {BPF_TC_INGRESS, BPF_TC_EGRESS};
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	int i, error;

	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		fail("set lo up", errno);
	close(fd);
	for (i = 0; i < 2; i++) {
		LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = LO, .attach_point = points[i]);
		LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = program_fd(object, i));

		bpf_tc_hook_create(&hook); /* there already the second time */
		error = bpf_tc_attach(&hook, &options);
		if (error)
			fail("attach to lo", -error);
	}
}

/* In pieces of all sizes, so that headers are cut and packets are large. */
static void send_stream(int fd, const char *data, size_t size)
{
	size_t at = 0, piece = 1;

	while (at < size) {
		size_t now = piece < size - at ? piece : size - at;
		ssize_t sent = send(fd, data + at, now, 0);

		if (sent < 0)
			fail("send", errno);
		at += sent;
		piece = piece * 7 % 262139;
	}
	close(fd);
}

static void carry_stream(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons(PORT),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd, received;
	size_t size, total = 0;
	char *data = read_file("/stream", &size);
	static char buffer[1 << 20];
	pid_t child;

	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 1))
		fail("listen", errno);
	child = fork();
	if (!child) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
			fail("connect", errno);
		send_stream(fd, data, size);
		_exit(0);
	}
	fd = accept(listener, NULL, NULL);
	while ((received = read(fd, buffer, sizeof(buffer))) > 0)
		total += received;
	waitpid(child, NULL, 0);
	if (total != size)
		fail("receive", EIO);
	free(data);
}

int main(void)
{
	struct bpf_object *object;

	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	insert_module("/sch_ingress.ko");
	insert_module("/cls_bpf.ko");
	libbpf_set_print(print_warning);

	object = load();
	run_cases(object);
	dump(object, "flows");
	dump(object, "stats");
	bpf_object__close(object);

	object = load();
	libbpf_set_print(NULL); /* it would complain that the qdisc is there already */
	attach_to_lo(object);
	carry_stream();
	dump(object, "flows");
	dump(object, "stats");
	end();
	return 0;
}
