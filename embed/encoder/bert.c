/*
 * Load: every tensor that the network needs is found by name and its shape checked. The first text packs the weights: a
 * server that encodes nothing starts without that work and that memory. Both are the same walk over the tensors, once
 * without memory to pack into.
 * Forward: `forward` below is the network; one function a step follows.
 *
 * Widths: activations have a stride of `wide`, the hidden size rounded up to whole panels, so
 * kernels may write whole panels; the padding is zero weights and stays zero.
 * Memory of a tile of T tokens: x, q k v, context, and the feed-forward's inner rows for one
 * block of tokens only: (5 wide) T + 96 inner floats, then the scratch of one head.
 */
#include "embed/encoder/bert.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK_ROWS 96 /* of the feed-forward: its inner rows stay in the second cache */
#define QUERY_ROWS 48 /* of attention: scores of this many queries at a time */
#define ALIGNMENT 64

struct matrix { /* k x n in panels, then n rounded up floats of bias */
	float *panels, *bias;
	size_t n, k;
};

struct norm {
	float *gain, *shift;
};

struct layer {
	struct matrix qkv; /* three blocks of `wide` columns */
	struct matrix out, inner, outer;
	struct norm attended, fed;
};

struct vk_bert {
	const struct vk_encoder_kernels *kernels;
	const struct vk_tensor *words, *positions, *types;
	struct norm embedded;
	struct layer *layers;
	uint32_t hidden, heads, head, layers_n;
	size_t wide, inner;
	float eps;
	enum vk_pooling pooling;
	const struct vk_safetensors *file;
	const char *prefix; /* "" or "bert.": checkpoints of larger models nest the encoder */
	pthread_mutex_t packing;
	_Atomic bool packed;
	float *memory; /* all packed weights, one piece; NULL before the first text */
	size_t used;   /* floats of it */
};

/* ---- load ---- */

struct loader {
	struct vk_bert *b;
	float *rows; /* scratch: VK_PANEL rows of the widest matrix; NULL: nothing is packed, only looked up */
	struct vk_error *err;
};

static enum vk_status find(const struct loader *l, const char *name, uint64_t rows, uint64_t cols,
			   const struct vk_tensor **out)
{
	char full[192];
	snprintf(full, sizeof full, "%s%s", l->b->prefix, name);
	const struct vk_tensor *t = vk_safetensors_find(l->b->file, full);
	if (!t)
		return vk_fail(l->err, VK_E_INVALID, "model.safetensors: tensor '%s' is missing",
			       full);
	if (t->type == VK_TENSOR_OTHER)
		return vk_fail(l->err, VK_E_INVALID,
			       "model.safetensors: tensor '%s' is not F32, F16 or BF16", full);
	bool fits = cols ? t->rank == 2 && t->shape[0] >= rows && t->shape[1] == cols
			 : t->rank == 1 && t->shape[0] == rows;
	if (!fits)
		return vk_fail(l->err, VK_E_INVALID,
			       "model.safetensors: tensor '%s' does not have the shape that "
			       "config.json gives it",
			       full);
	*out = t;
	return VK_OK;
}

/* Zeroed floats of the one piece; the walk without memory counted them, so it cannot run out. */
static float *take(struct vk_bert *b, size_t n)
{
	float *p = b->memory ? b->memory + b->used : NULL;
	b->used += (n + 15) / 16 * 16;
	return p;
}

static struct matrix new_matrix(struct vk_bert *b, size_t n, size_t k)
{
	size_t columns = vk_panel_round(n);
	return (struct matrix){take(b, columns * k), take(b, columns), n, k};
}

/* PyTorch stores a linear layer as rows of outputs: each group of VK_PANEL rows is turned
 * into one panel. `first` is the column where this tensor begins in m. */
static enum vk_status pack(struct loader *l, struct matrix *m, size_t first, size_t n,
			   const char *name)
{
	char full[160];
	const struct vk_tensor *w, *bias;
	snprintf(full, sizeof full, "%s.weight", name);
	enum vk_status st = find(l, full, n, m->k, &w);
	snprintf(full, sizeof full, "%s.bias", name);
	if (!st) st = find(l, full, n, 0, &bias);
	if (st) return st;
	if (w->shape[0] != n)
		return vk_fail(l->err, VK_E_INVALID, "model.safetensors: '%s' has too many rows",
			       name);
	if (!l->rows) return VK_OK;
	vk_tensor_read(bias, 0, n, m->bias + first);
	for (size_t row = 0; row < n; row += VK_PANEL) {
		size_t rows = n - row < VK_PANEL ? n - row : VK_PANEL;
		float *panel = m->panels + (first + row) * m->k;
		vk_tensor_read(w, row * m->k, rows * m->k, l->rows);
		for (size_t k = 0; k < m->k; k++)
			for (size_t r = 0; r < rows; r++)
				panel[k * VK_PANEL + r] = l->rows[r * m->k + k];
	}
	return VK_OK;
}

