/*
 * Goal: a backup taken while the cache is written to holds every row that was acknowledged before
 * it began, opens, and is refused when a byte of it has changed; a restore is whole or nothing.
 * Collections come back, too, also one that was made while the backup ran; names in a manifest lead nowhere else.
 * Method: a thread that puts all the time; backup, restore, compare; each file damaged in turn.
 */
#include "tests/store/util.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "store/backup.h"
#include "store/datadir.h"
#include "store/kv.h"

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

/* Collections: three environments; the fourth is made while the catalog is being copied. */

#define COLLECTIONS 4
static const char *const tables[] = {"a"};

struct collections {
	struct home *h;
	struct vk_kv_writers *writers;
	struct vk_kv *kv[COLLECTIONS];
	unsigned lists, opened, closed;
	bool missing; /* the second cannot be opened */
};

static uint32_t id_of(unsigned i) { return 3 + 1000000 * i; }

static void collection_dir(char *dst, size_t cap, const char *data, unsigned i)
{
	snprintf(dst, cap, "%s/collections/%u", data, id_of(i));
}

static struct vk_kv *open_collection(struct vk_kv_writers *writers, const char *data, unsigned i)
{
	char path[400];
	struct vk_kv_opts o = {.tables = tables, .tables_n = 1, .writers = writers};
	struct vk_kv *kv;
	struct vk_error err = {0};
	collection_dir(path, sizeof path, data, i);
	assert_int_equal(vk_dir_make(path, NULL), VK_OK);
	if (vk_kv_open(path, &o, &kv, &err)) fail_msg("%s", err.text);
	return kv;
}

static enum vk_status put_number(void *arg, struct vk_kv_txn *t)
{
	return vk_kv_put(t, 0, VK_LIT("number"), (struct vk_bytes){arg, sizeof(unsigned)});
}

static enum vk_status list_collections(void *arg, uint32_t **ids, size_t *n, struct vk_error *err)
{
	struct collections *c = arg;
	(void)err;
	*n = c->lists++ == 0 ? COLLECTIONS - 1 : COLLECTIONS;
	*ids = calloc(*n, sizeof **ids);
	for (unsigned i = 0; i < *n; i++) (*ids)[i] = id_of(i);
	return VK_OK;
}

static enum vk_status open_one(void *arg, uint32_t id, struct vk_kv **kv, void **ref, struct vk_error *err)
{
	struct collections *c = arg;
	unsigned i = (id - 3) / 1000000;
	assert_int_equal(id, id_of(i));
	if (c->missing && i == 1) return vk_fail(err, VK_E_CORRUPT, "it is damaged");
	c->opened++;
	*kv = c->kv[i];
	*ref = c->kv[i];
	return VK_OK;
}

static void close_one(void *arg, void *ref)
{
	struct collections *c = arg;
	assert_non_null(ref);
	c->closed++;
}

static void make_collections(struct collections *c, struct home *h)
{
	*c = (struct collections){.h = h};
	make_home(h);
	assert_int_equal(vk_kv_writers_new(1, &c->writers), VK_OK);
	for (unsigned i = 0; i < COLLECTIONS; i++) {
		struct vk_kv_job job = {.apply = put_number, .arg = &i};
		c->kv[i] = open_collection(c->writers, h->data, i);
		assert_int_equal(vk_kv_run(c->kv[i], &job), VK_OK);
	}
}

static void free_collections(struct collections *c)
{
	for (unsigned i = 0; i < COLLECTIONS; i++) vk_kv_close(c->kv[i]);
	vk_kv_writers_free(c->writers);
	close_home(c->h);
	free_home(c->h);
}

static void test_backup_brings_collections_back(void **state)
{
	(void)state;
	struct home h;
	struct collections c;
	struct vk_error err;
	make_collections(&c, &h);
	struct vk_backup_source source = {&c, list_collections, open_one, close_one};
	struct vk_backup_opts opts = {.collections = &source};
	if (vk_backup_write(h.catalog, h.cache, h.data, h.copy, &opts, &err)) fail_msg("%s", err.text);
	assert_int_equal(c.opened, COLLECTIONS);
	assert_int_equal(c.closed, COLLECTIONS);
	assert_int_equal(c.lists, 3); /* before the catalog; after it, one was new; and once more */
	if (vk_backup_restore(h.copy, h.back, &err)) fail_msg("%s", err.text);
	for (unsigned i = 0; i < COLLECTIONS; i++) {
		struct vk_kv *kv = open_collection(c.writers, h.back, i);
		struct vk_kv_txn *t;
		struct vk_bytes v;
		assert_int_equal(vk_kv_view_begin(kv, &t), VK_OK);
		assert_int_equal(vk_kv_get(t, 0, VK_LIT("number"), &v), VK_OK);
		assert_memory_equal(v.p, &i, sizeof i);
		vk_kv_view_end(t);
		vk_kv_close(kv);
	}
	/* A damaged one is refused, and nothing stays. */
	vk_dir_remove(h.back);
	flip(h.copy, "collection-1000003.mdb", 5000);
	assert_int_equal(vk_backup_restore(h.copy, h.back, &err), VK_E_CORRUPT);
	assert_int_not_equal(access(h.back, F_OK), 0);
	free_collections(&c);
}

