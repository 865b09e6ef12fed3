/*
 * Open: config, weights, identity. Run: texts go in waves (so memory does not grow with their
 * number); in a wave they are tokenised, sorted by length and cut into tiles of about equal
 * tokens, a whole number of tiles for each thread; a wave of one tile is shared step by step by
 * a team instead (embed/encoder/team.h), which is what makes one short query fast.
 */
#include "embed/encoder.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "embed/encoder/bert.h"
#include "embed/encoder/config.h"
#include "embed/encoder/safetensors.h"
#include "simd/cpu.h"

#define WAVE_TEXTS 1024	   /* tokenised at once */
#define TILE_TOKENS 384	   /* aimed at; one text may be longer */
#define TILE_TOKENS_MIN 64 /* smaller tiles read all weights for too few rows */
#define TOKENISE_TEXTS 32  /* per job */
#define TEAM_HELPERS_MAX 3 /* more threads than that share one text badly */

struct vk_encoder {
	struct vk_encoder_info info;
	struct vk_arena arena;
	struct vk_model_config config;
	struct vk_safetensors *file;
	struct vk_bert *bert;
	enum vk_cpu_level level;
};

/* ---- open ---- */

/* Weights, tokenizer with its options, pooling: two encoders with the same fingerprint give
 * comparable vectors. The program's version and the CPU are not in it. */
static void fingerprint(struct vk_encoder *e)
{
	struct vk_sha256 s;
	uint8_t digest[VK_SHA256_SIZE];
	char pooling[64];
	struct vk_bytes file = vk_safetensors_bytes(e->file);
	int n = snprintf(pooling, sizeof pooling, "pooling=%s normalize=%d", e->info.pooling,
			 e->info.normalize);
	vk_sha256_init(&s);
	vk_sha256_update(&s, file.p, file.n);
	vk_sha256_update(&s, e->config.tokenizer_sha256, sizeof e->config.tokenizer_sha256);
	vk_sha256_update(&s, pooling, (size_t)n);
	vk_sha256_final(&s, digest);
	vk_hex(e->info.fingerprint, digest, sizeof digest);
}

static void fill_info(struct vk_encoder *e)
{
	static const char *const names[] = {
	    [VK_POOL_MEAN] = "mean", [VK_POOL_CLS] = "cls", [VK_POOL_MAX] = "max"};
	memcpy(e->info.model, e->config.name, sizeof e->info.model);
	e->info.dims = e->config.hidden;
	e->info.tokens_max = e->config.tokens_max;
	e->info.pooling = names[e->config.pooling];
	e->info.normalize = e->config.normalize;
}

static enum vk_status open_weights(struct vk_encoder *e, const char *dir, struct vk_error *err)
{
	char path[4096];
	if ((size_t)snprintf(path, sizeof path, "%s/model.safetensors", dir) >= sizeof path)
		return vk_fail(err, VK_E_INVALID, "the model's path is too long");
	enum vk_status st = vk_safetensors_open(path, &e->file, err);
	if (!st)
		st = vk_bert_load(e->file, &e->config, vk_encoder_kernels(e->level), &e->bert, err);
	return st;
}

enum vk_status vk_encoder_open(const char *dir, struct vk_encoder **out, struct vk_error *err)
{
	*out = NULL;
	struct vk_encoder *e = calloc(1, sizeof *e);
	if (!e) return vk_fail(err, VK_E_NOMEM, "encoder: out of memory");
	vk_arena_init(&e->arena, (size_t)1 << 20);
	e->level = vk_cpu_best();
	enum vk_status st = vk_model_config_read(dir, &e->arena, &e->config, err);
	if (!st) st = open_weights(e, dir, err);
	if (st) {
		vk_encoder_close(e);
		return st;
	}
	fill_info(e);
	fingerprint(e);
	*out = e;
	return VK_OK;
}

void vk_encoder_close(struct vk_encoder *e)
{
	if (!e) return;
	vk_bert_free(e->bert);
	vk_safetensors_close(e->file);
	vk_wordpiece_free(e->config.tokenizer);
	vk_arena_free(&e->arena);
	free(e);
}

const struct vk_encoder_info *vk_encoder_info(const struct vk_encoder *e) { return &e->info; }

struct vk_bytes vk_encoder_prompt(const struct vk_encoder *e, const char *name)
{
	for (size_t i = 0; i < e->config.prompts_n; i++)
		if (strcmp(e->config.prompts[i].name, name) == 0) return e->config.prompts[i].text;
	return (struct vk_bytes){"", 0};
}

/* ---- run ---- */

struct tile {
	size_t first, n; /* of wave.order */
};

struct wave {
	const struct vk_encoder *e;
	struct vk_encoder_text *texts;
	size_t n;
	float *rows;		    /* n x dims */
	uint32_t *ids;		    /* n x tokens_max; pages that no text reaches cost nothing */
	struct vk_bert_text *order; /* by length, longest first */
	struct tile *tiles;
	size_t tiles_n;
	_Atomic int failed; /* first enum vk_status that went wrong, or 0 */
};

static enum vk_status check_texts(const struct vk_encoder_text *texts, size_t n,
				  struct vk_error *err)
{
	for (size_t i = 0; i < n; i++)
		if (vk_utf8_valid(texts[i].text.p, texts[i].text.n) != texts[i].text.n ||
		    vk_utf8_valid(texts[i].prefix.p, texts[i].prefix.n) != texts[i].prefix.n)
			return vk_fail(err, VK_E_INVALID, "text %zu is not valid UTF-8", i);
	return VK_OK;
}

static void set_failed(struct wave *w, enum vk_status st)
{
	int none = 0;
	if (st) atomic_compare_exchange_strong(&w->failed, &none, (int)st);
}

