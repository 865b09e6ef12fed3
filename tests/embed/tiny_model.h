/*
 * A BERT of a few kilobytes with random weights, written as a model directory, and what it
 * must answer: the network once more, plainly, in double. For tests that need no real model.
 */
#ifndef VK_TESTS_EMBED_TINY_MODEL_H
#define VK_TESTS_EMBED_TINY_MODEL_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/hash.h"

#define TINY_VOCAB 12
#define TINY_POSITIONS 16
#define TINY_TENSORS_MAX 64
static const char tiny_vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n##a\n##b\n##c\n.\n";

enum tiny_dtype { TINY_F32, TINY_F16, TINY_BF16 };

struct tiny_shape {
	size_t hidden, heads, inner, layers;
	enum tiny_dtype dtype;
	const char *prefix; /* of tensor names: "" or "bert." */
};

struct tiny_tensor {
	char name[96];
	size_t rows, cols; /* cols 0: a vector */
	float *v;
};

struct tiny {
	struct tiny_shape shape;
	struct tiny_tensor t[TINY_TENSORS_MAX];
	size_t n;
	char dir[64];
};

/* What the file's type leaves of a value. */
static inline float tiny_cut(float v, enum tiny_dtype dtype)
{
	uint32_t bits;
	memcpy(&bits, &v, 4);
	if (dtype == TINY_BF16) bits &= 0xffff0000;
	if (dtype == TINY_F16) bits &= 0xffffe000; /* of normal numbers: 10 bits of fraction */
	memcpy(&v, &bits, 4);
	return v;
}

static inline void tiny_add(struct tiny *m, uint64_t *seed, const char *name, size_t rows,
			    size_t cols)
{
	struct tiny_tensor *t = &m->t[m->n++];
	size_t n = rows * (cols ? cols : 1);
	snprintf(t->name, sizeof t->name, "%s%s", m->shape.prefix, name);
	t->rows = rows;
	t->cols = cols;
	t->v = malloc(n * sizeof *t->v);
	for (size_t i = 0; i < n; i++) {
		float v = (float)((double)(vk_rng(seed) >> 11) * 0x1p-52 - 1);
		if (fabsf(v) < 0.01f) v = 0.01f; /* so that every value is a normal f16 */
		t->v[i] = tiny_cut(strstr(name, "LayerNorm.weight") ? v + 1.5f : v, m->shape.dtype);
	}
}

static inline void tiny_add_pair(struct tiny *m, uint64_t *seed, const char *name, size_t rows,
				 size_t cols)
{
	char full[96];
	snprintf(full, sizeof full, "%s.weight", name);
	tiny_add(m, seed, full, rows, cols);
	snprintf(full, sizeof full, "%s.bias", name);
	tiny_add(m, seed, full, rows, 0);
}

static inline const float *tiny_get(const struct tiny *m, const char *name)
{
	char full[96];
	snprintf(full, sizeof full, "%s%s", m->shape.prefix, name);
	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->t[i].name, full) == 0) return m->t[i].v;
	return NULL;
}

static inline void tiny_write(const struct tiny *m, const char *name, const void *p, size_t n)
{
	char path[160];
	snprintf(path, sizeof path, "%s/%s", m->dir, name);
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(p, 1, n, f) != n || fclose(f)) abort();
}

static inline void tiny_write_text(const struct tiny *m, const char *name, const char *text)
{
	tiny_write(m, name, text, strlen(text));
}

