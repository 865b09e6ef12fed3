/*
 * The cache's journal: what put() has promised and the writer thread has not yet made durable.
 *
 * Two segment files take turns. Entries go to the active one (one write(2) each, no fsync: kill -9
 * cannot take what the kernel has). A segment is emptied only when every entry in it is durable in
 * LMDB or given up; the active one is never emptied in place, the roles are swapped first, so that
 * the slow part (ftruncate of many megabytes) happens outside of the caller's lock.
 *
 * A failed write leaves the size as it was: the next entry overwrites the torn one. Each segment
 * has a random salt in every entry's CRC, so bytes of an older life never check.
 *
 * Threads: none of this locks. append, settle_begin and settle_end want the owner's lock held;
 * settle_empty runs without it (one thread at a time).
 */
#ifndef VK_STORE_JOURNAL_H
#define VK_STORE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "simd/cpu.h"

/* A segment is swapped out past this size, when the other is empty. */
#define VK_JOURNAL_SEGMENT_BYTES ((uint64_t)16 << 20)

struct vk_journal_segment {
	int fd;
	uint64_t size, salt, last_seq;
};

struct vk_journal {
	struct vk_journal_segment seg[2];
	int active;
	uint64_t next_seq;
	enum vk_cpu_level cpu;
};

/* Opens (makes) dir/journal.0 and dir/journal.1. */
enum vk_status vk_journal_open(struct vk_journal *j, const char *dir, enum vk_cpu_level cpu,
			       struct vk_error *err);
void vk_journal_close(struct vk_journal *j);

/* Calls fn for each entry past after_seq, in order; what it returns stops the walk unless VK_OK.
 * Entries that do not check end their segment. Afterwards next_seq is past all that was seen. */
typedef enum vk_status vk_journal_fn(void *arg, const uint8_t *entry, size_t n, uint64_t seq);
enum vk_status vk_journal_replay(struct vk_journal *j, uint64_t after_seq, vk_journal_fn *fn,
				 void *arg);

/* Seals the entry with the next seq and writes it. VK_E_NO_SPACE, VK_E_IO: nothing was appended. */
enum vk_status vk_journal_append(struct vk_journal *j, uint8_t *entry, size_t n,
				 uint32_t payload_crc, uint64_t *seq);

/* Which segment can be emptied now that all up to done_seq is decided, or -1. With `all` the
 * active one is swapped out however small it is. Then settle_empty, then settle_end. */
int vk_journal_settle_begin(struct vk_journal *j, uint64_t done_seq, bool all);
bool vk_journal_settle_empty(struct vk_journal *j, int segment);
void vk_journal_settle_end(struct vk_journal *j, int segment);

static inline uint64_t vk_journal_bytes(const struct vk_journal *j)
{
	return j->seg[0].size + j->seg[1].size;
}

#endif
