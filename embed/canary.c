/*
 * A provider joins a space only after its vectors agree with the space's own: a few fixed texts
 * are embedded by both and compared by cosine. Lazily: when a route of several providers is first
 * used. The first provider of the route defines the space (its canary rows are the reference, kept
 * in the catalog); until there is a reference, another one may not serve: a space is never
 * defined by its fallback. A provider that failed stays out until its definition changes or a
 * day has passed; a verdict older than a day is checked again while it goes on serving, which is
 * how a silent change of a hosted model is noticed.
 */
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "embed/encoder.h"
#include "embed/engine_impl.h"
#include "simd/vec.h"
#include "store/record.h"

#define RECHECK_MS ((int64_t)24 * 3600 * 1000)
#define RETRY_MS 10000

/* Short and plain, accents, other scripts, emoji, digits, white space, code, one long text. */
static const char *const texts[] = {
	"The quick brown fox jumps over the lazy dog.",
	"canary",
	"Grüße aus Köln, déjà vu à l'Île-de-France",
	"向量数据库是什么?",
	"Как перенести векторы в другое облако?",
	"データベースを移行する方法を説明してください。",
	"👩‍🚀🌍 emoji, ZWJ and flags 🇨🇭",
	"Invoice 2024-07-31: total 1,234.56 EUR (VAT 19%)",
	"  leading spaces\tand a tab",
	"int main(void) { return strlen(s) > 0 ? s[0] : -1; }",
	"WHERE price < 100 AND category = 'books' ORDER BY price DESC",
	"A longer passage about embeddings: a model maps each text to a point so that texts of "
	"similar meaning lie near each other, and a search asks for the points nearest to a "
	"question. Points of two models must never be compared, even when they have as many "
	"numbers each, because the axes mean different things.",
};
#define TEXTS (sizeof texts / sizeof *texts)
_Static_assert(TEXTS <= VK_CANARY_ROWS_MAX, "fits its record");

static void absorb(struct vk_sha256 *s, const char *word)
{
	if (word) vk_sha256_update(s, word, strlen(word));
	vk_sha256_update(s, word ? "\x01" : "\x02", 2); /* with the NUL: no two lists read alike */
}

/* What a verdict is about: whatever of a hop can change its vectors. Another address or model under
 * the same provider's name has to prove itself anew. */
static uint64_t definition_of(const struct vk_hop *hop)
{
	const struct vk_provider *p = hop->provider;
	const char *const words[] = {p->dialect->name, p->base_url,   hop->model,	p->path,
				     p->api_version,   p->dims_field, p->role_field,	p->extra_body,
				     p->encoder ? vk_encoder_info(p->encoder)->fingerprint : NULL};
	uint8_t digest[VK_SHA256_SIZE];
	struct vk_sha256 s;
	vk_sha256_init(&s);
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) absorb(&s, words[i]);
	for (size_t i = 0; p->role_values && p->role_values[i]; i++) absorb(&s, p->role_values[i]);
	vk_sha256_final(&s, digest);
	return vk_get_u64le(digest);
}

/* Catalog keys: space NUL provider NUL definition, and space NUL for the reference (hop NULL). */
static void record_key(struct vk_buf *key, const char *space, const struct vk_hop *hop)
{
	vk_buf_init(key, 1024);
	vk_buf_puts(key, space);
	vk_buf_putc(key, 0);
	if (!hop) return;
	vk_buf_puts(key, hop->provider->name);
	vk_buf_putc(key, 0);
	vk_buf_printf(key, "%016llx", (unsigned long long)definition_of(hop));
}

/* Reads a record's rows into memory of their own (free), or NULL. */
static float *load(struct vk_engine *e, const struct vk_space *s, const struct vk_hop *hop,
		   struct vk_rec_canary *r)
{
	struct vk_buf key, value;
	float *rows = NULL;
	record_key(&key, s->id, hop);
	vk_buf_init(&value, (size_t)64 << 20);
	if (!vk_catalog_get(e->catalog, VK_TABLE_CANARY, vk_buf_bytes(&key), &value) &&
	    vk_rec_canary_decode(r, vk_buf_bytes(&value)) &&
	    (rows = malloc((size_t)r->n * r->dims * sizeof *rows + 1)))
		memcpy(rows, r->rows, (size_t)r->n * r->dims * sizeof *rows);
	r->rows = NULL;
	vk_buf_free(&key);
	vk_buf_free(&value);
	return rows;
}