static inline void tiny_write_weights(const struct tiny *m)
{
	static const char *const names[] = {"F32", "F16", "BF16"};
	struct vk_buf head, data, file;
	vk_buf_init(&head, 1 << 20), vk_buf_init(&data, 8 << 20), vk_buf_init(&file, 9 << 20);
	vk_buf_puts(&head, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (size_t i = 0; i < m->n; i++) {
		const struct tiny_tensor *t = &m->t[i];
		size_t n = t->rows * (t->cols ? t->cols : 1), start = data.n;
		for (size_t j = 0; j < n; j++) {
			uint32_t bits;
			memcpy(&bits, &t->v[j], 4);
			uint16_t half = (uint16_t)(bits >> 16);
			if (m->shape.dtype == TINY_F16)
				half = (uint16_t)((bits >> 16 & 0x8000) |
						  ((bits >> 23 & 255) - 112) << 10 |
						  (bits >> 13 & 1023));
			if (m->shape.dtype == TINY_F32) vk_buf_put(&data, &bits, 4);
			else vk_buf_put(&data, &half, 2);
		}
		vk_buf_printf(&head, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu", t->name,
			      names[m->shape.dtype], t->rows);
		if (t->cols) vk_buf_printf(&head, ",%zu", t->cols);
		vk_buf_printf(&head, "],\"data_offsets\":[%zu,%zu]}", start, data.n);
	}
	vk_buf_putc(&head, '}');
	uint8_t size[8];
	vk_put_u64le(size, head.n);
	vk_buf_put(&file, size, 8);
	vk_buf_put(&file, head.p, head.n);
	vk_buf_put(&file, data.p, data.n);
	tiny_write(m, "model.safetensors", file.p, file.n);
	vk_buf_free(&head), vk_buf_free(&data), vk_buf_free(&file);
}

static inline void tiny_write_config(const struct tiny *m, const char *more)
{
	char text[1024];
	snprintf(
	    text, sizeof text,
	    "{\"model_type\":\"bert\",\"hidden_act\":\"gelu\",\"hidden_size\":%zu,\"num_attention_"
	    "heads\":%zu,"
	    "\"intermediate_size\":%zu,\"num_hidden_layers\":%zu,\"max_position_embeddings\":%d,"
	    "\"vocab_size\":%d,\"layer_norm_eps\":1e-12%s}",
	    m->shape.hidden, m->shape.heads, m->shape.inner, m->shape.layers, TINY_POSITIONS,
	    TINY_VOCAB, more);
	tiny_write_text(m, "config.json", text);
}

/* A directory with config.json, model.safetensors and vocab.txt, the least there can be. */
static inline void tiny_make(struct tiny *m, struct tiny_shape shape, uint64_t seed)
{
	*m = (struct tiny){.shape = shape, .dir = "/tmp/veckeep-tiny-XXXXXX"};
	size_t h = shape.hidden;
	tiny_add(m, &seed, "embeddings.word_embeddings.weight", TINY_VOCAB, h);
	tiny_add(m, &seed, "embeddings.position_embeddings.weight", TINY_POSITIONS, h);
	tiny_add(m, &seed, "embeddings.token_type_embeddings.weight", 2, h);
	tiny_add_pair(m, &seed, "embeddings.LayerNorm", h, 0);
	for (size_t i = 0; i < shape.layers; i++) {
		char name[80];
#define TINY_NAME(part) (snprintf(name, sizeof name, "encoder.layer.%zu.%s", i, part), name)
		tiny_add_pair(m, &seed, TINY_NAME("attention.self.query"), h, h);
		tiny_add_pair(m, &seed, TINY_NAME("attention.self.key"), h, h);
		tiny_add_pair(m, &seed, TINY_NAME("attention.self.value"), h, h);
		tiny_add_pair(m, &seed, TINY_NAME("attention.output.dense"), h, h);
		tiny_add_pair(m, &seed, TINY_NAME("attention.output.LayerNorm"), h, 0);
		tiny_add_pair(m, &seed, TINY_NAME("intermediate.dense"), shape.inner, h);
		tiny_add_pair(m, &seed, TINY_NAME("output.dense"), h, shape.inner);
		tiny_add_pair(m, &seed, TINY_NAME("output.LayerNorm"), h, 0);
	}
	if (!mkdtemp(m->dir)) abort();
	tiny_write_weights(m);
	tiny_write_config(m, "");
	tiny_write_text(m, "vocab.txt", tiny_vocab);
}

static inline void tiny_remove(struct tiny *m)
{
	static const char *const names[] = {"config.json",
					    "model.safetensors",
					    "vocab.txt",
					    "tokenizer.json",
					    "tokenizer_config.json",
					    "modules.json",
					    "sentence_bert_config.json",
					    "1_Pooling/config.json",
					    "config_sentence_transformers.json",
					    "1_Pooling",
					    ""};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		char path[160];
		snprintf(path, sizeof path, "%s/%s", m->dir, names[i]);
		if (remove(path) && !*names[i]) abort();
	}
	for (size_t i = 0; i < m->n; i++) free(m->t[i].v);
}

/* ---- the oracle ---- */

