/* SPDX-License-Identifier: MIT */
/*
 * check_damage_storm - finished blobs of any size, written, damaged and read in any way:
 * what is given out is right, and if the file is not as it was, it is found out.
 *
 * A round is told by its seed alone: STREAMCACHE_TEST_SEED=n runs that round only.
 */
#include <check.h>

#include "../util/damage.h"
#include "../util/producer.h"

#define ROUNDS 300
#define LONG_ROUNDS 10000

static uint64_t draw(unsigned *random, uint64_t n)
{
	return ((uint64_t)rand_r(random) << 20 ^ (uint64_t)rand_r(random)) % n;
}

/* Where a payload is damaged; without one, or if it is to be @spared, its footer. */
static uint64_t draw_place(unsigned *random, const struct file *file, uint64_t bytes, bool spared)
{
	if (bytes > 0 && !spared)
		return draw(random, bytes);
	return bytes + draw(random, file->bytes - bytes);
}

static void change(unsigned *random, const struct file *file, uint64_t at)
{
	struct stat st;

	must(stat(file->path, &st) == 0);
	if (draw(random, 4) == 0)
		copy_within(file, draw(random, file->bytes), at, 1 + draw(random, 5000));
	else if (at < (uint64_t)st.st_size)
		flip(file, at, (unsigned)draw(random, 8));
}

static void change_size(unsigned *random, const struct file *file, uint64_t bytes)
{
	switch (draw(random, 3)) {
	case 0:
		cut(file, draw(random, file->bytes + 10000));
		break;
	case 1:
		cut(file, draw_place(random, file, bytes, true));
		break;
	default:
		copy_within(file, draw(random, file->bytes), file->bytes, 1 + draw(random, 300));
	}
}

/* Half of all is done to the payload alone, or nearly: what is opened looks well. */
static void damage(unsigned *random, const struct file *file, uint64_t bytes)
{
	uint64_t count = draw(random, 4), kind = draw(random, 4);

	while (count-- > 0) {
		if (kind == 0 && count == 0)
			change_size(random, file, bytes);
		else
			change(random, file, draw_place(random, file, bytes, kind == 1));
	}
}

static unsigned char *contents(const struct file *file, size_t *ret_bytes)
{
	unsigned char *data = malloc(2 * MIB);
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);
	ssize_t done;

	must(fd >= 0 && data != NULL);
	done = read(fd, data, 2 * MIB);
	must(done >= 0 && done < (ssize_t)(2 * MIB));
	close(fd);
	*ret_bytes = (size_t)done;
	return data;
}

static struct {
	unsigned whole, at_open, later;
} tally;

static void one_round(unsigned seed)
{
	unsigned random = seed;
	uint64_t bytes = draw(&random, 3) ? sizes[draw(&random, ARRAY_COUNT(sizes))] :
					    draw(&random, MIB + 100000);
	struct file file = produce(seed, bytes, 500 + draw(&random, 300000));
	way_fn *way = ways[draw(&random, WAYS)];
	size_t piece = 500 + draw(&random, draw(&random, 2) ? 3000 : 600000), was_bytes, is_bytes;
	unsigned char *was = contents(&file, &was_bytes), *is;

	damage(&random, &file, bytes);
	is = contents(&file, &is_bytes);
	if (was_bytes == is_bytes && memcmp(was, is, is_bytes) == 0) {
		is_whole(seed, bytes, way, piece);
		tally.whole++;
	} else if (is_found_out(seed, bytes, way, piece) == 0) {
		tally.at_open++; /* or in the first block */
	} else {
		tally.later++;
	}
	free(was);
	free(is);
}

/* The board says how far it has come. */
static void run_rounds(void *arg)
{
	const unsigned *range = arg;

	open_both();
	for (unsigned seed = range[0]; seed < range[1]; seed++) {
		board->done = (int)seed;
		one_round(seed);
	}
	close_both();
	printf("whole %u, found when opened or first read %u, later %u\n", tally.whole,
	       tally.at_open, tally.later);
	fflush(stdout);
}

START_TEST(random_damage_is_never_shown)
{
	const char *only = getenv("STREAMCACHE_TEST_SEED");
	unsigned first = only != NULL ? (unsigned)atoi(only) : 1;
	unsigned rounds = only != NULL ? 1 : scratch_is_long() ? LONG_ROUNDS : ROUNDS;
	unsigned range[2] = { first, first + rounds };
	struct child child;
	int status;

	board_make();
	child_start(&child, run_rounds, range);
	status = child_end(&child);
	printf("seeds %u to %u, the last %d\n", first, first + rounds - 1, board->done);
	fflush(stdout);
	must_be(status, 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		random_damage_is_never_shown,
	};

	return SCRATCH_RUN("damage_storm", tests);
}
