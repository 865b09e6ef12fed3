/*
 * A table of families, a list of series in each, shards of counters in each series.
 *
 * A thread takes a shard number at its first use and keeps it, so two threads rarely write one cache
 * line; reading adds the shards up. A histogram's shard holds its buckets and its sum, and its count
 * is the sum of its buckets as read, so a scrape never shows a count that its buckets deny.
 */
#include "server/metrics.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/num.h"

#define LABELS_MAX 3
#define LABEL_TEXT_MAX 128
#define SERIES_MAX 256 /* a family; then "other" */
#define SHARDS 8
#define HASH_BUCKETS 64

enum type { COUNTER, HISTOGRAM };

static const struct family {
	const char *name, *help;
	enum type type;
	const char *label[LABELS_MAX + 1]; /* NULL-terminated */
} families[VK_M_COUNT] = {
	[VK_M_HTTP_REQUESTS] = {"veckeep_http_requests_total", "HTTP requests answered.", COUNTER,
				{"route", "method", "code"}},
	[VK_M_HTTP_SECONDS] = {"veckeep_http_request_duration_seconds",
			       "Time from a complete request head to the end of its reply.", HISTOGRAM, {"route"}},
	[VK_M_EMBED_INPUTS] = {"veckeep_embed_inputs_total", "Inputs of embedding requests by how they were answered.",
			       COUNTER, {"space", "result"}},
	[VK_M_EMBED_TOKENS] = {"veckeep_embed_tokens_total",
			       "Tokens asked for (logical), paid for (billed) and not paid for (saved).", COUNTER,
			       {"space", "kind"}},
	[VK_M_PROVIDER_REQUESTS] = {"veckeep_provider_requests_total", "Calls to providers by HTTP status.", COUNTER,
				    {"provider", "code"}},
	[VK_M_PROVIDER_SECONDS] = {"veckeep_provider_request_duration_seconds", "Duration of calls to providers.",
				   HISTOGRAM, {"provider"}},
	[VK_M_PROVIDER_RETRIES] = {"veckeep_provider_retries_total", "Calls to providers that were tried again.",
				   COUNTER, {"provider"}},
};

/* Upper bounds: dense where hits live, then up to a client's patience. */
static const struct {
	uint64_t us;
	const char *seconds;
} bounds[] = {
	{25, "2.5e-05"},    {50, "5e-05"},     {100, "0.0001"},	  {250, "0.00025"}, {500, "0.0005"},
	{1000, "0.001"},    {2500, "0.0025"},  {5000, "0.005"},	  {10000, "0.01"},  {25000, "0.025"},
	{50000, "0.05"},    {100000, "0.1"},   {250000, "0.25"},  {500000, "0.5"},  {1000000, "1"},
	{2500000, "2.5"},   {5000000, "5"},    {10000000, "10"},  {30000000, "30"}, {60000000, "60"},
};
#define BOUNDS (sizeof bounds / sizeof *bounds)

struct shard {
	_Alignas(64) _Atomic uint64_t value; /* a counter, or a histogram's sum in us */
	_Atomic uint64_t bucket[];	     /* histograms: BOUNDS + 1 */
};

struct vk_series {
	struct vk_series *next;      /* of its family, in order of birth */
	struct vk_series *next_hash;
	const struct family *family;
	char label[LABELS_MAX][LABEL_TEXT_MAX];
	size_t shard_size;
	char *shards;
};

struct vk_metrics {
	pthread_mutex_t lock; /* the lists; not the numbers */
	struct series {
		struct vk_series *first, **tail;
		struct vk_series *bucket[HASH_BUCKETS];
		struct vk_series *other;
		size_t n;
	} of[VK_M_COUNT];
};

static unsigned my_shard(void)
{
	static atomic_uint next;
	static _Thread_local unsigned mine; /* + 1; 0: not yet given out */
	if (!mine) mine = atomic_fetch_add(&next, 1) % SHARDS + 1;
	return mine - 1;
}

static struct shard *shard_at(const struct vk_series *m, unsigned i)
{
	return (struct shard *)(void *)(m->shards + i * m->shard_size);
}

struct vk_metrics *vk_metrics_new(void)
{
	struct vk_metrics *m = calloc(1, sizeof *m);
	if (!m) return NULL;
	pthread_mutex_init(&m->lock, NULL);
	for (unsigned i = 0; i < VK_M_COUNT; i++) m->of[i].tail = &m->of[i].first;
	return m;
}