static void test_backup_without_one_collection_is_none(void **state)
{
	(void)state;
	struct home h;
	struct collections c;
	struct vk_error err;
	make_collections(&c, &h);
	c.missing = true;
	struct vk_backup_source source = {&c, list_collections, open_one, close_one};
	struct vk_backup_opts opts = {.collections = &source};
	assert_int_equal(vk_backup_write(h.catalog, h.cache, h.data, h.copy, &opts, &err), VK_E_CORRUPT);
	assert_string_equal(err.text, "it is damaged");
	assert_int_not_equal(access(h.copy, F_OK), 0);
	assert_int_equal(c.opened, c.closed);
	free_collections(&c);
}

/* A manifest text with one part replaced, written back. */
static void edit_manifest(const char *dir, const char *from, const char *to)
{
	char path[400];
	struct vk_buf b, out;
	vk_buf_init(&b, 65536);
	vk_buf_init(&out, 65536);
	sub(path, sizeof path, dir, "manifest.json");
	assert_int_equal(vk_file_read(path, &b, NULL), VK_OK);
	const char *text = vk_buf_cstr(&b), *at = strstr(text, from);
	assert_non_null(at);
	vk_buf_put(&out, text, (size_t)(at - text));
	vk_buf_puts(&out, to);
	vk_buf_puts(&out, at + strlen(from));
	assert_int_equal(vk_file_replace(dir, "manifest.json", out.p, out.n, NULL), VK_OK);
	vk_buf_free(&b);
	vk_buf_free(&out);
}

static void test_restore_reads_old_manifests_and_trusts_no_name(void **state)
{
	(void)state;
	struct home h;
	struct collections c;
	struct vk_error err;
	make_collections(&c, &h);
	/* Without collections a backup is what the first version wrote. */
	assert_int_equal(vk_backup_write(h.catalog, h.cache, h.data, h.copy, NULL, &err), VK_OK);
	edit_manifest(h.copy, "\"veckeep_backup\":1", "\"veckeep_backup\":1");
	if (vk_backup_restore(h.copy, h.back, &err)) fail_msg("%s", err.text);
	vk_dir_remove(h.back);
	edit_manifest(h.copy, "\"veckeep_backup\":1", "\"veckeep_backup\":3");
	assert_int_equal(vk_backup_restore(h.copy, h.back, &err), VK_E_INVALID);
	vk_dir_remove(h.copy);
	struct vk_backup_source source = {&c, list_collections, open_one, close_one};
	struct vk_backup_opts opts = {.collections = &source};
	assert_int_equal(vk_backup_write(h.catalog, h.cache, h.data, h.copy, &opts, &err), VK_OK);
	static const char *const names[] = {"collection-../../x.mdb", "collection-1000003.mdb/", "collection-03.mdb",
					    "../collection-3.mdb", "collection-99999999999.mdb", "collection-3.mdb"};
	const char *was = "collection-1000003.mdb";
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		edit_manifest(h.copy, was, names[i]);
		was = names[i];
		/* The last one is there twice then. */
		assert_int_equal(vk_backup_restore(h.copy, h.back, &err), VK_E_CORRUPT);
		assert_int_not_equal(access(h.back, F_OK), 0);
	}
	free_collections(&c);
}

int main(void)
{
	vk_log_set_level(VK_LOG_OFF);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_backup_under_load_has_every_acked_row),
	    cmocka_unit_test(test_restore_of_a_damaged_backup_leaves_nothing),
	    cmocka_unit_test(test_backup_and_restore_overwrite_nothing),
	    cmocka_unit_test(test_backup_keeps_its_pace_and_reports),
	    cmocka_unit_test(test_backup_brings_collections_back),
	    cmocka_unit_test(test_backup_without_one_collection_is_none),
	    cmocka_unit_test(test_restore_reads_old_manifests_and_trusts_no_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
