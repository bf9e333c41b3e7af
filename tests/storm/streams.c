/* SPDX-License-Identifier: MIT */
/*
 * streams - writers and readers of all tempers.
 */
#include "storm.h"

#include <errno.h>
#include <stdio.h>

#include "stream/stream.h"

/* One read. 1 = go on, 0 = nothing yet, -1 = the end. */
int take(struct reading *r, size_t bytes, int64_t timeout_ns)
{
	ssize_t done, again;

	if (one_in(6)) {
		done = read_by_fd(r, bytes, timeout_ns);
	} else if (one_in(4)) {
		done = read_in_place(r, bytes, timeout_ns);
	} else {
		done = CALL("read", r->key, scache_read(r->reader, got, bytes, timeout_ns));
	}
	if (done > (ssize_t)bytes)
		finding("%zd of %zu", done, bytes);
	if (done > 0) {
		check_bytes(r, got, (size_t)done);
		return 1;
	}
	if ((done == -EAGAIN && timeout_ns == 0) || (done == -ETIMEDOUT && timeout_ns > 0))
		return 0;
	check_end(r, (int)done);
	check_result(r, (int)done);
	again = CALL("read-again", r->key, scache_read(r->reader, got, bytes, timeout_ns));
	if (again != done)
		finding("%zd after %zd", again, done);
	return -1;
}

size_t some_bytes(void)
{
	static const size_t most[] = { 8, 100, 5000, 70000, BLOB_MAX };

	return 1 + below(most[below(5)]);
}

void leave(struct reading *r)
{
	if (r->reader->blob != NULL && r->reader->blob->packed != NULL)
		COUNT(frames);
	CALL("reader_close", r->key, scache_reader_close(r->reader));
	r->reader = NULL;
}

void read_somehow(struct reading *r)
{
	struct scache_entry_info info = { .size = sizeof(info) };
	struct scache_result result = { .size = sizeof(result) };
	unsigned how = (unsigned)below(8), calls = 0;
	int64_t until_ns = now_ns() + 3000 * MS;
	size_t piece = some_bytes();
	int ret = 1;

	if (piece < 1000 && !one_in(16))
		piece += 1000;
	ret = CALL("reader_info", r->key, scache_reader_info(r->reader, &info));
	if (ret != 0 && (ret != -ESTALE || !was_stopped(r)))
		finding("%d", ret);
	while (ret >= 0 && (how < 2 || now_ns() < until_ns) && (how != 4 || ++calls < 5)) {
		if (how == 5 && calls++ == 0) {
			ret = CALL("wait", r->key,
				   scache_wait(r->reader, (int64_t)below(50) * MS, &result));
			if (ret != 0 && ret != -EAGAIN && ret != -ETIMEDOUT && ret != -ESTALE)
				finding("%d", ret);
		}
		if (how == 2) { /* slowly */
			nap((int64_t)below(8) * MS);
			piece += 500;
		}
		ret = take(r, piece,
			   how == 3   ? 0
			   : how == 6 ? (int64_t)below(5) * MS
				      : SCACHE_FOREVER);
		if (ret == 0)
			nap(200000);
		if (ret >= 0 && one_in(6))
			look_elsewhere(r);
	}
	leave(r);
}

/*
 * Write all of blob[]. False if the writer gave up, or was given up. Whom all
 * hold up (@slowest) never waits for long: newcomers might hold it up for ever,
 * and our own reader, unread, everybody.
 */