void vk_metrics_free(struct vk_metrics *m)
{
	if (!m) return;
	for (unsigned i = 0; i < VK_M_COUNT; i++)
		while (m->of[i].first) {
			struct vk_series *s = m->of[i].first;
			m->of[i].first = s->next;
			free(s->shards);
			free(s);
		}
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* ---- look-up ---- */

static unsigned labels_of(const struct family *f)
{
	unsigned n = 0;
	while (f->label[n]) n++;
	return n;
}

static bool same_labels(const struct vk_series *m, const char *const *label, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (strncmp(m->label[i], label[i], LABEL_TEXT_MAX - 1)) return false;
	return true;
}

static unsigned hash_labels(const char *const *label, unsigned n)
{
	uint64_t h = 0;
	for (unsigned i = 0; i < n; i++) h = vk_hash64(h, label[i], strnlen(label[i], LABEL_TEXT_MAX - 1));
	return (unsigned)(h % HASH_BUCKETS);
}

static struct vk_series *make(const struct family *f, const char *const *label, unsigned n)
{
	struct vk_series *m = calloc(1, sizeof *m);
	if (!m) return NULL;
	m->family = f;
	size_t size = sizeof(struct shard) + (f->type == HISTOGRAM ? (BOUNDS + 1) * sizeof(uint64_t) : 0);
	m->shard_size = (size + 63) / 64 * 64;
	m->shards = aligned_alloc(64, SHARDS * m->shard_size);
	if (!m->shards) {
		free(m);
		return NULL;
	}
	memset(m->shards, 0, SHARDS * m->shard_size);
	for (unsigned i = 0; i < n; i++) snprintf(m->label[i], LABEL_TEXT_MAX, "%s", label[i]);
	return m;
}

static struct vk_series *append(struct series *s, struct vk_series *m)
{
	if (!m) return NULL;
	*s->tail = m;
	s->tail = &m->next;
	s->n++;
	return m;
}

/* Full, or no memory: everything else is one series. NULL only when there was never memory. */
static struct vk_series *other(struct series *s, const struct family *f, unsigned n)
{
	static const char *const label[LABELS_MAX] = {"other", "other", "other"};
	if (!s->other) s->other = append(s, make(f, label, n));
	return s->other;
}

static struct vk_series *find_or_make(struct series *s, const struct family *f, const char *const *label, unsigned n)
{
	struct vk_series **b = &s->bucket[hash_labels(label, n)];
	for (struct vk_series *m = *b; m; m = m->next_hash)
		if (same_labels(m, label, n)) return m;
	struct vk_series *m = s->n < SERIES_MAX ? append(s, make(f, label, n)) : NULL;
	if (!m) return other(s, f, n);
	m->next_hash = *b;
	*b = m;
	return m;
}

struct vk_series *vk_metric(struct vk_metrics *m, enum vk_metric_id id, ...)
{
	assert(id < VK_M_COUNT);
	const struct family *f = &families[id];
	unsigned n = labels_of(f);
	const char *label[LABELS_MAX];
	va_list ap;
	va_start(ap, id);
	for (unsigned i = 0; i < n; i++) label[i] = va_arg(ap, const char *);
	va_end(ap);
	pthread_mutex_lock(&m->lock);
	struct vk_series *found = find_or_make(&m->of[id], f, label, n);
	pthread_mutex_unlock(&m->lock);
	return found;
}

/* ---- counting; a series that there was no memory for counts nothing ---- */

void vk_metric_add(struct vk_series *c, uint64_t n)
{
	if (!c) return;
	assert(c->family->type == COUNTER);
	atomic_fetch_add_explicit(&shard_at(c, my_shard())->value, n, memory_order_relaxed);
}

void vk_metric_observe_us(struct vk_series *h, uint64_t us)
{
	if (!h) return;
	assert(h->family->type == HISTOGRAM);
	unsigned b = 0;
	while (b < BOUNDS && us > bounds[b].us) b++;
	struct shard *s = shard_at(h, my_shard());
	atomic_fetch_add_explicit(&s->value, us, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->bucket[b], 1, memory_order_relaxed);
}

static uint64_t sum_values(const struct vk_series *m)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < SHARDS; i++)
		sum += atomic_load_explicit(&shard_at(m, i)->value, memory_order_relaxed);
	return sum;
}

