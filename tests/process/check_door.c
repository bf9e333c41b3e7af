/* SPDX-License-Identifier: MIT */
/*
 * check_door - what is not stored closes its door before its first byte goes;
 * who slips in at the last moment is waited for. The moment is a step.
 */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "../util/calls.h"
#include "base/step.h"

#define RING_BYTES SCRATCH_RING_BYTES

static struct scache *other;		    /* the cache, as a second caller has it */
static struct scache_reader *late;	    /* who slips in */
static const char *moment = "ring-full";	    /* and when */

static void slip_in(const char *label)
{
	if (late == NULL && strcmp(label, moment) == 0)
		late = scratch_find(other, "k");
}

START_TEST(who_slips_in_while_the_door_is_closed_has_every_byte)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer;
	uint64_t position = 0, late_position = 0;
	unsigned char data[1000];

	other = scratch_open();
	writer = create_as(cache, SCACHE_PASS_THROUGH, SCACHE_UNLIMITED, &reader);
	put(writer, 0, RING_BYTES);
	must_be(pattern_read(reader, 1, &position, RING_BYTES, 10000), 1);
	must_be(position, RING_BYTES);
	/* The first byte may go now, as far as anybody knows. */
	step_set_hook(slip_in);
	pattern_fill(1, RING_BYTES, data, sizeof(data));
	must_be(scache_write(writer, data, sizeof(data), 0), -EAGAIN);
	step_set_hook(NULL);
	must(late != NULL);
	must(scratch_misses(cache, "k"));
	must_be(pread_at(late, 0, 1000, 0), 1000);
	must_be(pattern_read(late, 1, &late_position, RING_BYTES, 10000), 1);
	must_be(scache_write(writer, data, sizeof(data), 0), sizeof(data));
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	must_be(pattern_read(late, 1, &late_position, UINT64_MAX, 10000), 0);
	must_be(late_position, RING_BYTES + sizeof(data));
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 10000), 0);
	scache_writer_close(writer);
	scache_reader_close(late);
	scratch_close(other);
	end_with(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		who_slips_in_while_the_door_is_closed_has_every_byte,
	};

	return SCRATCH_RUN("door", tests);
}
