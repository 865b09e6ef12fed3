/* Factory strings, by descent: one function a rule of the grammar in the header. */
#include "index/faiss_plan.h"

#include <stdio.h>
#include <string.h>

#define NLIST_MAX (1u << 20)
#define HNSW_M_MAX 128u
#define PQ_BITS_MAX 12u
#define TRAIN_PER_LIST 64u    /* FAISS warns below 39 rows a centroid and cuts above 256 */
#define TRAIN_PER_CODE 256u
#define TABLE_BYTES_MAX ((uint64_t)2 << 30) /* FAISS leaves out its table of IVFPQ above that */

struct text {
	const char *p;
	struct vk_faiss_plan *plan;
	struct vk_error *err;
};

static bool eat(struct text *t, const char *word)
{
	size_t n = strlen(word);
	if (strncmp(t->p, word, n)) return false;
	t->p += n;
	return true;
}

static bool digit(const struct text *t)
{
	return *t->p >= '0' && *t->p <= '9';
}

static enum vk_status number(struct text *t, const char *what, uint32_t min, uint32_t max, uint32_t *v)
{
	uint64_t n = 0;
	const char *from = t->p;
	for (; digit(t) && n <= max; t->p++) n = n * 10 + (uint64_t)(*t->p - '0');
	if (t->p == from || n < min || n > max)
		return vk_fail(t->err, VK_E_INVALID, "FAISS factory \"%s\": %s must be %u to %u", t->plan->factory, what, min, max);
	*v = (uint32_t)n;
	return VK_OK;
}

static enum vk_status unknown(struct text *t)
{
	return vk_fail(t->err, VK_E_INVALID,
		       "FAISS factory \"%s\": \"%s\" is not known here; known are Flat, SQ4, SQ6, SQ8, SQfp16, PQ<m>, IVF<lists>,..., "
		       "HNSW<m>, with OPQ<m>, PCA<d>, RR or L2norm before and RFlat or Refine(...) after, and BFlat, BIVF<lists>, BHNSW<m>",
		       t->plan->factory, t->p);
}

/* Flat and scalar quantisers; false: none of them. */
static bool scalar(struct text *t, enum vk_faiss_code *code)
{
	static const struct {
		const char *word;
		enum vk_faiss_code code;
	} words[] = {{"Flat", VK_FAISS_FLAT}, {"SQ4", VK_FAISS_SQ4},	  {"SQ6", VK_FAISS_SQ6},
		     {"SQ8", VK_FAISS_SQ8},   {"SQfp16", VK_FAISS_FP16}};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (!eat(t, words[i].word)) continue;
		*code = words[i].code;
		return true;
	}
	return false;
}

static enum vk_status product(struct text *t, bool bits_too)
{
	struct vk_faiss_plan *p = t->plan;
	p->code = VK_FAISS_PQ;
	p->pq_bits = 8;
	enum vk_status st = number(t, "PQ's m", 1, p->code_dims, &p->pq_m);
	if (!st && p->code_dims % p->pq_m)
		st = vk_fail(t->err, VK_E_INVALID, "FAISS factory \"%s\": PQ's m must divide %u dims", p->factory, p->code_dims);
	if (!st && bits_too && eat(t, "x")) st = number(t, "PQ's bits", 1, PQ_BITS_MAX, &p->pq_bits);
	if (!st && strncmp(t->p, "fs", 2) == 0)
		return vk_fail(t->err, VK_E_INVALID, "FAISS factory \"%s\": FastScan (fs) is not taken: it needs vector code that "
			       "distributions build without", p->factory);
	if (!st) eat(t, "np");
	return st;
}

static enum vk_status code(struct text *t, bool bits_too)
{
	if (scalar(t, &t->plan->code)) return VK_OK;
	if (eat(t, "PQ")) return product(t, bits_too);
	return unknown(t);
}

static enum vk_status lists(struct text *t)
{
	struct vk_faiss_plan *p = t->plan;
	enum vk_status st = number(t, "the number of lists", 1, NLIST_MAX, &p->nlist);
	if (st || !eat(t, "_HNSW")) return st;
	p->coarse_m = 32;
	return digit(t) ? number(t, "HNSW's m", 2, HNSW_M_MAX, &p->coarse_m) : VK_OK;
}