static void save(struct vk_engine *e, const struct vk_space *s, const struct vk_hop *hop,
		 const struct vk_rec_canary *r)
{
	struct vk_buf key, value;
	record_key(&key, s->id, hop);
	vk_buf_init(&value, (size_t)64 << 20);
	vk_rec_canary_encode(&value, r);
	struct vk_catalog_op op = {VK_TABLE_CANARY, vk_buf_bytes(&key), vk_buf_bytes(&value)};
	if (value.failed || vk_catalog_commit(e->catalog, &op, 1))
		vk_log(VK_LOG_WARN, "cannot keep the canary of space %s in the catalog", s->id);
	vk_buf_free(&key);
	vk_buf_free(&value);
}

struct canary *vk_canary_get(struct vk_engine *e, struct provider_rt *rt, const struct vk_space *s,
			     const struct vk_hop *hop)
{
	struct canary *c = rt->canaries;
	uint64_t definition = definition_of(hop);
	while (c && (c->space != s->num || c->definition != definition)) c = c->next;
	if (c) return c;
	if (!(c = calloc(1, sizeof *c))) return NULL;
	struct vk_rec_canary r;
	float *rows = load(e, s, hop, &r); /* once a provider and space: a short read */
	c->space = s->num;
	c->definition = definition;
	c->cosine = -2;
	if (rows) {
		c->state = r.verdict ? VK_CANARY_OK : VK_CANARY_FAILED;
		c->cosine = r.cosine_min;
		c->checked_ms = r.when_ms;
	}
	free(rows);
	c->next = rt->canaries;
	rt->canaries = c;
	return c;
}

enum vk_canary_state vk_engine_canary(struct vk_engine *e, const struct vk_space *s,
				      const struct vk_provider *p, float *cosine)
{
	struct todo none = {0};
	vk_engine_lock(e);
	size_t hop = 0;
	while (hop < s->route_n && s->route[hop].provider != p) hop++;
	struct provider_rt *rt = hop < s->route_n ? vk_provider_rt(e, p) : NULL;
	struct canary *c = rt ? vk_canary_get(e, rt, s, &s->route[hop]) : NULL;
	enum vk_canary_state state = c ? c->state : VK_CANARY_NONE;
	*cosine = c ? c->cosine : -2;
	vk_engine_unlock_do(e, &none);
	return state;
}

/* A batch of the canary's texts to this hop; lock held. */
static struct batch *canary_batch(struct vk_engine *e, struct vk_registry *reg,
				  const struct vk_space *s, const struct vk_hop *hop)
{
	struct batch *b = vk_batch_new(e, NULL, hop, NULL, TEXTS);
	struct vk_call_item *items = calloc(TEXTS, sizeof *items);
	if (!b || !items) {
		free(items);
		if (b) vk_batch_free(b);
		return NULL;
	}
	for (size_t i = 0; i < TEXTS; i++) items[i].text = vk_bytes_of(texts[i]);
	b->flights = (struct flight **)(void *)items; /* freed with the batch; never read as flights */
	b->registry = vk_registry_ref(reg);
	b->call.space = s;
	/* A space that wants a role would refuse "none", and never decide. */
	b->call.role = s->role_required && s->roles_n > 1 && !s->roles[0].value ? &s->roles[1]
									       : &s->roles[0];
	b->call.items = items;
	b->rt = vk_provider_rt(e, hop->provider);
	b->rt->in_flight++;
	b->holds_slot = true;
	return b;
}

static void start(struct vk_engine *e, struct vk_registry *reg, const struct vk_space *s, size_t hop,
		  struct canary *c, struct todo *t)
{
	struct batch *b = canary_batch(e, reg, s, &s->route[hop]);
	if (!b) return;
	b->canary = c;
	if (c->state != VK_CANARY_OK) c->state = VK_CANARY_PENDING;
	c->retry_ms = UINT64_MAX; /* one at a time */
	b->next = t->send;
	t->send = b;
}

