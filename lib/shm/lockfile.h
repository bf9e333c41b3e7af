/* SPDX-License-Identifier: MIT */
/*
 * lockfile - DIR/ctl/lock: who is here, and which segment the cache uses.
 *
 * Its bytes are locks, its text is the record. Byte 0, the gate, is held only
 * while a process creates or joins. Byte 16 + number * 16384 + slot is held by
 * the process in that slot of that segment for as long as it lives; the
 * number keeps an idle peer of a retired segment out of the new one's way.
 *
 * OFD locks: they die with the last descriptor of the open file, so with the
 * process; closing some other descriptor of the file does not drop them; and
 * two of them conflict even inside one process. The descriptor is therefore
 * an open() of its own, O_CLOEXEC, never mapped, never duplicated, and closed
 * but never unlocked in a fork child.
 */
#ifndef SHM_LOCKFILE_H
#define SHM_LOCKFILE_H

#include <sys/types.h>

#include "shm/layout.h"

#define SEGMENT_UNASKED (UINT64_MAX - 1) /* an option nobody gave */

/* The text of the lock file. It outlives segments and keeps the options. */
struct lock_record {
	uint64_t number;
	unsigned char uuid[SHM_UUID_BYTES];
	char boot_id[40];
	struct shm_geometry wanted; /* as asked for, before any shortage */
	uint64_t settings[SETTING_COUNT]; /* SEGMENT_UNASKED: written before there was this one */
	char path[512]; /* of the segment */
};

/*
 * lockfile_open - open or (@create) make `lock` in @ctl_fd with @mode, shared
 * with @group if that has bits for it.
 * Returns the descriptor, -ENOENT, -ELOOP, -ENOLCK, -EPERM, -errno.
 */
int lockfile_open(int ctl_fd, mode_t mode, gid_t group, bool create);

/* lockfile_fork_count - differs in a fork child: there a noted number is another file's. */
unsigned lockfile_fork_count(void);

/* lockfile_close - and with it all its locks. Does nothing to a descriptor the fork closed. */
void lockfile_close(int fd);

/*
 * lockfile_enter_gate - wait for byte 0, at most @timeout_ns. 0, -ETIMEDOUT,
 * -ENOLCK, -ESTALE (the file has been removed meanwhile: open it again).
 */
int lockfile_enter_gate(int fd, int64_t timeout_ns);
void lockfile_leave_gate(int fd);

/* lockfile_take - try to lock a slot's byte. 0, -EAGAIN (somebody has it), -errno. */
int lockfile_take(int fd, uint64_t number, uint32_t slot);
void lockfile_drop(int fd, uint64_t number, uint32_t slot);

/* lockfile_is_held - by another open file? 1, 0 or -errno. Never for one's own byte. */
int lockfile_is_held(int fd, uint64_t number, uint32_t slot);

/* lockfile_segment_in_use - is any slot of segment @number held by others? 1, 0, -errno. */
int lockfile_segment_in_use(int fd, uint64_t number);

/* lockfile_any_in_use - is any slot of any segment held by others? 1, 0, -errno. */
int lockfile_any_in_use(int fd);

/* lockfile_others_in_use - any slot of a segment other than @number? 1, 0, -errno. */
int lockfile_others_in_use(int fd, uint64_t number);

/* lockfile_read_record - 0, -ENODATA (none yet, or not to be understood), -errno. */
int lockfile_read_record(int fd, struct lock_record *ret_record);

/* lockfile_write_record - under the gate only. 0 or -errno. */
int lockfile_write_record(int fd, const struct lock_record *record);

/* uuid_text - 32 hexadecimal digits and a NUL. */
#define UUID_TEXT_BYTES (2 * SHM_UUID_BYTES + 1)
void uuid_text(const unsigned char uuid[SHM_UUID_BYTES], char ret_text[UUID_TEXT_BYTES]);

#endif
