/* Journal segments: append, replay, empty. Their bytes are record.h's. */
#include "store/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "store/record.h"

/* While nothing is queued, a segment this large is emptied. */
#define IDLE_BYTES ((uint64_t)1 << 20)

enum vk_status vk_journal_open(struct vk_journal *j, const char *dir, enum vk_cpu_level cpu,
			       struct vk_error *err)
{
	*j = (struct vk_journal){.seg = {{.fd = -1}, {.fd = -1}}, .next_seq = 1, .cpu = cpu};
	for (int i = 0; i < 2; i++) {
		char path[4200];
		snprintf(path, sizeof path, "%s/journal.%d", dir, i);
		j->seg[i].fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		struct stat st;
		if (j->seg[i].fd < 0 || fstat(j->seg[i].fd, &st) != 0) {
			enum vk_status e = vk_fail(err, VK_E_IO, "%s: %s", path, strerror(errno));
			vk_journal_close(j);
			return e;
		}
		j->seg[i].size = (uint64_t)st.st_size;
	}
	return VK_OK;
}

void vk_journal_close(struct vk_journal *j)
{
	for (int i = 0; i < 2; i++) {
		if (j->seg[i].fd >= 0) close(j->seg[i].fd);
		j->seg[i].fd = -1;
	}
}

struct view { /* a segment mapped for replay */
	const uint8_t *p;
	size_t n;
	struct vk_segment_head head;
	bool valid;
};

static enum vk_status map_segment(struct view *v, const struct vk_journal_segment *s,
				  enum vk_cpu_level cpu)
{
	*v = (struct view){0};
	if (s->size < VK_SEGMENT_HEAD_SIZE) return VK_OK;
	void *p = mmap(NULL, s->size, PROT_READ, MAP_SHARED, s->fd, 0);
	if (p == MAP_FAILED) return VK_E_IO;
	v->p = p;
	v->n = s->size;
	v->valid = vk_segment_head_decode(&v->head, p, s->size, cpu);
	return VK_OK;
}

static enum vk_status replay_segment(struct vk_journal *j, int i, const struct view *v,
				     uint64_t after_seq, vk_journal_fn *fn, void *arg)
{
	struct vk_journal_segment *s = &j->seg[i];
	size_t at = VK_SEGMENT_HEAD_SIZE;
	uint64_t seq = v->head.first_seq;
	enum vk_status st = VK_OK;
	for (; !st; seq++) {
		size_t n = vk_entry_check(v->p + at, v->n - at, v->head.salt, seq, j->cpu);
		if (n == 0) break;
		s->last_seq = seq;
		if (seq >= j->next_seq) j->next_seq = seq + 1;
		if (seq > after_seq) st = fn(arg, v->p + at, n, seq);
		at += n;
	}
	return st;
}

enum vk_status vk_journal_replay(struct vk_journal *j, uint64_t after_seq, vk_journal_fn *fn,
				 void *arg)
{
	struct view v[2];
	enum vk_status st = VK_OK;
	memset(v, 0, sizeof v);
	if (after_seq >= j->next_seq) j->next_seq = after_seq + 1;
	for (int i = 0; i < 2 && !st; i++) st = map_segment(&v[i], &j->seg[i], j->cpu);
	int first = v[0].valid && v[1].valid && v[1].head.first_seq < v[0].head.first_seq;
	for (int i = 0; i < 2 && !st; i++) {
		int at = i ^ first;
		if (v[at].valid) st = replay_segment(j, at, &v[at], after_seq, fn, arg);
	}
	for (int i = 0; i < 2; i++)
		if (v[i].p) munmap((void *)v[i].p, v[i].n);
	return st;
}

static enum vk_status write_at(int fd, struct iovec *iov, int count, uint64_t at, size_t n)
{
	ssize_t done = pwritev(fd, iov, count, (off_t)at);
	if (done == (ssize_t)n) return VK_OK;
	if (done >= 0) return VK_E_NO_SPACE; /* short: the file system or a limit is full */
	return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? VK_E_NO_SPACE : VK_E_IO;
}

enum vk_status vk_journal_append(struct vk_journal *j, uint8_t *entry, size_t n,
				 uint32_t payload_crc, uint64_t *seq)
{
	struct vk_journal_segment *s = &j->seg[j->active];
	if (s->size > VK_JOURNAL_SEGMENT_BYTES && j->seg[!j->active].size == 0) {
		j->active = !j->active;
		s = &j->seg[j->active];
	}
	uint8_t head[VK_SEGMENT_HEAD_SIZE];
	size_t head_n = s->size ? 0 : sizeof head;
	if (head_n) {
		struct vk_segment_head h = {.first_seq = j->next_seq};
		vk_random(&h.salt, sizeof h.salt);
		vk_segment_head_encode(head, &h, j->cpu);
		s->salt = h.salt;
	}
	vk_entry_seal(entry, n, payload_crc, s->salt, j->next_seq, j->cpu);
	struct iovec iov[2] = {{head, head_n}, {entry, n}};
	enum vk_status st = write_at(s->fd, iov, 2, s->size, head_n + n);
	if (st) return st;
	s->size += head_n + n;
	s->last_seq = j->next_seq;
	*seq = j->next_seq++;
	return VK_OK;
}

int vk_journal_settle_begin(struct vk_journal *j, uint64_t done_seq, bool all)
{
	struct vk_journal_segment *active = &j->seg[j->active], *other = &j->seg[!j->active];
	if (other->size) return other->last_seq <= done_seq ? !j->active : -1;
	if (active->size == 0 || active->last_seq > done_seq) return -1;
	if (!all && active->size < IDLE_BYTES) return -1;
	j->active = !j->active;
	return !j->active;
}

bool vk_journal_settle_empty(struct vk_journal *j, int segment)
{
	if (ftruncate(j->seg[segment].fd, 0) == 0) return true;
	vk_log(VK_LOG_ERROR, "journal.%d cannot be emptied: %s", segment, strerror(errno));
	return false;
}

void vk_journal_settle_end(struct vk_journal *j, int segment) { j->seg[segment].size = 0; }