bool vk_canary_allows(struct vk_engine *e, struct vk_registry *reg, const struct vk_space *s,
		      size_t hop, uint64_t now_ms, bool *pending, struct todo *t)
{
	*pending = false;
	if (s->route_n < 2) return true;
	/* A forwarded bearer is the caller's: it pays for its own texts, not for our comparisons. Nor
	 * may a caller whose bearer was refused go on at our expense. */
	if (s->route[hop].provider->api_key.from == VK_SECRET_CLIENT ||
	    s->route[0].provider->api_key.from == VK_SECRET_CLIENT)
		return hop == 0;
	struct provider_rt *rt = vk_provider_rt(e, s->route[hop].provider);
	struct canary *c = rt ? vk_canary_get(e, rt, s, &s->route[hop]) : NULL;
	if (!c) return false;
	bool decided = c->state == VK_CANARY_OK || c->state == VK_CANARY_FAILED;
	bool due = !decided || vk_wall_ms() - c->checked_ms > RECHECK_MS;
	if (t && due && now_ms >= c->retry_ms) start(e, reg, s, hop, c, t);
	/* Once there is a reference the others are asked too, so that a failover finds them ready. */
	if (hop == 0 && t && c->state == VK_CANARY_OK)
		for (size_t h = 1; h < s->route_n; h++) {
			bool ignored;
			vk_canary_allows(e, reg, s, h, now_ms, &ignored, t);
		}
	*pending = c->state == VK_CANARY_PENDING;
	/* The first provider of the route defines the space and serves meanwhile. */
	return c->state == VK_CANARY_OK || (hop == 0 && c->state != VK_CANARY_FAILED);
}

static float worst_cosine(const float *a, const float *b, size_t n, size_t dims)
{
	double worst = 1;
	for (size_t i = 0; i < n; i++) {
		double c = vk_vec_cosine(vk_cpu_best(), a + i * dims, b + i * dims, dims);
		if (!(c > worst)) worst = c;
	}
	return (float)worst;
}

/* The verdict of an answer against the reference; makes the reference where there is none and this
 * is the provider that defines the space. False: nothing could be said. */
static bool compare(struct batch *b, const struct vk_answer *a, float *cosine)
{
	const struct vk_space *s = b->call.space;
	struct vk_rec_canary r;
	float *reference = load(b->e, s, NULL, &r);
	bool fits = reference && r.n == TEXTS && r.dims == s->dims;
	bool said = true;
	if (fits) {
		*cosine = worst_cosine(reference, a->rows, TEXTS, s->dims);
	} else if (b->hop == &s->route[0]) {
		*cosine = 1;
		r = (struct vk_rec_canary){.when_ms = vk_wall_ms(), .cosine_min = 1, .verdict = 1,
					   .dims = s->dims, .n = TEXTS,
					   .rows = (const uint8_t *)(const void *)a->rows};
		save(b->e, s, NULL, &r);
	} else {
		said = false;
	}
	free(reference);
	return said;
}

void vk_canary_judge(struct batch *b, const struct vk_answer *a)
{
	const struct vk_space *s = b->call.space;
	struct canary *c = b->canary;
	struct todo none = {0};
	float cosine = -2;
	bool said = a && compare(b, a, &cosine), good = said && cosine >= s->canary_min;
	if (said) {
		struct vk_rec_canary r = {.when_ms = vk_wall_ms(), .cosine_min = cosine,
					  .verdict = good, .dims = s->dims, .n = TEXTS,
					  .rows = (const uint8_t *)(const void *)a->rows};
		save(b->e, s, b->hop, &r);
		vk_log(good ? VK_LOG_INFO : VK_LOG_ERROR,
		       "space %s: provider %s %s (worst canary cosine %.6f, needed %.6f)", s->id,
		       b->hop->provider->name, good ? "agrees" : "does NOT agree and stays out", cosine,
		       (double)s->canary_min);
	}
	vk_engine_lock(b->e);
	if (said) {
		c->state = good ? VK_CANARY_OK : VK_CANARY_FAILED;
		c->cosine = cosine;
		c->checked_ms = vk_wall_ms();
		c->retry_ms = 0;
	} else {
		if (c->state == VK_CANARY_PENDING) c->state = VK_CANARY_NONE;
		c->retry_ms = vk_mono_ms() + RETRY_MS;
	}
	vk_engine_unlock_do(b->e, &none);
}