static enum vk_status body(struct text *t)
{
	struct vk_faiss_plan *p = t->plan;
	if (eat(t, "IVF")) {
		enum vk_status st = lists(t);
		if (!st && !eat(t, ",")) st = unknown(t);
		return st ? st : code(t, true);
	}
	if (!eat(t, "HNSW")) return code(t, true);
	p->hnsw_m = 32;
	enum vk_status st = digit(t) ? number(t, "HNSW's m", 2, HNSW_M_MAX, &p->hnsw_m) : VK_OK;
	/* What comes behind the comma may be the refinement instead. */
	if (st || *t->p == 0 || strncmp(t->p, ",R", 2) == 0) return st;
	if (!eat(t, ",") && !eat(t, "_")) return unknown(t);
	return code(t, false);
}

static enum vk_status transform(struct text *t)
{
	struct vk_faiss_plan *p = t->plan;
	enum vk_status st = VK_OK;
	p->transform = true;
	if (eat(t, "OPQ")) {
		st = number(t, "OPQ's m", 1, p->dims, &p->opq_m);
		if (!st && eat(t, "_")) st = number(t, "OPQ's dims", p->opq_m, VK_FAISS_DIMS_MAX, &p->code_dims);
		if (!st && p->code_dims % p->opq_m)
			st = vk_fail(t->err, VK_E_INVALID, "FAISS factory \"%s\": OPQ's m must divide %u dims", p->factory, p->code_dims);
	} else if (eat(t, "PCA")) {
		eat(t, "W");
		eat(t, "R");
		st = number(t, "PCA's dims", 1, p->dims, &p->code_dims);
	} else if (eat(t, "RR")) {
		if (digit(t)) st = number(t, "RR's dims", 1, VK_FAISS_DIMS_MAX, &p->code_dims);
	} else if (!eat(t, "L2norm")) {
		p->transform = false;
		return VK_OK;
	}
	return st || eat(t, ",") ? st : unknown(t);
}

static enum vk_status refine(struct text *t)
{
	struct vk_faiss_plan *p = t->plan;
	p->refine = true;
	if (eat(t, ",RFlat")) return VK_OK;
	if (eat(t, ",Refine(") && scalar(t, &p->refine_code) && eat(t, ")")) return VK_OK;
	return unknown(t);
}

static enum vk_status binary(struct text *t)
{
	struct vk_faiss_plan *p = t->plan;
	p->binary = true;
	p->code_dims = (p->dims + 7) / 8 * 8;
	if (eat(t, "Flat")) return VK_OK;
	if (eat(t, "IVF")) return lists(t);
	if (eat(t, "HNSW")) return number(t, "HNSW's m", 2, HNSW_M_MAX, &p->hnsw_m);
	return unknown(t);
}

static enum vk_status parse(struct text *t)
{
	enum vk_status st;
	if (eat(t, "B")) {
		st = binary(t);
	} else {
		st = transform(t);
		if (!st) st = body(t);
		if (!st && *t->p) st = refine(t);
	}
	return st || !*t->p ? st : unknown(t);
}

static uint64_t code_bytes(const struct vk_faiss_plan *p, enum vk_faiss_code c, uint32_t dims)
{
	switch (c) {
	case VK_FAISS_FLAT: return 4ull * dims;
	case VK_FAISS_SQ4: return (dims + 1) / 2;
	case VK_FAISS_SQ6: return (6ull * dims + 7) / 8;
	case VK_FAISS_SQ8: return dims;
	case VK_FAISS_FP16: return 2ull * dims;
	case VK_FAISS_PQ: return ((uint64_t)p->pq_m * p->pq_bits + 7) / 8;
	}
	return 0;
}

/* Links of a node: 2m below, m on each level above (one node in m goes one level up), its level and its offset. */
static uint64_t node_bytes(uint32_t m)
{
	return 4ull * (2 * m + 2) + 4 + 8 + 1;
}