static uint64_t sum_bucket(const struct vk_series *m, unsigned b)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < SHARDS; i++)
		sum += atomic_load_explicit(&shard_at(m, i)->bucket[b], memory_order_relaxed);
	return sum;
}

uint64_t vk_metric_value(const struct vk_series *c)
{
	return c ? sum_values(c) : 0;
}

/* ---- text ---- */

/* Cut at a character's start: half a character is not UTF-8. */
void vk_metrics_escape(char *dst, size_t cap, const char *value)
{
	size_t n = 0;
	if (!cap) return;
	for (; *value; value++) {
		bool two = *value == '\\' || *value == '"' || *value == '\n';
		if (n + 1 + two >= cap) break;
		if (two) dst[n++] = '\\';
		dst[n++] = *value == '\n' ? 'n' : *value;
	}
	if (*value && ((unsigned char)*value & 0xc0) == 0x80) {
		while (n && ((unsigned char)dst[n - 1] & 0xc0) == 0x80) n--;
		if (n) n--;
	}
	dst[n] = 0;
}

static void write_head(struct vk_buf *out, const char *name, const char *help, const char *type)
{
	vk_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_number(struct vk_buf *out, double v)
{
	char text[VK_F64_TEXT_MAX];
	if (isnan(v)) vk_buf_puts(out, "NaN");
	else if (isinf(v)) vk_buf_puts(out, v > 0 ? "+Inf" : "-Inf");
	else vk_buf_put(out, text, (size_t)(vk_f64_print(text, v) - text));
}

static void write_labels(struct vk_buf *out, const struct vk_series *m, const char *le)
{
	char text[2 * LABEL_TEXT_MAX];
	vk_buf_putc(out, '{');
	for (unsigned i = 0; m->family->label[i]; i++) {
		vk_metrics_escape(text, sizeof text, m->label[i]);
		vk_buf_printf(out, "%s%s=\"%s\"", i ? "," : "", m->family->label[i], text);
	}
	if (le) vk_buf_printf(out, ",le=\"%s\"", le);
	vk_buf_puts(out, "} ");
}

static void write_counter(struct vk_buf *out, const struct vk_series *m)
{
	vk_buf_puts(out, m->family->name);
	write_labels(out, m, NULL);
	vk_buf_printf(out, "%llu\n", (unsigned long long)sum_values(m));
}

static void write_histogram(struct vk_buf *out, const struct vk_series *m)
{
	uint64_t count = 0;
	for (unsigned b = 0; b <= BOUNDS; b++) {
		count += sum_bucket(m, b);
		vk_buf_printf(out, "%s_bucket", m->family->name);
		write_labels(out, m, b < BOUNDS ? bounds[b].seconds : "+Inf");
		vk_buf_printf(out, "%llu\n", (unsigned long long)count);
	}
	vk_buf_printf(out, "%s_sum", m->family->name);
	write_labels(out, m, NULL);
	write_number(out, (double)sum_values(m) / 1e6);
	vk_buf_printf(out, "\n%s_count", m->family->name);
	write_labels(out, m, NULL);
	vk_buf_printf(out, "%llu\n", (unsigned long long)count);
}

void vk_metrics_write(struct vk_metrics *m, struct vk_buf *out)
{
	static void (*const write[])(struct vk_buf *, const struct vk_series *) = {[COUNTER] = write_counter,
										   [HISTOGRAM] = write_histogram};
	static const char *const type[] = {[COUNTER] = "counter", [HISTOGRAM] = "histogram"};
	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < VK_M_COUNT; i++) {
		const struct family *f = &families[i];
		write_head(out, f->name, f->help, type[f->type]);
		for (struct vk_series *s = m->of[i].first; s; s = s->next) write[f->type](out, s);
	}
	pthread_mutex_unlock(&m->lock);
}

void vk_metrics_gauge(struct vk_buf *out, const char *name, const char *help, const char *labels, double value)
{
	if (help) write_head(out, name, help, "gauge");
	vk_buf_puts(out, name);
	if (labels && *labels) vk_buf_printf(out, "{%s}", labels);
	vk_buf_putc(out, ' ');
	write_number(out, value);
	vk_buf_putc(out, '\n');
}