static bool write_somehow(struct scache_writer *writer, struct reading *r, uint64_t bytes,
			  bool to_end, bool slowest)
{
	static const int64_t timeouts[] = { 0, 1 * MS, 30 * MS, SCACHE_FOREVER };
	int64_t timeout_ns = timeouts[below(r->reader != NULL && !slowest && !limited ? 4 : 3)];
	int64_t until_ns = now_ns() + 1500 * MS;
	bool lazy = one_in(4); /* reads its own only if it must */
	bool at_once = one_in(4);
	uint64_t at = scache_written(writer);

	if (r->reader != NULL && one_in(3)) {
		leave(r);
		if (!slowest && !limited)
			timeout_ns = SCACHE_FOREVER; /* somebody reads, or the pipe is broken */
	}
	while (at < bytes) {
		size_t piece = at_once ? BLOB_MAX : some_bytes();
		ssize_t done;

		piece = piece < bytes - at ? piece : (size_t)(bytes - at);
		done = one_in(20) ? CALL("writer_check", r->key, scache_writer_check(writer)) : 0;
		if (done == 0)
			done = put(writer, at, piece, timeout_ns);
		/* Whose file has failed goes at the pace of the slowest, or fails. */
		if (limited && timeout_ns < 0)
			timeout_ns = 30 * MS;
		if (limited && done < 0 && is_shortage((int)done))
			return false;
		if (done == -EPIPE && r->reader == NULL && !to_end)
			return COUNT(pipes), false;
		if (done == -EDEADLK && r->reader != NULL)
			COUNT(deadlocks);
		else if (done == 0 || done > (ssize_t)piece ||
			 (done < 0 && (done != -EAGAIN || timeout_ns != 0) &&
			  (done != -ETIMEDOUT || timeout_ns <= 0)))
			finding("%zd of %zu at %llu (%s)", done, piece, (unsigned long long)at,
				done < 0 ? scache_strerror((int)done) : "");
		at += done > 0 ? (uint64_t)done : 0;
		if (scache_written(writer) != at)
			finding("written %llu, not %llu",
				(unsigned long long)scache_written(writer), (unsigned long long)at);
		if (r->reader != NULL && (done < 0 || !lazy) && take(r, some_bytes(), 0) < 0) {
			if (!may_have_lost(r))
				finding("our own reader sees an end at %llu of %llu",
					(unsigned long long)r->position, (unsigned long long)at);
			leave(r);
		}
		if (r->reader != NULL && one_in(20))
			look_elsewhere(r);
		if (done < 0 && r->reader == NULL)
			nap(MS / 2);
		if (done < 0 && now_ns() > until_ns)
			return false;
		if (one_in(200)) /* stalls */
			nap((int64_t)below(200) * MS);
		if (r->reader != NULL && timeout_ns < 0 && one_in(100))
			leave(r);
	}
	return true;
}

static void finish(struct scache_writer *writer, struct reading *r, struct production *p,
		   bool to_end)
{
	int ret;

	ret = CALL("finish", r->key, scache_finish(writer));
	if (ret == 0 || ret == SCACHE_NOT_KEPT) {
		p->finished_ns = now_ns();
		p->stage = ret == 0 ? FINISHED : NOT_KEPT;
		COUNT(finishes);
		if (ret != 0)
			COUNT(unkept);
	} else if ((ret != -EPIPE || r->reader != NULL || to_end) && !limited) {
		finding("%d (%s)", ret, scache_strerror(ret));
	} else {
		p->stage = GAVE_UP;
	}
}

void produce(struct scache_writer *writer, struct reading *r, uint64_t max_age_ns)
{
	/* Of the entry: who goes on with it may have asked for something else. */
	bool to_end = writer->run_to_end, slowest = writer->pace_slowest || writer->ring_only;
	struct header h = { .key = r->key, .ending = one_in(4) ? below(4) : FINISH };
	struct production *p;
	char message[600];
	int length, ret;

	h.bytes = sizeof(h) + below(one_in(2) ? 2000 : BLOB_MAX - sizeof(h));
	h.code = 1 + below(200);
	p = begin(writer, &h, max_age_ns);
	fill(&h, 0, blob, h.bytes);
	if (!write_somehow(writer, r, r->key == 0 ? 0 : h.bytes, to_end, slowest)) {
		p->stage = GAVE_UP;
	} else {
		p->stage = ENDING;
		if (h.ending == FINISH)
			finish(writer, r, p, to_end);
		length = snprintf(message, sizeof(message), "key %u %u %0*d", r->key, h.code,
				  (int)below(2) * 500 + 1, 0);
		ret = 0;
		if (h.ending == ABORT_ERRNO || h.ending == ABORT_CODE)
			ret = CALL("abort", r->key,
				   scache_abort(writer,
						h.ending == ABORT_CODE ? (int)h.code : -EDOM,
						message, (size_t)length));
		if (ret != 0 && !limited)
			finding("%d", ret);
	}
	CALL("writer_close", r->key, scache_writer_close(writer));
	while (r->reader != NULL && take(r, some_bytes() + 5000, SCACHE_FOREVER) >= 0)
		continue;
	if (r->reader != NULL)
		leave(r);
}