static void sizes(struct vk_faiss_plan *p)
{
	uint64_t row = p->binary ? p->code_dims / 8 : code_bytes(p, p->code, p->code_dims);
	uint64_t centroid = p->binary ? p->code_dims / 8 : 4ull * p->code_dims;
	if (p->nlist) row += 8;
	if (p->hnsw_m) row += node_bytes(p->hnsw_m);
	if (p->refine) row += code_bytes(p, p->refine_code, p->dims);
	p->row_bytes = row;

	p->fixed_bytes = (uint64_t)1 << 20;
	if (p->nlist) p->fixed_bytes += p->nlist * (centroid + 64 + (p->coarse_m ? node_bytes(p->coarse_m) : 0));
	if (p->transform) p->fixed_bytes += 4ull * p->dims * p->code_dims;
	if (p->code != VK_FAISS_PQ) return;
	uint64_t words = (uint64_t)1 << p->pq_bits, table = (uint64_t)p->nlist * p->pq_m * words * 4;
	p->fixed_bytes += 3 * words * 4 * p->code_dims + p->pq_m * words * words * 4; /* centroids, symmetric table */
	if (table <= TABLE_BYTES_MAX) p->fixed_bytes += table;
}

static void training(struct vk_faiss_plan *p)
{
	uint64_t min = p->nlist, good = (uint64_t)p->nlist * TRAIN_PER_LIST;
	bool ranged = p->code == VK_FAISS_SQ4 || p->code == VK_FAISS_SQ6 || p->code == VK_FAISS_SQ8 ||
		      (p->refine && p->refine_code != VK_FAISS_FLAT && p->refine_code != VK_FAISS_FP16);
	uint64_t words = p->opq_m ? 256 : 0;
	if (p->code == VK_FAISS_PQ && (uint64_t)1 << p->pq_bits > words) words = (uint64_t)1 << p->pq_bits;
	if (words > min) min = words;
	if (words * TRAIN_PER_CODE > good) good = words * TRAIN_PER_CODE;
	if (p->transform && good < 10ull * p->dims) good = 10ull * p->dims;
	if (ranged && good < 65536) good = 65536;
	if (!min && (ranged || p->transform)) min = 1;
	p->train_min = (uint32_t)min;
	p->train_good = (uint32_t)good;
}

enum vk_status vk_faiss_plan(const char *factory, uint32_t dims, struct vk_faiss_plan *out, struct vk_error *err)
{
	*out = (struct vk_faiss_plan){.dims = dims, .code_dims = dims};
	if (!factory || strlen(factory) >= VK_FAISS_FACTORY_MAX)
		return vk_fail(err, VK_E_INVALID, "a FAISS factory string has at most %u characters", VK_FAISS_FACTORY_MAX - 1);
	for (const char *p = factory; *p; p++)
		if (*p < ' ' || *p > '~') return vk_fail(err, VK_E_INVALID, "a FAISS factory string is plain ASCII");
	if (!dims || dims > VK_FAISS_DIMS_MAX) return vk_fail(err, VK_E_INVALID, "FAISS takes 1 to %u dims", VK_FAISS_DIMS_MAX);
	snprintf(out->factory, sizeof out->factory, "%s", factory);
	struct text t = {.p = out->factory, .plan = out, .err = err};
	enum vk_status st = parse(&t);
	if (st) return st;
	sizes(out);
	training(out);
	/* A graph takes milliseconds a row, everything else microseconds. */
	out->add_rows = out->hnsw_m ? 4096 : 65536;
	uint64_t in_64mb = ((uint64_t)64 << 20) / (4ull * dims);
	if (out->add_rows > in_64mb) out->add_rows = (uint32_t)in_64mb;
	return VK_OK;
}

uint64_t vk_faiss_plan_bytes(const struct vk_faiss_plan *p, uint64_t rows, uint64_t train_rows)
{
	/* Vectors that grow hold old and new for a moment; lists and graphs cannot be reserved to the byte. */
	uint64_t index = p->fixed_bytes + p->row_bytes * rows + p->row_bytes * rows / 2;
	uint64_t adding = 2ull * p->add_rows * 4 * p->code_dims;
	uint64_t copies = p->opq_m ? 4 : 2; /* of the sample: transformed, residuals; OPQ: projected, decoded, their product */
	uint64_t training = p->train_min ? copies * train_rows * 4 * (p->dims > p->code_dims ? p->dims : p->code_dims) : 0;
	return index + (adding > training ? adding : training);
}
