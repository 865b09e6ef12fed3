/*
 * What the hot codecs cost, beside a memcpy of the same bytes and beside the ordinary ways
 * (cJSON, snprintf and strtod): `bench_codec [dims]`, one line a codec, best of some rounds.
 * The peers get what a plain program would give them: no allocation inside the loop that
 * cJSON does not make itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cjson/cJSON.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/num.h"
#include "base/utf8.h"
#include "simd/base64.h"
#include "simd/crc32c.h"
#include "simd/vec.h"

/* Texts differ from call to call: over one row the branch predictor learns every length, and a
 * reader that guesses looks twice as fast as it is. */
#define ROWS 64
#define ROUNDS 15
#define ROUND_NS 3e6

struct data {
	struct {
		char *text, *text17, *body;
		size_t text_n, text17_n, body_n;
	} row_of[ROWS];
	unsigned turn;
	size_t dims, text_n, body_n;
	float *row, *row2;
	char *text; /* "[...]", shortest f32 */
	char *text17; /* as Python prints the same numbers: f64, 17 digits */
	size_t text17_n;
	char *body; /* a request around text */
	char *base64; /* of row */
	char *ascii; /* a string of as many bytes as the text */
	char *out;
	struct vk_arena arena;
	enum vk_cpu_level level;
};

static volatile double sink;

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

typedef void work_fn(struct data *d);

/* The next row's texts. */
static void turn(struct data *d)
{
	unsigned i = d->turn++ % ROWS;
	d->text = d->row_of[i].text;
	d->text_n = d->row_of[i].text_n;
	d->text17 = d->row_of[i].text17;
	d->text17_n = d->row_of[i].text17_n;
	d->body = d->row_of[i].body;
	d->body_n = d->row_of[i].body_n;
}

static double best_ns(work_fn *work, struct data *d)
{
	double best = 1e30;
	for (int r = 0; r < ROUNDS; r++) {
		double start = now_ns(), end;
		long n = 0;
		do {
			work(d);
			n++;
			end = now_ns();
		} while (end - start < ROUND_NS);
		if ((end - start) / (double)n < best) best = (end - start) / (double)n;
	}
	return best;
}

/* ---- ours ---- */

static void read_f32s(struct data *d)
{
	turn(d);
	size_t n;
	vk_f32s_read(d->text, d->text + d->text_n, (float *)(void *)d->out, d->dims, &n);
	sink = (double)n;
}

static void read_f32s_17(struct data *d)
{
	turn(d);
	size_t n;
	if (!vk_f32s_read(d->text17, d->text17 + d->text17_n, (float *)(void *)d->out, d->dims, &n)) abort();
	sink = (double)n;
}

static void print_f32s(struct data *d)
{
	sink = (double)(vk_f32s_print(d->out, d->row, d->dims) - d->out);
}

static void json_in(struct data *d)
{
	turn(d);
	struct vk_json *doc;
	if (vk_json_parse(&d->arena, (struct vk_bytes){d->body, d->body_n}, NULL, &doc, NULL)) abort();
	if (!vk_jv_f32s(vk_jv_get(vk_json_root(doc), "vector"), (float *)(void *)d->out)) abort();
	vk_json_free(doc);
	vk_arena_reset(&d->arena);
}

static void json_out(struct data *d)
{
	struct vk_buf b;
	struct vk_jw w;
	vk_buf_init(&b, (size_t)1 << 24);
	vk_jw_init(&w, &b);
	vk_jw_object(&w);
	vk_jw_kv(&w, "object", "embedding");
	vk_jw_key(&w, "embedding");
	vk_jw_f32s(&w, d->row, d->dims);
	vk_jw_object_end(&w);
	sink = (double)b.n;
	vk_buf_free(&b);
}

static void to_base64(struct data *d)
{
	vk_base64_encode(d->level, d->out, d->row, d->dims * 4);
}

static void from_base64(struct data *d)
{
	if (vk_base64_decode(d->level, d->out, d->base64, VK_BASE64_LEN(d->dims * 4)) == (size_t)-1) abort();
}

static void crc(struct data *d)
{
	sink = vk_crc32c(d->level, 0, d->row, d->dims * 4);
}

static void norm(struct data *d)
{
	bool finite;
	sink = vk_vec_norm(d->level, d->row, d->dims, &finite);
}

static void cut(struct data *d)
{
	vk_vec_cut(d->level, d->row2, d->row, d->dims);
}

static void utf8(struct data *d)
{
	sink = (double)vk_utf8_valid(d->ascii, d->text_n);
}

static void sha256(struct data *d)
{
	uint8_t out[VK_SHA256_SIZE];
	vk_sha256(d->ascii, 200, out);
	sink = out[0];
}

/* ---- peers ---- */

static void copy_row(struct data *d)
{
	memcpy(d->out, d->row, d->dims * 4);
	__asm__ volatile("" ::"r"(d->out) : "memory");
}

static void copy_text(struct data *d)
{
	memcpy(d->out, d->text, d->text_n);
	__asm__ volatile("" ::"r"(d->out) : "memory");
}