static inline void tiny_linear(const struct tiny *m, const char *name, const double *x, size_t k,
			       double *y, size_t n)
{
	char full[96];
	snprintf(full, sizeof full, "%s.weight", name);
	const float *w = tiny_get(m, full);
	snprintf(full, sizeof full, "%s.bias", name);
	const float *b = tiny_get(m, full);
	for (size_t i = 0; i < n; i++) {
		y[i] = b[i];
		for (size_t j = 0; j < k; j++) y[i] += (double)w[i * k + j] * x[j];
	}
}

static inline void tiny_norm(const struct tiny *m, const char *name, double *x)
{
	char full[96];
	size_t h = m->shape.hidden;
	double mean = 0, variance = 0;
	snprintf(full, sizeof full, "%s.weight", name);
	const float *w = tiny_get(m, full);
	snprintf(full, sizeof full, "%s.bias", name);
	const float *b = tiny_get(m, full);
	for (size_t i = 0; i < h; i++) mean += x[i] / (double)h;
	for (size_t i = 0; i < h; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)h;
	for (size_t i = 0; i < h; i++) x[i] = (x[i] - mean) / sqrt(variance + 1e-12) * w[i] + b[i];
}

/* The last hidden states of n tokens, n x hidden, malloc'd. */
static inline double *tiny_states(const struct tiny *m, const uint32_t *ids, size_t n)
{
	size_t h = m->shape.hidden, d = h / m->shape.heads, inner = m->shape.inner;
	const float *words = tiny_get(m, "embeddings.word_embeddings.weight");
	const float *positions = tiny_get(m, "embeddings.position_embeddings.weight");
	const float *types = tiny_get(m, "embeddings.token_type_embeddings.weight");
	double *x = malloc(n * h * sizeof *x), *q = malloc(3 * n * h * sizeof *q), *k = q + n * h,
	       *v = k + n * h;
	double *y = calloc(h + inner + h, sizeof *y), *mid = y + h, *out = mid + inner;
	for (size_t t = 0; t < n; t++) {
		for (size_t j = 0; j < h; j++)
			x[t * h + j] =
			    (double)words[ids[t] * h + j] + positions[t * h + j] + types[j];
		tiny_norm(m, "embeddings.LayerNorm", x + t * h);
	}
	for (size_t i = 0; i < m->shape.layers; i++) {
		char name[80];
		for (size_t t = 0; t < n; t++) {
			tiny_linear(m, TINY_NAME("attention.self.query"), x + t * h, h, q + t * h,
				    h);
			tiny_linear(m, TINY_NAME("attention.self.key"), x + t * h, h, k + t * h, h);
			tiny_linear(m, TINY_NAME("attention.self.value"), x + t * h, h, v + t * h,
				    h);
		}
		for (size_t t = 0; t < n; t++) {
			memset(y, 0, h * sizeof *y);
			for (size_t head = 0; head < m->shape.heads; head++) {
				double e[TINY_POSITIONS], total = 0;
				for (size_t s = 0; s < n; s++) {
					double dot = 0;
					for (size_t j = head * d; j < (head + 1) * d; j++)
						dot += q[t * h + j] * k[s * h + j];
					total += e[s] = exp(dot / sqrt((double)d));
				}
				for (size_t s = 0; s < n; s++)
					for (size_t j = head * d; j < (head + 1) * d; j++)
						y[j] += e[s] / total * v[s * h + j];
			}
			tiny_linear(m, TINY_NAME("attention.output.dense"), y, h, out, h);
			for (size_t j = 0; j < h; j++) x[t * h + j] += out[j];
			tiny_norm(m, TINY_NAME("attention.output.LayerNorm"), x + t * h);
			tiny_linear(m, TINY_NAME("intermediate.dense"), x + t * h, h, mid, inner);
			for (size_t j = 0; j < inner; j++)
				mid[j] = 0.5 * mid[j] * (1 + erf(mid[j] / sqrt(2)));
			tiny_linear(m, TINY_NAME("output.dense"), mid, inner, out, h);
			for (size_t j = 0; j < h; j++) x[t * h + j] += out[j];
			tiny_norm(m, TINY_NAME("output.LayerNorm"), x + t * h);
		}
	}
#undef TINY_NAME
	free(q);
	free(y);
	return x;
}

#endif
