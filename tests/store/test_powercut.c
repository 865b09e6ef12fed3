/*
 * Goal: a row whose `committed` was called survives a power cut, and what a power cut leaves opens
 * without repair and holds nothing corrupt.
 * Method: this program replaces the calls by which LMDB and the journal write (the linker takes
 * ours) and keeps, for each file, what has been synced and every write since. At random writes it
 * takes a legal image of the disk: the synced bytes and any subset of the unsynced 4 KiB pages, one
 * of them torn at 512 bytes. Each image is opened and compared with what was promised at that
 * moment. Control: judged by what put() had returned, some images must lose rows, else nothing was
 * dropped. VK_POWERCUT_IMAGES sets how many images.
 */
#include "tests/store/util.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define FILES 3
#define FILE_MAX ((size_t)4 << 20)
#define ROWS 1200
#define IMAGES_MAX 2000
#define PAGE 4096

static const char *const names[FILES] = {"data.mdb", "journal.0", "journal.1"};

struct pending { /* one write (or cut, n = 0) since the last sync */
	size_t at, n;
	uint8_t *p;
};

struct disk {
	uint64_t ino;
	uint8_t *synced;
	size_t size;
	struct pending *pending;
	size_t count, cap;
};

static struct {
	pthread_mutex_t lock;
	struct disk disk[FILES];
	bool on;
	uint64_t rng;
	char dir[300];
	int images, images_max;
	uint64_t acked[IMAGES_MAX], put[IMAGES_MAX];
} rec = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Atomic uint64_t acked, returned;

static struct disk *disk_of(int fd)
{
	struct stat st;
	if (!rec.on || fstat(fd, &st) != 0) return NULL;
	for (int i = 0; i < FILES; i++)
		if (rec.disk[i].ino == st.st_ino) return &rec.disk[i];
	return NULL;
}

static void apply(uint8_t *bytes, size_t *size, const struct pending *w, size_t from, size_t to)
{
	if (w->n == 0) {
		*size = w->at;
		return;
	}
	if (w->at + to > FILE_MAX) abort();
	if (w->at + from > *size) memset(bytes + *size, 0, w->at + from - *size);
	memcpy(bytes + w->at + from, w->p + from, to - from);
	if (w->at + to > *size) *size = w->at + to;
}

/* Some of the unsynced pages, in their order; the last one kept may be torn. */
static void some_pages(struct disk *d, uint8_t *bytes, size_t *size)
{
	unsigned keep = (unsigned)(vk_rng(&rec.rng) % 5); /* of 4: from none to all */
	for (size_t i = 0; i < d->count; i++) {
		const struct pending *w = &d->pending[i];
		if (w->n == 0 && vk_rng(&rec.rng) % 4 < keep) apply(bytes, size, w, 0, 0);
		for (size_t from = 0; from < w->n;) {
			size_t to = from + PAGE - (w->at + from) % PAGE;
			if (to > w->n) to = w->n;
			bool torn = w->n >= PAGE && vk_rng(&rec.rng) % 16 == 0;
			if (vk_rng(&rec.rng) % 4 < keep)
				apply(bytes, size, w, from,
				      torn && to - from > 512 ? from + 512 : to);
			from = to;
		}
	}
}

static void take_image(void)
{
	static uint8_t bytes[FILE_MAX];
	char path[512];
	int n = rec.images++;
	rec.acked[n] = acked;
	rec.put[n] = returned;
	snprintf(path, sizeof path, "%s/%d", rec.dir, n);
	if (mkdir(path, 0700) != 0) abort();
	for (int i = 0; i < FILES; i++) {
		struct disk *d = &rec.disk[i];
		size_t size = d->size;
		memcpy(bytes, d->synced, size);
		some_pages(d, bytes, &size);
		snprintf(path, sizeof path, "%s/%d/%s", rec.dir, n, names[i]);
		int fd = open(path, O_WRONLY | O_CREAT, 0600);
		if (fd < 0 || (size && syscall(SYS_pwrite64, fd, bytes, size, 0) != (long)size))
			abort();
		close(fd);
	}
}

static void note(int fd, const void *p, size_t n, size_t at)
{
	pthread_mutex_lock(&rec.lock);
	struct disk *d = disk_of(fd);
	if (d) {
		if (d->count == d->cap) {
			d->cap = d->cap ? d->cap * 2 : 64;
			d->pending = realloc(d->pending, d->cap * sizeof *d->pending);
		}
		struct pending *w = &d->pending[d->count++];
		*w = (struct pending){at, n, malloc(n ? n : 1)};
		if (n) memcpy(w->p, p, n);
		if (rec.images < rec.images_max && vk_rng(&rec.rng) % 4 == 0) take_image();
	}
	pthread_mutex_unlock(&rec.lock);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at);
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
	note(fd, p, n, (size_t)at);
	return syscall(SYS_pwrite64, fd, p, n, at);
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { return pwrite64(fd, p, n, at); }

