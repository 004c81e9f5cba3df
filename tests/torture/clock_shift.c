// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * Preloaded into an agent: its clock on the wall is set, and all its clocks
 * run a little faster or slower than the machine's.
 *
 * RAFT_TORTURE_CLOCK names a file with three 64-bit numbers: what is added to
 * CLOCK_REALTIME in nanoseconds, which may change at any time; by how many
 * parts per million the clocks run too fast; and the CLOCK_BOOTTIME from which
 * on they do. Time-outs inside the kernel go by the true clock.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000LL
#define MILLION	  1000000LL

struct shift {
	volatile int64_t wall_ns;
	int64_t rate_ppm;
	int64_t origin_ns;
};

static const struct shift *shift;

__attribute__((constructor)) static void find_shift(void)
{
	const char *path = getenv("RAFT_TORTURE_CLOCK");
	void *mapped;
	int fd;

	if (!path)
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	mapped = mmap(NULL, sizeof(*shift), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (mapped != MAP_FAILED)
		shift = mapped;
}

static int64_t drift_ns(void)
{
	struct timespec boot;

	if (!shift->rate_ppm)
		return 0;
	syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &boot);
	/* A few hours of nanoseconds times a few hundred stay far below 2^63. */
	return (boot.tv_sec * SECOND_NS + boot.tv_nsec - shift->origin_ns) * shift->rate_ppm /
	       MILLION;
}

static void add(struct timespec *time, int64_t ns)
{
	ns += time->tv_nsec;
	time->tv_sec += ns / SECOND_NS;
	time->tv_nsec = ns % SECOND_NS;
	if (time->tv_nsec < 0) {
		time->tv_nsec += SECOND_NS;
		time->tv_sec--;
	}
}

int clock_gettime(clockid_t id, struct timespec *time)
{
	int result = syscall(SYS_clock_gettime, id, time);

	if (result || !shift)
		return result;
	switch (id) {
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_COARSE:
		add(time, shift->wall_ns + drift_ns());
		break;
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_RAW:
	case CLOCK_MONOTONIC_COARSE:
	case CLOCK_BOOTTIME:
		add(time, drift_ns());
		break;
	default:
		break;
	}
	return 0;
}