static enum vk_status load_norm(struct loader *l, struct norm *norm, const char *name)
{
	char full[160];
	const struct vk_tensor *gain, *shift;
	snprintf(full, sizeof full, "%s.weight", name);
	enum vk_status st = find(l, full, l->b->hidden, 0, &gain);
	snprintf(full, sizeof full, "%s.bias", name);
	if (!st) st = find(l, full, l->b->hidden, 0, &shift);
	if (st) return st;
	*norm = (struct norm){take(l->b, l->b->hidden), take(l->b, l->b->hidden)};
	if (!l->rows) return VK_OK;
	vk_tensor_read(gain, 0, l->b->hidden, norm->gain);
	vk_tensor_read(shift, 0, l->b->hidden, norm->shift);
	return VK_OK;
}

static enum vk_status load_layer(struct loader *l, unsigned i, struct layer *layer)
{
	struct vk_bert *b = l->b;
	char name[96];
	enum vk_status st = VK_OK;
#define NAME(part) (snprintf(name, sizeof name, "encoder.layer.%u.%s", i, part), name)
	layer->qkv = new_matrix(b, 3 * b->wide, b->hidden);
	layer->out = new_matrix(b, b->hidden, b->hidden);
	layer->inner = new_matrix(b, b->inner, b->hidden);
	layer->outer = new_matrix(b, b->hidden, b->inner);
	st = pack(l, &layer->qkv, 0, b->hidden, NAME("attention.self.query"));
	if (!st) st = pack(l, &layer->qkv, b->wide, b->hidden, NAME("attention.self.key"));
	if (!st) st = pack(l, &layer->qkv, 2 * b->wide, b->hidden, NAME("attention.self.value"));
	if (!st) st = pack(l, &layer->out, 0, b->hidden, NAME("attention.output.dense"));
	if (!st) st = load_norm(l, &layer->attended, NAME("attention.output.LayerNorm"));
	if (!st) st = pack(l, &layer->inner, 0, b->inner, NAME("intermediate.dense"));
	if (!st) st = pack(l, &layer->outer, 0, b->hidden, NAME("output.dense"));
	if (!st) st = load_norm(l, &layer->fed, NAME("output.LayerNorm"));
#undef NAME
	return st;
}

/* What is packed. */
static enum vk_status load_weights(struct loader *l)
{
	l->b->used = 0;
	enum vk_status st = load_norm(l, &l->b->embedded, "embeddings.LayerNorm");
	for (unsigned i = 0; i < l->b->layers_n && !st; i++) st = load_layer(l, i, &l->b->layers[i]);
	return st;
}

static enum vk_status look_up(struct loader *l, const struct vk_model_config *c)
{
	struct vk_bert *b = l->b;
	enum vk_status st =
	    find(l, "embeddings.word_embeddings.weight", c->vocab, c->hidden, &b->words);
	if (!st)
		st = find(l, "embeddings.position_embeddings.weight", c->positions, c->hidden,
			  &b->positions);
	if (!st) st = find(l, "embeddings.token_type_embeddings.weight", 1, c->hidden, &b->types);
	return st ? st : load_weights(l);
}

/* A header may promise sizes that the file does not have: the layers are looked up before
 * memory is taken for them, so nobody allocates gigabytes by a small file. */
static bool file_could_hold(const struct vk_safetensors *file, size_t weights)
{
	return weights <=
	       vk_safetensors_bytes(file).n; /* 2 bytes a weight at least; padding is small */
}

