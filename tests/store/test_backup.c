/*
 * Goal: a backup taken while the cache is written to holds every row that was acknowledged before
 * it began, opens, and is refused when a byte of it has changed; a restore is whole or nothing.
 * Method: a thread that puts all the time; backup, restore, compare; each file damaged in turn.
 */
#include "tests/store/util.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "store/backup.h"
#include "store/datadir.h"

#define DIMS 384
#define ROUNDS 10

struct home {
	struct temp t;
	char data[320], copy[320], back[320];
	struct vk_datadir d;
	struct vk_catalog *catalog;
	struct vk_cachedb *cache;
};

static void sub(char *dst, size_t cap, const char *dir, const char *name)
{
	snprintf(dst, cap, "%s/%s", dir, name);
}

static void open_home(struct home *h)
{
	struct vk_error err;
	char path[400];
	if (vk_datadir_open(&h->d, h->data, 0, &err)) fail_msg("%s", err.text);
	sub(path, sizeof path, h->data, "catalog");
	if (vk_catalog_open(path, false, &h->catalog, &err)) fail_msg("%s", err.text);
	sub(path, sizeof path, h->data, "cache");
	h->cache = must_open(path, NULL);
}

static void make_home(struct home *h)
{
	temp_make(&h->t);
	sub(h->data, sizeof h->data, h->t.path, "data");
	sub(h->copy, sizeof h->copy, h->t.path, "copy");
	sub(h->back, sizeof h->back, h->t.path, "back");
	open_home(h);
}

static void close_home(struct home *h)
{
	vk_cachedb_close(h->cache);
	vk_catalog_close(h->catalog);
	vk_datadir_close(&h->d);
}

static void free_home(struct home *h)
{
	vk_dir_remove(h->data);
	vk_dir_remove(h->copy);
	vk_dir_remove(h->back);
	temp_free(&h->t);
}

struct putter {
	struct home *h;
	_Atomic uint64_t acked;
	_Atomic bool stop, failed;
};

static void *put_on(void *arg)
{
	struct putter *p = arg;
	while (!p->stop) {
		uint64_t n = p->acked;
		/* Every row's space is interned before the row is put. */
		char name[32];
		uint32_t id;
		int len = snprintf(name, sizeof name, "space-%llu", (unsigned long long)(n / 200));
		if (n % 200 == 0 && vk_catalog_intern(p->h->catalog, VK_NAME_SPACE,
						      (struct vk_bytes){name, (size_t)len}, &id))
			p->failed = true;
		if (put_one(p->h->cache, 1, (uint32_t)(n / 200 + 1), n, DIMS, NULL, NULL))
			p->failed = true;
		p->acked = n + 1;
		if (n % 4 == 3) usleep(1000); /* slow machines must finish, too */
	}
	return NULL;
}

static void check_restored(const char *dir, uint64_t acked)
{
	struct home r;
	struct vk_cachedb_stats s;
	snprintf(r.data, sizeof r.data, "%s", dir);
	open_home(&r);
	for (uint64_t n = 0; n < acked; n++)
		assert_int_equal(get_one(r.cache, 1, (uint32_t)(n / 200 + 1), n, DIMS), VK_OK);
	/* Later rows may be there; the catalog knows their spaces. */
	vk_cachedb_stats(r.cache, &s);
	assert_true(s.rows >= acked);
	for (uint32_t id = 1; id <= (s.rows + 199) / 200; id++) {
		struct vk_buf name;
		vk_buf_init(&name, 100);
		assert_int_equal(vk_catalog_name(r.catalog, VK_NAME_SPACE, id, &name), VK_OK);
		vk_buf_free(&name);
	}
	close_home(&r);
}

static void test_backup_under_load_has_every_acked_row(void **state)
{
	(void)state;
	struct home h;
	struct vk_error err;
	pthread_t thread;
	make_home(&h);
	struct putter p = {.h = &h};
	assert_int_equal(pthread_create(&thread, NULL, put_on, &p), 0);
	for (int i = 0; i < ROUNDS; i++) {
		usleep(10000);
		uint64_t acked = p.acked;
		if (vk_backup_write(h.catalog, h.cache, h.data, h.copy, NULL, &err))
			fail_msg("%s", err.text);
		if (vk_backup_restore(h.copy, h.back, &err)) fail_msg("%s", err.text);
		check_restored(h.back, acked);
		vk_dir_remove(h.copy);
		vk_dir_remove(h.back);
	}
	p.stop = true;
	pthread_join(thread, NULL);
	assert_false(p.failed);
	close_home(&h);
	free_home(&h);
}

