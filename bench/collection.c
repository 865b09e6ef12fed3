/*
 * What durable writes of points cost: upserts of 1536-d rows with a payload, acknowledged after the commit, in batches of 256 from
 * one client and from four, with random UUIDs; with and without payload indexes; then payload edits and deletes by id.
 *
 *   bench_collection [dir] [points]     the directory decides which disk is measured
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "index/collection.h"
#include "store/file.h"

#define DIMS 1536
#define BATCH 256

static const char config[] =
    "{\"vectors\":{\"\":{\"size\":1536,\"distance\":\"Cosine\",\"veckeep\":{\"set\":1}}},\"indexes\":{%s},"
    "\"veckeep\":{\"next_set\":2,\"next_field\":3}}";
static const char indexes[] = "\"city\":{\"field\":1,\"type\":\"keyword\",\"state\":\"ready\"},"
			      "\"n\":{\"field\":2,\"type\":\"integer\",\"state\":\"ready\"}";

struct client {
	struct vk_collection *c;
	enum vk_op_kind kind;
	size_t from, to;
	const float *rows; /* BATCH of them, used again and again */
	enum vk_status st;
};

static struct vk_bytes id_of(struct vk_arena *a, size_t i)
{
	uint64_t s = i, x = vk_rng(&s), y = vk_rng(&s);
	char *key = vk_arena_alloc(a, 17);
	key[0] = 2;
	memcpy(key + 1, &x, 8);
	memcpy(key + 9, &y, 8);
	return (struct vk_bytes){key, 17};
}

static enum vk_status write_batch(struct client *cl, size_t from, size_t n)
{
	struct vk_arena a;
	struct vk_colconf *conf = vk_collection_config(cl->c);
	struct vk_op_in op = {.kind = cl->kind};
	struct vk_write w = {.op = &op, .op_n = 1, .conf = conf, .now_ms = vk_wall_ms()};
	struct vk_json *doc[BATCH + 1] = {0};
	vk_arena_init(&a, (size_t)64 << 20);
	op.point = vk_arena_calloc(&a, n, sizeof *op.point);
	op.ids = cl->kind == VK_OP_UPSERT ? NULL : vk_arena_calloc(&a, n, sizeof *op.ids);
	for (size_t i = 0; i < n; i++) {
		struct vk_point_in *p = &op.point[i];
		p->id = id_of(&a, from + i);
		if (op.ids) {
			op.ids[op.ids_n++] = p->id;
			continue;
		}
		p->vec = vk_arena_alloc(&a, sizeof *p->vec);
		*p->vec = (struct vk_vec){.conf = &conf->vectors[0], .row = cl->rows + i * DIMS};
		p->vec_n = 1;
		p->payload = vk_bytes_of(vk_arena_printf(&a, "{\"city\":\"c%zu\",\"n\":%zu,\"text\":\"%0180d\"}", (from + i) % 97, from + i, 7));
		vk_json_parse(&a, p->payload, NULL, &doc[i], NULL);
		p->payload_jv = vk_json_root(doc[i]);
		op.point_n++;
	}
	vk_json_parse(&a, VK_LIT("{\"seen\":true}"), NULL, &doc[BATCH], NULL);
	op.payload = vk_json_root(doc[BATCH]);
	enum vk_status st = vk_collection_write_wait(cl->c, &w);
	for (size_t i = 0; i <= BATCH; i++) vk_json_free(doc[i]);
	vk_arena_free(&a);
	vk_colconf_unref(conf);
	return st;
}

static void *run_client(void *arg)
{
	struct client *cl = arg;
	for (size_t i = cl->from; i < cl->to && !cl->st; i += BATCH)
		cl->st = write_batch(cl, i, cl->to - i < BATCH ? cl->to - i : BATCH);
	return NULL;
}

static void measure(struct vk_collection *c, const char *what, enum vk_op_kind kind, size_t from, size_t n, unsigned clients,
		    const float *rows)
{
	struct client cl[8];
	pthread_t thread[8];
	uint64_t start = vk_mono_us();
	for (unsigned i = 0; i < clients; i++) {
		cl[i] = (struct client){.c = c, .kind = kind, .from = from + n / clients * i, .to = from + n / clients * (i + 1), .rows = rows};
		pthread_create(&thread[i], NULL, run_client, &cl[i]);
	}
	for (unsigned i = 0; i < clients; i++) {
		pthread_join(thread[i], NULL);
		if (cl[i].st) printf("%s: %s\n", what, vk_status_text(cl[i].st));
	}
	double s = (double)(vk_mono_us() - start) / 1e6;
	printf("%-34s %7zu points %8.2f s %9.0f points/s\n", what, n, s, (double)n / s);
}

static void run(const char *base, const char *name, const char *index, size_t n, const float *rows)
{
	char dir[600], text[1024];
	struct vk_collection_opts o = {.map_bytes = (uint64_t)32 << 30};
	struct vk_collection *c;
	struct vk_error err;
	snprintf(dir, sizeof dir, "%s/bench-collection-%s", base, name);
	snprintf(text, sizeof text, config, index);
	vk_dir_remove(dir);
	if (vk_kv_writers_new(1, &o.writers)) return;
	if (vk_collection_open(dir, vk_bytes_of(text), &o, &c, &err)) {
		printf("%s\n", err.text);
		return;
	}
	printf("%s\n", name);
	measure(c, "  upsert new, 1 client", VK_OP_UPSERT, 0, n, 1, rows);
	measure(c, "  upsert new, 4 clients", VK_OP_UPSERT, n, n, 4, rows);
	measure(c, "  upsert again, 1 client", VK_OP_UPSERT, 0, n, 1, rows);
	measure(c, "  set payload, 1 client", VK_OP_PAYLOAD_SET, 0, n, 1, rows);
	measure(c, "  delete, 1 client", VK_OP_DELETE, 0, n, 1, rows);
	uint64_t start = vk_mono_us();
	vk_collection_seal(c);
	printf("  seal what is left %.2f s\n", (double)(vk_mono_us() - start) / 1e6);
	vk_collection_unref(c);
	vk_kv_writers_free(o.writers);
	vk_dir_remove(dir);
}

int main(int argc, char **argv)
{
	const char *base = argc > 1 ? argv[1] : "/tmp";
	size_t n = argc > 2 ? strtoul(argv[2], NULL, 10) : 20480;
	float *rows = malloc(sizeof *rows * DIMS * BATCH);
	uint64_t rng = 1;
	for (size_t i = 0; i < (size_t)DIMS * BATCH; i++) rows[i] = (float)(vk_rng(&rng) >> 40) / 8388608.0f - 1.0f;
	run(base, "no indexes", "", n, rows);
	run(base, "two indexes", indexes, n, rows);
	free(rows);
	return 0;
}