enum vk_status vk_bert_load(const struct vk_safetensors *file, const struct vk_model_config *c,
			    const struct vk_encoder_kernels *kernels, struct vk_bert **out,
			    struct vk_error *err)
{
	*out = NULL;
	size_t h = c->hidden, wide = vk_panel_round(h);
	size_t raw = c->layers * (4 * h * h + 2 * h * c->inner);
	if (!file_could_hold(file, raw))
		return vk_fail(err, VK_E_INVALID,
			       "model.safetensors is too small for config.json's %u layers",
			       c->layers);
	struct vk_bert *b = calloc(1, sizeof *b);
	enum vk_status st = VK_E_NOMEM;
	if (!b) goto out;
	*b = (struct vk_bert){.kernels = kernels,
			      .file = file,
			      .prefix = "",
			      .hidden = c->hidden,
			      .heads = c->heads,
			      .head = c->hidden / c->heads,
			      .layers_n = c->layers,
			      .wide = wide,
			      .inner = c->inner,
			      .eps = c->eps,
			      .pooling = c->pooling};
	pthread_mutex_init(&b->packing, NULL);
	b->layers = calloc(c->layers, sizeof *b->layers);
	if (!b->layers) goto out;
	if (!vk_safetensors_find(file, "embeddings.word_embeddings.weight")) b->prefix = "bert.";
	struct loader l = {b, NULL, err};
	st = look_up(&l, c);
out:
	if (st == VK_E_NOMEM) vk_fail(err, st, "model: out of memory");
	if (st) vk_bert_free(b);
	else *out = b;
	return st;
}

