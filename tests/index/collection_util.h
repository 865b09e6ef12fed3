/* What the collection tests share: a server's worth of writers, and writes decoded from JSON as the REST face decodes them. */
#ifndef VK_TESTS_INDEX_COLLECTION_UTIL_H
#define VK_TESTS_INDEX_COLLECTION_UTIL_H

#include "tests/store/util.h"

#include "base/clock.h"
#include "index/collection.h"

/* VECKEEP_SEED replays a run; otherwise a fixed seed. Printed either way. */
static inline uint64_t model_seed(const char *name)
{
	const char *s = getenv("VECKEEP_SEED");
	uint64_t seed = s ? strtoull(s, NULL, 0) : 20261123;
	print_message("%s: VECKEEP_SEED=%llu\n", name, (unsigned long long)seed);
	return seed;
}

/* Memory under one write: texts parsed, points, paths, filters. */
struct mem {
	struct vk_arena a;
	struct vk_json *doc[512];
	int n;
};

static inline void mem_init(struct mem *m)
{
	vk_arena_init(&m->a, (size_t)256 << 20);
	m->n = 0;
}

static inline void mem_free(struct mem *m)
{
	for (int i = 0; i < m->n; i++) vk_json_free(m->doc[i]);
	vk_arena_free(&m->a);
}

static inline const vk_jv *mem_json(struct mem *m, struct vk_bytes text)
{
	struct vk_error err;
	assert_true(m->n < 512);
	if (vk_json_parse(&m->a, text, NULL, &m->doc[m->n], &err)) fail_msg("%s in %.*s", err.text, (int)text.n, text.p);
	return vk_json_root(m->doc[m->n++]);
}

static inline const struct vk_filter *mem_filter(struct mem *m, const char *text)
{
	struct vk_filter *f;
	struct vk_error err;
	if (!text) return NULL;
	if (vk_filter_parse(&m->a, mem_json(m, vk_bytes_of(text)), &f, &err)) fail_msg("%s in %s", err.text, text);
	return f;
}

static inline const struct vk_path *mem_path(struct mem *m, const char *text)
{
	struct vk_path *p = vk_arena_calloc(&m->a, 1, sizeof *p);
	struct vk_error err;
	if (!text) return NULL;
	if (vk_path_parse(&m->a, vk_bytes_of(text), p, &err)) fail_msg("%s", err.text);
	return p;
}

/* Id number i of a universe: a number, a UUID, a word. */
static inline struct vk_bytes id_number(uint8_t key[64], uint32_t i)
{
	if (i % 3 == 0) {
		vk_id_u64(key, i * 7u);
		return (struct vk_bytes){(char *)key, 9};
	}
	if (i % 3 == 1) {
		uint64_t s = i, x = vk_rng(&s), y = vk_rng(&s);
		key[0] = 2;
		memcpy(key + 1, &x, 8);
		memcpy(key + 9, &y, 8);
		return (struct vk_bytes){(char *)key, 17};
	}
	int n = snprintf((char *)key + 1, 60, "doc-%u", i * 2654435761u % 1000003u);
	key[0] = 3;
	return (struct vk_bytes){(char *)key, 1 + (size_t)n};
}

static inline struct vk_collection *collection_open(const char *dir, const char *config, struct vk_kv_writers *w)
{
	struct vk_collection_opts o = {.writers = w, .map_bytes = (uint64_t)1 << 30};
	struct vk_collection *c;
	struct vk_error err = {0};
	if (vk_collection_open(dir, vk_bytes_of(config), &o, &c, &err)) fail_msg("open: %s", err.text);
	return c;
}

static inline void collection_check(struct vk_collection *c, const char *scratch)
{
	struct vk_error err = {0};
	enum vk_status st = vk_collection_check(c, scratch, &err);
	if (scratch) vk_dir_remove(scratch);
	if (st) fail_msg("check: %s: %s", vk_status_text(st), err.text);
}

/* A collection in a directory of its own. */
struct fix {
	struct temp dir;
	char path[300], scratch[300];
	struct vk_kv_writers *writers;
	struct vk_collection *c;
};

static inline void fix_open(struct fix *f, const char *config)
{
	temp_make(&f->dir);
	snprintf(f->path, sizeof f->path, "%s/c", f->dir.path);
	snprintf(f->scratch, sizeof f->scratch, "%s/s", f->dir.path);
	assert_int_equal(vk_kv_writers_new(2, &f->writers), VK_OK);
	f->c = collection_open(f->path, config, f->writers);
}

/* Checks it whole and deletes it. */
static inline void fix_close(struct fix *f)
{
	collection_check(f->c, f->scratch);
	vk_collection_unref(f->c);
	vk_kv_writers_free(f->writers);
	temp_free(&f->dir);
}

static inline struct vk_collection_stats fix_stats(struct fix *f)
{
	struct vk_collection_stats s;
	assert_int_equal(vk_collection_stats(f->c, &s), VK_OK);
	return s;
}

#endif
