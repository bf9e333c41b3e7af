/* SPDX-License-Identifier: MIT */
#include "race.h"

#include <err.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PARTIES_MAX (READERS_MAX + 2)
#define CACHE_LINE 64
#define SLOW_PAUSE_US 1000

/* Who is who: the producer and the relay stand behind the readers. */
#define PRODUCER READERS_MAX
#define RELAY (READERS_MAX + 1)

/* What the processes of the race at hand share. */
struct board {
	double began[PARTIES_MAX], ended[PARTIES_MAX];
	_Atomic unsigned running; /* readers that count and are not at the end */
	_Atomic uint64_t seen;    /* keeps the looking from being optimized away */
};

static struct {
	struct gate *made, *start;
	struct board *board;
	unsigned me;
} track;

/* ------------------------------------------------------------ for the processes */

void race_made(void)
{
	gate_wait(track.made);
}

void race_start(void)
{
	gate_wait(track.start);
	track.board->began[track.me] = seconds();
}

static bool is_slow(const struct race *race, unsigned index)
{
	return index < race->readers && index >= race->readers - race->slow;
}

void race_end(const struct race *race)
{
	if (is_slow(race, track.me))
		return;
	track.board->ended[track.me] = seconds();
	if (track.me < race->readers)
		atomic_fetch_sub(&track.board->running, 1);
}

unsigned char *race_buffer(size_t bytes)
{
	unsigned char *buffer = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);

	expect(buffer != NULL, "aligned_alloc");
	memset(buffer, PAYLOAD, bytes);
	return buffer;
}

void race_fill(const struct race *race, void *data, size_t bytes)
{
	if (race->fills)
		memset(data, PAYLOAD, bytes);
}

static void look(const unsigned char *data, size_t bytes)
{
	uint64_t sum = 0, word;

	for (size_t i = 0; i + sizeof(word) <= bytes; i += CACHE_LINE) {
		memcpy(&word, data + i, sizeof(word));
		sum += word;
	}
	atomic_store_explicit(&track.board->seen, sum, memory_order_relaxed);
}

void race_take(const struct race *race, unsigned index, const void *data, size_t bytes,
	       size_t *done)
{
	const unsigned char *piece = data;

	if (piece[0] != PAYLOAD || piece[bytes - 1] != PAYLOAD)
		errx(1, "wrong bytes at %zu", *done);
	if (race->looks)
		look(piece, bytes);
	*done += bytes;
	/* Whoever is slow hurries when nobody is measured any more. */
	if (is_slow(race, index) && atomic_load(&track.board->running) > 0)
		usleep(SLOW_PAUSE_US);
}

void race_write_fd(const struct race *race, int fd)
{
	unsigned char *payload = race_buffer(race->write_bytes);

	race_start();
	for (size_t done = 0; done < race->total_bytes; done += race->write_bytes) {
		race_fill(race, payload, race->write_bytes);
		expect(write(fd, payload, race->write_bytes) == (ssize_t)race->write_bytes,
		       "write");
	}
}

void race_read_fd(const struct race *race, unsigned index, int fd)
{
	unsigned char *sink = race_buffer(READ_BYTES);
	size_t done = 0;
	ssize_t n;

	race_start();
	while ((n = read(fd, sink, READ_BYTES)) > 0)
		race_take(race, index, sink, (size_t)n, &done);
	race_end(race);
	expect(n == 0, "read");
	if (done != race->total_bytes)
		errx(1, "%zu bytes of %zu", done, race->total_bytes);
}

/* --------------------------------------------------------------------- the race */

struct party {
	const struct race *race;
	unsigned who;
};

static void take_part(const void *arg)
{
	const struct party *party = arg;

	/* One that fails ends the bench, and that the others, who wait for it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	track.me = party->who;
	if (party->who == PRODUCER)
		party->race->means->produce(party->race);
	else if (party->who == RELAY)
		party->race->means->relay(party->race);
	else
		party->race->means->consume(party->race, party->who);
}

static double time_of(const struct race *race)
{
	const struct board *board = track.board;
	double first = board->began[PRODUCER], last = 0;

	for (unsigned i = 0; i < race->readers; i++) {
		if (board->began[i] < first)
			first = board->began[i];
		if (board->ended[i] > last)
			last = board->ended[i];
	}
	if (race->readers == 0)
		last = board->ended[PRODUCER];
	return last - first;
}

/* In whatever order: one that fails must be seen before those who wait for it. */
static void reap_all(unsigned parties)
{
	int status;

	while (parties-- > 0) {
		expect(wait(&status) > 0, "wait");
		if (status != 0)
			errx(1, "a process of the race failed: status %#x", (unsigned)status);
	}
}

double race_run(const void *arg)
{
	const struct race *race = arg;
	const struct means *means = race->means;
	unsigned parties = race->readers + 1 + (means->relay != NULL), count;
	double took;

	track.made = gate_new(parties);
	track.start = gate_new(parties);
	track.board = shared_new(sizeof(*track.board));
	atomic_init(&track.board->running, race->readers - race->slow);
	if (means->prepare != NULL)
		means->prepare(race);
	spawn(take_part, &(struct party){ race, PRODUCER });
	if (means->relay != NULL)
		spawn(take_part, &(struct party){ race, RELAY });
	for (unsigned i = 0; i < race->readers; i++)
		spawn(take_part, &(struct party){ race, i });
	if (means->started != NULL)
		means->started(race);
	reap_all(parties);
	took = time_of(race);
	if (means->clean != NULL)
		means->clean(race);
	gate_free(track.made);
	gate_free(track.start);
	shared_free(track.board, sizeof(*track.board));
	count = race->readers - race->slow;
	return (double)race->total_bytes * (count > 0 ? count : 1) / took / (1 << 20);
}