static void strtod_read(struct data *d)
{
	turn(d);
	char *p = d->text + 1;
	float *f = (float *)(void *)d->out;
	for (size_t i = 0; i < d->dims; i++, p++) f[i] = (float)strtod(p, &p);
	sink = (double)f[0];
}

static void snprintf_print(struct data *d)
{
	char *p = d->out;
	for (size_t i = 0; i < d->dims; i++) p += snprintf(p, 20, "%.9g,", (double)d->row[i]);
	sink = (double)(p - d->out);
}

static void cjson_in(struct data *d)
{
	turn(d);
	cJSON *root = cJSON_ParseWithLength(d->body, d->body_n), *n;
	float *f = (float *)(void *)d->out;
	size_t i = 0;
	cJSON_ArrayForEach(n, cJSON_GetObjectItemCaseSensitive(root, "vector")) f[i++] = (float)n->valuedouble;
	cJSON_Delete(root);
}

static void cjson_out(struct data *d)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddStringToObject(root, "object", "embedding");
	cJSON_AddItemToObject(root, "embedding", cJSON_CreateFloatArray(d->row, (int)d->dims));
	char *text = cJSON_PrintUnformatted(root);
	sink = (double)text[0];
	free(text);
	cJSON_Delete(root);
}

static void fill_row(struct data *d, unsigned r, uint64_t *rng)
{
	size_t room = d->dims * 26 + 256;
	char *text = malloc(room), *text17 = malloc(room), *body = malloc(room), *p = text17;
	for (size_t i = 0; i < d->dims; i++)
		d->row2[i] = (float)((double)(int64_t)vk_rng(rng) / 9.3e18 + (double)(int64_t)vk_rng(rng) / 9.3e18);
	vk_vec_cut(d->level, d->row, d->row2, d->dims);
	for (size_t i = 0; i < d->dims; i++)
		p += sprintf(p, "%s%.17g", i ? ", " : "[", (double)d->row2[i] / 40);
	*p++ = ']';
	d->row_of[r].text17_n = (size_t)(p - text17);
	text[0] = '[';
	p = vk_f32s_print(text + 1, d->row, d->dims);
	*p++ = ']';
	d->row_of[r].text_n = (size_t)(p - text);
	d->row_of[r].body_n = (size_t)sprintf(body, "{\"id\":12345,\"payload\":{\"city\":\"London\"},\"vector\":%.*s}",
					      (int)(p - text), text);
	d->row_of[r].text = text;
	d->row_of[r].text17 = text17;
	d->row_of[r].body = body;
}

static void fill(struct data *d)
{
	uint64_t rng = 7;
	d->row = malloc(d->dims * 4);
	d->row2 = malloc(d->dims * 4);
	d->out = malloc(d->dims * 52 + 4096);
	for (unsigned r = 0; r < ROWS; r++) fill_row(d, r, &rng);
	turn(d);
	d->base64 = malloc(VK_BASE64_LEN(d->dims * 4));
	vk_base64_encode(d->level, d->base64, d->row, d->dims * 4);
	d->ascii = malloc(d->dims * 26 + 256);
	memset(d->ascii, 'x', d->dims * 26 + 256);
	vk_arena_init(&d->arena, (size_t)1 << 24);
}

int main(int argc, char **argv)
{
	struct data d = {.dims = argc > 1 ? strtoul(argv[1], NULL, 10) : 1536, .level = vk_cpu_best()};
	if (!d.dims || d.dims > 1u << 20) return 2;
	fill(&d);
	static const struct {
		const char *name;
		work_fn *work, *copy;
		const char *peer_name;
		work_fn *peer;
	} rows[] = {
		{"f32 text, read", read_f32s, copy_text, "strtod", strtod_read},
		{"f32 text of 17 digits, read", read_f32s_17, copy_text, "strtod", strtod_read},
		{"f32 text, print", print_f32s, copy_text, "snprintf %.9g", snprintf_print},
		{"json request, parse + f32", json_in, copy_text, "cJSON", cjson_in},
		{"json reply, write", json_out, copy_text, "cJSON", cjson_out},
		{"base64, encode", to_base64, copy_row, NULL, NULL},
		{"base64, decode", from_base64, copy_row, NULL, NULL},
		{"crc32c", crc, copy_row, NULL, NULL},
		{"norm", norm, copy_row, NULL, NULL},
		{"cut", cut, copy_row, NULL, NULL},
		{"utf8, ascii of text size", utf8, copy_text, NULL, NULL},
		{"sha256 of 200 bytes", sha256, copy_row, NULL, NULL},
	};
	printf("%s, level %s, %zu dims, text %zu bytes\n", vk_cpu_name(), vk_cpu_level_name(d.level), d.dims,
	       d.text_n);
	printf("%-28s %10s %10s   %s\n", "codec", "ns", "x memcpy", "peer");
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		double ns = best_ns(rows[i].work, &d), copy = best_ns(rows[i].copy, &d);
		printf("%-28s %10.0f %10.1f", rows[i].name, ns, ns / copy);
		if (rows[i].peer) {
			double peer = best_ns(rows[i].peer, &d);
			printf("   %s: %.0f ns, %.1f times as long", rows[i].peer_name, peer, peer / ns);
		}
		printf("\n");
	}
	return 0;
}