/* A prefix is part of the text, also of its first word: they are joined before tokenising. */
static enum vk_status tokenise_text(const struct vk_encoder *e, struct vk_encoder_text *t,
				    uint32_t *ids)
{
	struct vk_bytes text = t->text;
	char *joined = NULL;
	if (t->prefix.n) {
		joined = malloc(t->prefix.n + text.n);
		if (!joined) return VK_E_NOMEM;
		memcpy(joined, t->prefix.p, t->prefix.n);
		if (text.n) memcpy(joined + t->prefix.n, text.p, text.n);
		text = (struct vk_bytes){joined, t->prefix.n + text.n};
	}
	t->tokens = (uint32_t)vk_wordpiece_encode(e->config.tokenizer, text, ids,
						  e->info.tokens_max, &t->truncated);
	free(joined);
	return VK_OK;
}

static void tokenise_job(void *arg, size_t job)
{
	struct wave *w = arg;
	size_t end = (job + 1) * TOKENISE_TEXTS < w->n ? (job + 1) * TOKENISE_TEXTS : w->n;
	for (size_t i = job * TOKENISE_TEXTS; i < end; i++) {
		uint32_t *ids = w->ids + i * w->e->info.tokens_max;
		set_failed(w, tokenise_text(w->e, &w->texts[i], ids));
		w->order[i] =
		    (struct vk_bert_text){ids, w->texts[i].tokens, w->rows + i * w->e->info.dims};
	}
}

static int longest_first(const void *a, const void *b)
{
	const struct vk_bert_text *x = a, *y = b;
	if (x->n != y->n) return x->n > y->n ? -1 : 1;
	return x->row < y->row ? -1 : x->row > y->row; /* a fixed order, for a fixed result */
}

/* Sorts and cuts: as many tiles as make each about TILE_TOKENS, rounded up to a multiple of
 * the threads where that leaves them large enough. */
static void cut_tiles(struct wave *w, unsigned threads)
{
	size_t total = 0, aim, tiles;
	qsort(w->order, w->n, sizeof w->order[0], longest_first);
	for (size_t i = 0; i < w->n; i++) total += w->order[i].n;
	tiles = (total + TILE_TOKENS - 1) / TILE_TOKENS;
	tiles = (tiles + threads - 1) / threads * threads;
	aim = (total + tiles - 1) / tiles;
	if (aim < TILE_TOKENS_MIN) aim = TILE_TOKENS_MIN;
	for (size_t i = 0; i < w->n; w->tiles_n++) {
		struct tile *t = &w->tiles[w->tiles_n];
		size_t tokens = 0;
		t->first = i;
		while (i < w->n && (i == t->first || tokens + w->order[i].n / 2 <= aim))
			tokens += w->order[i++].n;
		t->n = i - t->first;
	}
}

static void normalise(float *row, size_t dims)
{
	double sum = 0;
	for (size_t i = 0; i < dims; i++) sum += (double)row[i] * row[i];
	float norm = (float)sqrt(sum);
	if (norm < 1e-12f) norm = 1e-12f; /* as the reference: a zero row stays zero */
	for (size_t i = 0; i < dims; i++) row[i] /= norm;
}

static void run_tile(struct wave *w, const struct tile *t, struct vk_team *team)
{
	const struct vk_bert_text *texts = w->order + t->first;
	set_failed(w, vk_bert_forward(w->e->bert, team, texts, t->n));
	for (size_t i = 0; i < t->n && w->e->info.normalize; i++)
		normalise(texts[i].row, w->e->info.dims);
}

static void tile_job(void *arg, size_t i)
{
	struct wave *w = arg;
	run_tile(w, &w->tiles[i], NULL);
}

static void run_tiles(struct wave *w, struct vk_pool *pool)
{
	if (w->tiles_n > 1) {
		vk_pool_for(pool, w->tiles_n, tile_job, w);
		return;
	}
	struct vk_team *team = vk_team_open(pool, TEAM_HELPERS_MAX);
	run_tile(w, &w->tiles[0], team);
	vk_team_close(team);
}

static enum vk_status run_wave(struct wave *w, struct vk_pool *pool)
{
	unsigned threads = pool ? vk_pool_threads(pool) : 1;
	if (threads > vk_cpu_cores()) threads = vk_cpu_cores();
	w->tiles_n = 0;
	vk_pool_for(pool, (w->n + TOKENISE_TEXTS - 1) / TOKENISE_TEXTS, tokenise_job, w);
	if (atomic_load(&w->failed)) return (enum vk_status)atomic_load(&w->failed);
	cut_tiles(w, threads);
	run_tiles(w, pool);
	return (enum vk_status)atomic_load(&w->failed);
}

enum vk_status vk_encoder_run(const struct vk_encoder *e, struct vk_pool *pool,
			      struct vk_encoder_text *texts, size_t n, float *rows,
			      struct vk_error *err)
{
	enum vk_status st = check_texts(texts, n, err);
	if (st || n == 0) return st;
	size_t most = n < WAVE_TEXTS ? n : WAVE_TEXTS;
	struct wave w = {.e = e};
	w.ids = malloc(most * e->info.tokens_max * sizeof *w.ids);
	w.order = malloc(most * sizeof *w.order);
	w.tiles = malloc(most * sizeof *w.tiles);
	if (!w.ids || !w.order || !w.tiles) st = VK_E_NOMEM;
	for (size_t i = 0; i < n && !st; i += w.n) {
		w.texts = texts + i;
		w.n = n - i < most ? n - i : most;
		w.rows = rows + i * e->info.dims;
		st = run_wave(&w, pool);
	}
	free(w.ids);
	free(w.order);
	free(w.tiles);
	return st ? vk_fail(err, st, "encoder: out of memory") : VK_OK;
}