static enum vk_status pack_weights(struct vk_bert *b)
{
	struct vk_error err; /* every name was found when the model was loaded */
	size_t floats = b->used, bytes = (floats * sizeof(float) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	size_t rows = VK_PANEL * (b->inner > b->hidden ? b->inner : b->hidden);
	struct loader l = {b, malloc(rows * sizeof(float)), &err};
	enum vk_status st = VK_E_NOMEM;
	if (!l.rows || !(b->memory = aligned_alloc(ALIGNMENT, bytes))) goto out;
	memset(b->memory, 0, bytes);
	st = load_weights(&l);
out:
	if (st) {
		free(b->memory);
		b->memory = NULL;
		b->used = floats; /* the next text tries again */
	}
	free(l.rows);
	return st;
}

/* Whoever comes meanwhile waits: the first text needs all of it. */
static enum vk_status pack_once(struct vk_bert *b)
{
	enum vk_status st = VK_OK;
	if (atomic_load_explicit(&b->packed, memory_order_acquire)) return VK_OK;
	pthread_mutex_lock(&b->packing);
	if (!atomic_load_explicit(&b->packed, memory_order_relaxed)) {
		st = pack_weights(b);
		atomic_store_explicit(&b->packed, !st, memory_order_release);
	}
	pthread_mutex_unlock(&b->packing);
	return st;
}

void vk_bert_free(struct vk_bert *b)
{
	if (!b) return;
	pthread_mutex_destroy(&b->packing);
	free(b->layers);
	free(b->memory);
	free(b);
}

/* ---- forward ---- */

struct tile {
	const struct vk_bert *b;
	struct vk_team *team;
	const struct vk_bert_text *texts;
	size_t n, tokens;
	size_t *first;	     /* of each text: its first row */
	size_t longest;	     /* tokens of the longest text */
	float *x;	     /* tokens x wide */
	float *qkv;	     /* tokens x 3 wide */
	float *context;	     /* tokens x context_wide */
	size_t context_wide; /* wide + a panel: a head's last panel may reach past its columns */
	float *scratch;	     /* one piece per part of a team's loop */
	size_t scratch_part; /* floats of it */
	const struct layer *layer;
	size_t parts;	   /* of a step: one for each of the team */
	size_t head_parts; /* the same of attention; 1 where heads share a panel */
};

/* Sum of the three embeddings, normalised. */
static void embed(struct tile *t)
{
	const struct vk_bert *b = t->b;
	size_t h = b->hidden;
	float *row = t->x, *add = t->scratch;
	for (size_t i = 0; i < t->n; i++)
		for (size_t p = 0; p < t->texts[i].n; p++, row += b->wide) {
			vk_tensor_read(b->words, (uint64_t)t->texts[i].ids[p] * h, h, row);
			vk_tensor_read(b->types, 0, h, add);
			for (size_t j = 0; j < h; j++) row[j] += add[j];
			vk_tensor_read(b->positions, (uint64_t)p * h, h, add);
			for (size_t j = 0; j < h; j++) row[j] += add[j];
			memset(row + h, 0, (b->wide - h) * sizeof *row);
			b->kernels->layer_norm(row, h, b->embedded.gain, b->embedded.shift, b->eps);
		}
}

/* Columns [part of parts) of a matrix, in whole panels. */
struct columns {
	size_t first, n;
};

static struct columns columns_of(size_t n, size_t part, size_t parts)
{
	size_t panels = vk_panel_round(n) / VK_PANEL;
	size_t a = panels * part / parts, z = panels * (part + 1) / parts;
	return (struct columns){a * VK_PANEL, (z - a) * VK_PANEL};
}

static void multiply(const struct vk_bert *b, const struct matrix *m, struct columns c, size_t rows,
		     const float *in, size_t in_stride, float *out, size_t out_stride,
		     enum vk_gemm_end end)
{
	if (c.n)
		b->kernels->gemm(rows, c.n, m->k, in, in_stride, m->panels + c.first * m->k,
				 m->bias + c.first, out + c.first, out_stride, end);
}

/* One head's keys as a matrix head x n, its values as n x head, both in panels. */
static void pack_head(const struct tile *t, const float *k, const float *v, size_t n, float *keys,
		      float *values)
{
	size_t stride = 3 * t->b->wide, head = t->b->head;
	for (size_t p = 0; p < n; p += VK_PANEL, keys += head * VK_PANEL)
		for (size_t r = 0; r < VK_PANEL; r++)
			for (size_t c = 0; c < head; c++)
				keys[c * VK_PANEL + r] = p + r < n ? k[(p + r) * stride + c] : 0;
	for (size_t p = 0; p < head; p += VK_PANEL, values += n * VK_PANEL) {
		size_t cols = head - p < VK_PANEL ? head - p : VK_PANEL;
		for (size_t r = 0; r < n; r++) {
			memcpy(values + r * VK_PANEL, v + r * stride + p, cols * sizeof *values);
			memset(values + r * VK_PANEL + cols, 0, (VK_PANEL - cols) * sizeof *values);
		}
	}
}

/* softmax(q k' / sqrt(head)) v of one head of one text, into its columns of the context. A head's
 * last panel may reach into the next head's columns with zeros: heads go in ascending order. */
static void attend_head(const struct tile *t, size_t text, size_t h, float *scratch)
{
	const struct vk_bert *b = t->b;
	size_t n = t->texts[text].n, padded = vk_panel_round(n), stride = 3 * b->wide;
	const float *q = t->qkv + t->first[text] * stride + h * b->head;
	float *keys = scratch, *values = keys + b->head * padded;
	float *scores = values + vk_panel_round(b->head) * n;
	float scale = 1.0f / sqrtf((float)b->head);
	pack_head(t, q + b->wide, q + 2 * b->wide, n, keys, values);
	for (size_t row = 0; row < n; row += QUERY_ROWS) {
		size_t rows = n - row < QUERY_ROWS ? n - row : QUERY_ROWS;
		b->kernels->gemm(rows, n, b->head, q + row * stride, stride, keys, NULL, scores,
				 padded, VK_GEMM_STORE);
		for (size_t r = 0; r < rows; r++)
			b->kernels->softmax(scores + r * padded, n, scale);
		b->kernels->gemm(rows, b->head, n, scores, padded, values, NULL,
				 t->context + (t->first[text] + row) * t->context_wide +
				     h * b->head,
				 t->context_wide, VK_GEMM_STORE);
	}
}

static size_t attend_scratch(const struct vk_bert *b, size_t longest)
{
	size_t padded = vk_panel_round(longest);
	return b->head * padded + vk_panel_round(b->head) * longest + QUERY_ROWS * padded;
}

/* A group of heads, of all texts. */
static void attend_part(void *arg, size_t part)
{
	const struct tile *t = arg;
	const struct vk_bert *b = t->b;
	size_t from = b->heads * part / t->head_parts, to = b->heads * (part + 1) / t->head_parts;
	float *scratch = t->scratch + part * t->scratch_part;
	for (size_t i = 0; i < t->n; i++)
		for (size_t h = from; h < to; h++) attend_head(t, i, h, scratch);
}

static void qkv_part(void *arg, size_t part)
{
	const struct tile *t = arg;
	struct columns c = columns_of(3 * t->b->wide, part, t->parts);
	multiply(t->b, &t->layer->qkv, c, t->tokens, t->x, t->b->wide, t->qkv, 3 * t->b->wide,
		 VK_GEMM_STORE);
}

static void out_part(void *arg, size_t part)
{
	const struct tile *t = arg;
	struct columns c = columns_of(t->b->hidden, part, t->parts);
	multiply(t->b, &t->layer->out, c, t->tokens, t->context, t->context_wide, t->x, t->b->wide,
		 VK_GEMM_ADD);
}

static void normalise(const struct tile *t, size_t row, size_t rows, const struct norm *norm)
{
	for (size_t r = row; r < row + rows; r++)
		t->b->kernels->layer_norm(t->x + r * t->b->wide, t->b->hidden, norm->gain,
					  norm->shift, t->b->eps);
}

static void attend(struct tile *t)
{
	vk_team_for(t->team, t->parts, qkv_part, t);
	vk_team_for(t->team, t->head_parts, attend_part, t);
	vk_team_for(t->team, t->parts, out_part, t);
	normalise(t, 0, t->tokens, &t->layer->attended);
}

/* The feed-forward of one block of rows. */
struct block {
	const struct tile *t;
	size_t row, rows;
	float *inner; /* rows x inner rounded up */
};

static void inner_part(void *arg, size_t part)
{
	const struct block *k = arg;
	const struct vk_bert *b = k->t->b;
	struct columns c = columns_of(b->inner, part, k->t->parts);
	multiply(b, &k->t->layer->inner, c, k->rows, k->t->x + k->row * b->wide, b->wide, k->inner,
		 vk_panel_round(b->inner), VK_GEMM_GELU);
}

static void outer_part(void *arg, size_t part)
{
	const struct block *k = arg;
	const struct vk_bert *b = k->t->b;
	struct columns c = columns_of(b->hidden, part, k->t->parts);
	multiply(b, &k->t->layer->outer, c, k->rows, k->inner, vk_panel_round(b->inner),
		 k->t->x + k->row * b->wide, b->wide, VK_GEMM_ADD);
}

static void feed(struct tile *t)
{
	for (size_t row = 0; row < t->tokens; row += BLOCK_ROWS) {
		size_t rows = t->tokens - row < BLOCK_ROWS ? t->tokens - row : BLOCK_ROWS;
		struct block k = {t, row, rows, t->scratch};
		vk_team_for(t->team, t->parts, inner_part, &k);
		vk_team_for(t->team, t->parts, outer_part, &k);
		normalise(t, row, rows, &t->layer->fed);
	}
}

static void pool_text(const struct tile *t, size_t i)
{
	const struct vk_bert *b = t->b;
	const float *x = t->x + t->first[i] * b->wide;
	float *row = t->texts[i].row;
	size_t n = b->pooling == VK_POOL_CLS ? 1 : t->texts[i].n;
	memcpy(row, x, b->hidden * sizeof *row);
	for (size_t r = 1; r < n; r++)
		for (size_t j = 0; j < b->hidden; j++) {
			float v = x[r * b->wide + j];
			if (b->pooling == VK_POOL_MEAN) row[j] += v;
			else if (v > row[j]) row[j] = v;
		}
	if (b->pooling == VK_POOL_MEAN)
		for (size_t j = 0; j < b->hidden; j++) row[j] /= (float)n;
}

static void forward(struct tile *t)
{
	embed(t);
	for (uint32_t i = 0; i < t->b->layers_n; i++) {
		t->layer = &t->b->layers[i];
		attend(t);
		feed(t);
	}
	for (size_t i = 0; i < t->n; i++) pool_text(t, i);
}

enum vk_status vk_bert_forward(struct vk_bert *b, struct vk_team *team,
			       const struct vk_bert_text *texts, size_t n)
{
	struct tile t = {
	    .b = b, .team = team, .texts = texts, .n = n, .context_wide = b->wide + VK_PANEL};
	enum vk_status st = pack_once(b);
	if (st) return st;
	t.parts = vk_team_size(team);
	t.head_parts = b->head % VK_PANEL ? 1 : t.parts;
	t.first = malloc((n + 1) * sizeof *t.first);
	if (!t.first) return VK_E_NOMEM;
	for (size_t i = 0; i < n; i++) {
		t.first[i] = t.tokens;
		t.tokens += texts[i].n;
		if (texts[i].n > t.longest) t.longest = texts[i].n;
	}
	size_t rows = t.tokens < BLOCK_ROWS ? t.tokens : BLOCK_ROWS;
	size_t feed_scratch = rows * vk_panel_round(b->inner);
	t.scratch_part = (attend_scratch(b, t.longest) + 15) / 16 * 16;
	size_t scratch = t.scratch_part * t.head_parts;
	if (scratch < feed_scratch) scratch = feed_scratch;
	if (scratch < b->wide) scratch = b->wide;
	size_t floats = t.tokens * (4 * b->wide + t.context_wide) + scratch;
	t.x = aligned_alloc(ALIGNMENT,
			    (floats * sizeof(float) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
	if (t.x) {
		t.qkv = t.x + t.tokens * b->wide;
		t.context = t.qkv + t.tokens * 3 * b->wide;
		t.scratch = t.context + t.tokens * t.context_wide;
		forward(&t);
	}
	st = t.x ? VK_OK : VK_E_NOMEM;
	free(t.x);
	free(t.first);
	return st;
}