static void flip(const char *dir, const char *name, off_t at)
{
	char path[400];
	uint8_t b;
	sub(path, sizeof path, dir, name);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, at), 1);
	b ^= 1;
	assert_int_equal(pwrite(fd, &b, 1, at), 1);
	close(fd);
}

static void test_restore_of_a_damaged_backup_leaves_nothing(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		off_t at;
	} damage[] = {{"cache.mdb", 9000},
		      {"catalog.mdb", 4100},
		      {"FORMAT", 3},
		      {"manifest.json", 5},
		      {"cache.mdb", 40}};
	struct home h;
	struct vk_error err;
	make_home(&h);
	for (uint64_t n = 0; n < 100; n++)
		assert_int_equal(put_one(h.cache, 1, 1, n, DIMS, NULL, NULL), VK_OK);
	assert_int_equal(vk_backup_write(h.catalog, h.cache, h.data, h.copy, NULL, &err), VK_OK);
	for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
		flip(h.copy, damage[i].name, damage[i].at);
		assert_int_not_equal(vk_backup_restore(h.copy, h.back, &err), VK_OK);
		assert_true(err.text[0] != 0);
		assert_int_not_equal(access(h.back, F_OK), 0);
		flip(h.copy, damage[i].name, damage[i].at);
	}
	char path[400];
	sub(path, sizeof path, h.copy, "cache.mdb");
	assert_int_equal(truncate(path, 8192), 0);
	assert_int_equal(vk_backup_restore(h.copy, h.back, &err), VK_E_CORRUPT);
	sub(path, sizeof path, h.copy, "manifest.json");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(vk_backup_restore(h.copy, h.back, &err), VK_E_NOT_FOUND);
	assert_non_null(strstr(err.text, "no complete backup"));
	close_home(&h);
	free_home(&h);
}

static void test_backup_and_restore_overwrite_nothing(void **state)
{
	(void)state;
	struct home h;
	struct vk_error err;
	make_home(&h);
	assert_int_equal(vk_backup_write(h.catalog, h.cache, h.data, h.data, NULL, &err),
			 VK_E_EXISTS);
	assert_int_equal(vk_backup_write(h.catalog, h.cache, h.data, h.copy, NULL, &err), VK_OK);
	assert_int_equal(vk_backup_write(h.catalog, h.cache, h.data, h.copy, NULL, &err),
			 VK_E_EXISTS);
	assert_int_equal(vk_backup_restore(h.copy, h.data, &err), VK_E_BUSY); /* it is in use */
	close_home(&h);
	assert_int_equal(vk_backup_restore(h.copy, h.data, &err), VK_E_EXISTS);
	open_home(&h);
	close_home(&h);
	free_home(&h);
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	assert_true(done <= total);
	*(uint64_t *)arg = done;
}

static void test_backup_keeps_its_pace_and_reports(void **state)
{
	(void)state;
	struct home h;
	struct vk_error err;
	uint64_t done = 0;
	make_home(&h);
	for (uint64_t n = 0; n < 500; n++)
		assert_int_equal(put_one(h.cache, 1, 1, n, DIMS, NULL, NULL), VK_OK);
	struct vk_backup_opts opts = {
	    .bytes_per_s = 4 << 20, .progress = on_progress, .arg = &done};
	uint64_t start_ms = vk_mono_ms();
	assert_int_equal(vk_backup_write(h.catalog, h.cache, h.data, h.copy, &opts, &err), VK_OK);
	uint64_t took_ms = vk_mono_ms() - start_ms;
	assert_true(done > 500 * DIMS * 4);
	assert_true(took_ms >= done * 1000 / (4 << 20) * 9 / 10);
	close_home(&h);
	free_home(&h);
}

int main(void)
{
	vk_log_set_level(VK_LOG_OFF);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_backup_under_load_has_every_acked_row),
	    cmocka_unit_test(test_restore_of_a_damaged_backup_leaves_nothing),
	    cmocka_unit_test(test_backup_and_restore_overwrite_nothing),
	    cmocka_unit_test(test_backup_keeps_its_pace_and_reports),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