static ssize_t write_pieces(int fd, const struct iovec *iov, int count, off_t at)
{
	size_t n = 0;
	for (int i = 0; i < count; i++) n += iov[i].iov_len;
	uint8_t *all = malloc(n ? n : 1), *p = all;
	for (int i = 0; i < count; i++) {
		memcpy(p, iov[i].iov_base, iov[i].iov_len);
		p += iov[i].iov_len;
	}
	ssize_t done = pwrite64(fd, all, n, at);
	free(all);
	return done;
}
ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
	return write_pieces(fd, iov, count, at);
}
ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t at);
ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t at)
{
	return write_pieces(fd, iov, count, at);
}
/* LMDB writes runs of pages with lseek and writev. */
ssize_t writev(int fd, const struct iovec *iov, int count)
{
	off_t at = lseek(fd, 0, SEEK_CUR);
	pthread_mutex_lock(&rec.lock);
	bool ours = disk_of(fd) != NULL;
	pthread_mutex_unlock(&rec.lock);
	if (!ours) return syscall(SYS_writev, fd, iov, count);
	ssize_t done = write_pieces(fd, iov, count, at);
	if (done > 0) lseek(fd, at + done, SEEK_SET);
	return done;
}

int ftruncate(int fd, off_t n)
{
	note(fd, NULL, 0, (size_t)n);
	return (int)syscall(SYS_ftruncate, fd, n);
}

int fdatasync(int fd)
{
	int rc = (int)syscall(SYS_fdatasync, fd);
	pthread_mutex_lock(&rec.lock);
	struct disk *d = disk_of(fd);
	for (size_t i = 0; d && i < d->count; i++) {
		apply(d->synced, &d->size, &d->pending[i], 0, d->pending[i].n);
		free(d->pending[i].p);
	}
	if (d) d->count = 0;
	pthread_mutex_unlock(&rec.lock);
	return rc;
}

static void start(const char *dir)
{
	pthread_mutex_lock(&rec.lock);
	for (int i = 0; i < FILES; i++) {
		char path[512];
		struct stat st;
		snprintf(path, sizeof path, "%.400s/%s", dir, names[i]);
		int fd = open(path, O_RDONLY);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_true((size_t)st.st_size < FILE_MAX);
		rec.disk[i] = (struct disk){.ino = st.st_ino, .synced = calloc(1, FILE_MAX)};
		rec.disk[i].size = (size_t)st.st_size;
		assert_int_equal(read(fd, rec.disk[i].synced, FILE_MAX), st.st_size);
		close(fd);
	}
	rec.on = true;
	pthread_mutex_unlock(&rec.lock);
}

static void stop(void)
{
	pthread_mutex_lock(&rec.lock);
	rec.on = false;
	for (int i = 0; i < FILES; i++) {
		for (size_t k = 0; k < rec.disk[i].count; k++) free(rec.disk[i].pending[k].p);
		free(rec.disk[i].pending);
		free(rec.disk[i].synced);
	}
	pthread_mutex_unlock(&rec.lock);
}

static void on_committed(void *arg, enum vk_status st)
{
	(void)arg;
	if (st == VK_OK) acked++; /* in the order of the puts */
}

static uint32_t dims_of(uint64_t n) { return n % 2 ? 100 : 600; }

/* Rows of the first n that the image has not. */
static uint64_t missing(struct vk_cachedb *db, uint64_t n)
{
	uint64_t lost = 0;
	for (uint64_t i = 0; i < n; i++) lost += get_one(db, 1, 1, i, dims_of(i)) != VK_OK;
	return lost;
}

static void test_powercut_takes_no_committed_row(void **state)
{
	(void)state;
	struct temp t;
	char path[512];
	const char *images = getenv("VK_POWERCUT_IMAGES");
	rec.images_max = images ? atoi(images) : 250;
	if (rec.images_max > IMAGES_MAX) rec.images_max = IMAGES_MAX;
	rec.rng = test_seed("powercut");
	uint64_t rng = rec.rng + 1;
	temp_make(&t);
	snprintf(path, sizeof path, "%s/db", t.path);
	snprintf(rec.dir, sizeof rec.dir, "%s", t.path);
	struct vk_cachedb *db = must_open(path, NULL);
	start(path);
	for (uint64_t n = 0; n < ROWS; n++) {
		assert_int_equal(put_one(db, 1, 1, n, dims_of(n), on_committed, NULL), VK_OK);
		returned = n + 1;
		if (vk_rng(&rng) % 8 == 0) usleep((useconds_t)(vk_rng(&rng) % 1500));
	}
	vk_cachedb_close(db);
	stop();
	vk_dir_remove(path);
	assert_int_equal(acked, ROWS);

	uint64_t dropped = 0;
	for (int i = 0; i < rec.images; i++) {
		struct vk_cachedb_stats s;
		snprintf(path, sizeof path, "%s/%d", t.path, i);
		db = must_open(path, NULL);
		uint64_t lost = missing(db, rec.acked[i]);
		if (lost)
			fail_msg("image %d: %llu of %llu committed rows are gone", i,
				 (unsigned long long)lost, (unsigned long long)rec.acked[i]);
		dropped += missing(db, rec.put[i]) > 0;
		vk_cachedb_stats(db, &s);
		assert_int_equal(s.corrupt, 0);
		vk_cachedb_close(db);
		vk_dir_remove(path);
	}
	print_message("%d images; %llu of them lost rows that were put but not committed\n",
		      rec.images, (unsigned long long)dropped);
	assert_true(rec.images >= (rec.images_max < 100 ? rec.images_max : 100));
	assert_true(dropped > 0);
	temp_free(&t);
}

int main(void)
{
	vk_log_set_level(VK_LOG_ERROR);
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_powercut_takes_no_committed_row)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
