/* Who we are, whether we live and are ready, metrics, our own OpenAPI document. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "index/collections.h"
#include "server/app.h"
#include "server/data.h"
#include "server/flows.h"
#include "server/qdrant_index.h"

#define QDRANT_VERSION "1.19.0" /* of the API; clients compare it with their own */
#define DISK_FREE_MIN ((uint64_t)256 << 20)

void vk_flow_json(struct vk_req *req, struct vk_jw *w)
{
	vk_buf_free(&req->reply.body);
	vk_buf_init(&req->reply.body, VK_LIMIT_REPLY_BYTES);
	req->reply.status = 200;
	req->reply.may_gzip = true;
	vk_jw_init(w, &req->reply.body);
}

static void reply_text(struct vk_req *req, int status, const char *text)
{
	vk_buf_init(&req->reply.body, 4096);
	vk_buf_puts(&req->reply.body, text);
	req->reply.status = status;
	req->reply.content_type = "text/plain; charset=utf-8";
}

void vk_flow_root(void *app, struct vk_req *req)
{
	struct vk_jw w;
	(void)app;
	vk_flow_json(req, &w);
	vk_jw_object(&w);
	vk_jw_kv(&w, "title", "veckeep");
	vk_jw_kv(&w, "version", QDRANT_VERSION);
	vk_jw_kv(&w, "commit", NULL);
	vk_jw_kv(&w, "veckeep", VK_VERSION);
	vk_jw_object_end(&w);
}

/* The words of probes are Qdrant's: some of its users compare them. What we know beyond them is at /v1/health. */
void vk_flow_livez(void *app, struct vk_req *req)
{
	(void)app;
	reply_text(req, 200, "healthz check passed");
}

static bool is_ready(const struct vk_app *app, const struct vk_req *req)
{
	return app->ready && !req->draining;
}

void vk_flow_readyz(void *app, struct vk_req *req)
{
	bool ready = is_ready(app, req);
	reply_text(req, ready ? 200 : 503, ready ? "all shards are ready" : "some shards are not ready");
}

static bool disk_low(const struct vk_app *app, uint64_t *free_bytes)
{
	struct statvfs fs;
	if (statvfs(app->datadir.path, &fs)) return false;
	*free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return *free_bytes < DISK_FREE_MIN;
}

struct troubles { /* open collections with one; numbers alone: whoever asks for our health need not have a key */
	uint64_t broken, full;
};

static void count_troubles(void *arg, struct vk_bytes name, struct vk_collection *c)
{
	struct troubles *t = arg;
	(void)name;
	t->broken += vk_kv_is_broken(vk_collection_kv(c));
	t->full += vk_kv_is_full(vk_collection_kv(c));
}

/* Degraded is not dead: a provider that is down, a full cache, a collection on a bad disk are no reason to take us out. */
void vk_flow_v1_health(void *arg, struct vk_req *req)
{
	struct vk_app *app = arg;
	struct vk_cachedb_stats s;
	uint64_t free_bytes = 0;
	vk_cachedb_stats(app->cache, &s);
	bool low = disk_low(app, &free_bytes), ready = is_ready(app, req);
	struct troubles t = {0};
	vk_collections_each_open(app->collections, count_troubles, &t);
	struct vk_jw w;
	vk_flow_json(req, &w);
	req->reply.status = ready ? 200 : 503;
	vk_jw_object(&w);
	vk_jw_kb(&w, "ready", ready);
	if (req->draining) vk_jw_kv(&w, "reason", "draining");
	vk_jw_key(&w, "degraded");
	vk_jw_array(&w);
	if (s.full) vk_jw_cstr(&w, "cache_full");
	if (low) vk_jw_cstr(&w, "disk_low");
	if (t.broken) vk_jw_cstr(&w, "collection_broken");
	if (t.full) vk_jw_cstr(&w, "collection_full");
	if (app->offline) vk_jw_cstr(&w, "offline");
	pthread_mutex_lock(&app->lock);
	if (app->config_error[0]) vk_jw_cstr(&w, "config_refused");
	if (app->config.insecure) vk_jw_cstr(&w, "insecure");
	pthread_mutex_unlock(&app->lock);
	vk_jw_array_end(&w);
	vk_jw_key(&w, "collections");
	vk_jw_object(&w);
	vk_jw_ki(&w, "broken", (int64_t)t.broken);
	vk_jw_ki(&w, "full", (int64_t)t.full);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
}

/* --- metrics --- */

struct metrics_out {
	struct vk_buf *b;
	bool head; /* first series of a family: write HELP and TYPE */
	const char *family;
};

static void provider_gauges(void *arg, const struct vk_provider_stats *s)
{
	struct metrics_out *o = arg;
	char name[128], labels[160];
	vk_metrics_escape(name, sizeof name, s->name);
	snprintf(labels, sizeof labels, "provider=\"%s\"", name);
#define G(id, help, value) vk_metrics_gauge(o->b, id, o->head ? help : NULL, labels, (double)(value))
	G("veckeep_provider_breaker_state", "0 closed, 1 open, 2 half open", s->breaker);
	G("veckeep_provider_in_flight", "Calls under way", s->in_flight);
	G("veckeep_provider_queued_inputs", "Inputs that wait for this provider", s->queued);
	G("veckeep_provider_calls_total", "Calls ended", s->calls);
	G("veckeep_provider_calls_ok_total", "Calls answered well", s->calls_ok);
	G("veckeep_provider_calls_transient_total", "Calls that failed for now", s->calls_transient);
	G("veckeep_provider_calls_refused_total", "Calls refused for good", s->calls_refused);
	G("veckeep_provider_retries_total", "Calls made again", s->retries);
	G("veckeep_provider_inputs_total", "Inputs embedded", s->inputs);
	G("veckeep_provider_tokens_total", "Tokens billed", s->tokens);
	G("veckeep_provider_latency_seconds_sum", "Time of calls answered well",
	  (double)s->latency_us_sum / 1e6);
	o->head = false;
}

static void space_gauges(void *arg, const struct vk_space_stats *s)
{
	struct metrics_out *o = arg;
	char id[256], labels[300];
	vk_metrics_escape(id, sizeof id, s->id);
	snprintf(labels, sizeof labels, "space=\"%s\"", id);
	G("veckeep_embed_requests_total", "Requests", s->requests);
	G("veckeep_embed_errors_total", "Requests that failed", s->errors);
	const struct {
		const char *result;
		uint64_t value;
	} inputs[] = {{"hit", s->hits}, {"miss", s->misses}, {"coalesced", s->coalesced}},
	  tokens[] = {{"logical", s->logical_tokens}, {"billed", s->billed_tokens},
		      {"saved", s->saved_tokens}};
	for (size_t i = 0; i < 3; i++) {
		snprintf(labels, sizeof labels, "space=\"%s\",result=\"%s\"", id, inputs[i].result);
		vk_metrics_gauge(o->b, "veckeep_embed_inputs_total",
				 o->head && !i ? "Inputs by how they were met" : NULL, labels,
				 (double)inputs[i].value);
	}
	for (size_t i = 0; i < 3; i++) {
		snprintf(labels, sizeof labels, "space=\"%s\",kind=\"%s\"", id, tokens[i].result);
		vk_metrics_gauge(o->b, "veckeep_embed_tokens_total",
				 o->head && !i ? "Tokens without a cache, billed, saved" : NULL, labels,
				 (double)tokens[i].value);
	}
	snprintf(labels, sizeof labels, "space=\"%s\"", id);
	G("veckeep_money_billed_total", "Money billed, in the space's currency",
	  (double)s->billed_micros / 1e6);
	G("veckeep_money_saved_total", "Money saved, in the space's currency",
	  (double)s->saved_micros / 1e6);
#undef G
	o->head = false;
}

static void store_gauges(struct vk_app *app, struct vk_buf *b)
{
	struct vk_cachedb_stats s;
	struct vk_engine_gauges g;
	struct vk_http_stats h;
	uint64_t free_bytes = 0;
	vk_cachedb_stats(app->cache, &s);
	vk_engine_gauges(app->engine, &g);
	vk_http_stats(app->http, &h);
	disk_low(app, &free_bytes);
	const struct {
		const char *name, *help;
		double value;
	} list[] = {
		{"veckeep_cache_rows", "Rows held", (double)s.rows},
		{"veckeep_cache_row_bytes", "Bytes of the rows' vectors", (double)s.row_bytes},
		{"veckeep_cache_used_bytes", "Pages in use", (double)s.used_bytes},
		{"veckeep_cache_budget_bytes", "Pages that may be in use", (double)s.budget_bytes},
		{"veckeep_cache_map_bytes", "Size of the map", (double)s.map_bytes},
		{"veckeep_cache_free_bytes", "Free pages inside the file", (double)s.free_bytes},
		{"veckeep_cache_puts_total", "Rows put", (double)s.puts},
		{"veckeep_cache_commits_total", "Transactions committed", (double)s.commits},
		{"veckeep_cache_evicted_total", "Rows evicted", (double)s.evicted},
		{"veckeep_cache_corrupt_total", "Records that did not check", (double)s.corrupt},
		{"veckeep_cache_dropped_total", "Rows not stored", (double)s.dropped},
		{"veckeep_cache_queued_bytes", "Bytes waiting for the writer", (double)s.queued_bytes},
		{"veckeep_cache_journal_bytes", "Bytes in the journal", (double)s.journal_bytes},
		{"veckeep_cache_oldest_reader_lag_txns", "Age of the oldest reader in transactions",
		 (double)s.oldest_reader_lag_txns},
		{"veckeep_cache_full", "1: caching has stopped for lack of room", s.full},
		{"veckeep_flights", "Texts in the air", (double)g.flights},
		{"veckeep_queued_inputs", "Inputs that wait for a provider", (double)g.queued_inputs},
		{"veckeep_operations", "Requests that wait", (double)g.operations},
		{"veckeep_http_connections", "Open connections", (double)h.connections},
		{"veckeep_http_accepted_total", "Connections accepted", (double)h.accepted},
		{"veckeep_http_parked", "Requests parked", (double)h.parked},
		{"veckeep_http_reaped_total", "Slow connections closed", (double)h.reaped},
		{"veckeep_http_rejected_total", "Requests rejected at the door", (double)h.rejected},
		{"veckeep_disk_free_bytes", "Free bytes of the data directory's disk", (double)free_bytes},
		{"veckeep_uptime_seconds", "Time since start",
		 (double)(vk_mono_ms() - app->started_ms) / 1000},
	};
	for (size_t i = 0; i < sizeof list / sizeof *list; i++)
		vk_metrics_gauge(b, list[i].name, list[i].help, "", list[i].value);
	vk_metrics_gauge(b, "veckeep_build_info", "Version", "version=\"" VK_VERSION "\"", 1);
}

/* --- collections that are open, a family at a time --- */

#define COLLECTIONS_SHOWN 256

struct collection_gauges {
	size_t n;
	struct {
		char labels[600];
		struct vk_collection_stats stats;
	} one[COLLECTIONS_SHOWN];
};

static void gather(void *arg, struct vk_bytes name, struct vk_collection *c)
{
	struct collection_gauges *g = arg;
	char plain[256], escaped[520];
	if (g->n == COLLECTIONS_SHOWN) return;
	if (vk_collection_stats(c, &g->one[g->n].stats) && !g->one[g->n].stats.kv.broken) return;
	snprintf(plain, sizeof plain, "%.*s", (int)name.n, name.p);
	vk_metrics_escape(escaped, sizeof escaped, plain);
	snprintf(g->one[g->n].labels, sizeof g->one[0].labels, "collection=\"%s\"", escaped);
	g->n++;
}

static void family(struct vk_buf *b, const struct collection_gauges *g, const char *name, const char *help,
		   double (*value)(const struct vk_collection_stats *s))
{
	for (size_t i = 0; i < g->n; i++)
		vk_metrics_gauge(b, name, i ? NULL : help, g->one[i].labels, value(&g->one[i].stats));
}

static double g_points(const struct vk_collection_stats *s) { return (double)s->points; }
static double g_rows(const struct vk_collection_stats *s) { return (double)s->rows; }
static double g_tail(const struct vk_collection_stats *s) { return (double)s->tail_rows; }
static double g_used(const struct vk_collection_stats *s) { return (double)s->kv.used_bytes; }
static double g_commits(const struct vk_collection_stats *s) { return (double)s->kv.commits; }
static double g_broken(const struct vk_collection_stats *s) { return s->kv.broken; }
static double g_full(const struct vk_collection_stats *s) { return s->kv.full; }
static double g_lag(const struct vk_collection_stats *s) { return (double)s->kv.reader_lag; }

static bool count_one(void *arg, struct vk_bytes name)
{
	(void)name;
	++*(size_t *)arg;
	return true;
}

static void collection_gauges(struct vk_app *app, struct vk_buf *b)
{
	struct collection_gauges *g = calloc(1, sizeof *g);
	size_t all = 0;
	(void)vk_collections_each(app->collections, count_one, &all);
	vk_metrics_gauge(b, "veckeep_collections", "Collections", "", (double)all);
	if (!g) return;
	vk_collections_each_open(app->collections, gather, g);
	vk_metrics_gauge(b, "veckeep_collections_open", "Collections that are open", "", (double)g->n);
	family(b, g, "veckeep_collection_points", "Points of an open collection", g_points);
	family(b, g, "veckeep_collection_rows", "Rows of its vectors", g_rows);
	family(b, g, "veckeep_collection_tail_rows", "Rows that are not sealed yet", g_tail);
	family(b, g, "veckeep_collection_used_bytes", "Pages in use", g_used);
	family(b, g, "veckeep_collection_commits_total", "Transactions committed", g_commits);
	family(b, g, "veckeep_collection_oldest_reader_lag_txns", "Age of the oldest reader in transactions", g_lag);
	family(b, g, "veckeep_collection_broken", "1: its file failed, writes are refused until it is restored", g_broken);
	family(b, g, "veckeep_collection_full", "1: the disk has no room, writes are refused until it has", g_full);
	free(g);
}

static void process_gauges(struct vk_buf *b)
{
	unsigned long long pages = 0, rss = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (f) {
		if (fscanf(f, "%llu %llu", &pages, &rss) == 2)
			vk_metrics_gauge(b, "process_resident_memory_bytes", "Resident memory", "",
					 (double)rss * (double)sysconf(_SC_PAGESIZE));
		fclose(f);
	}
}

void vk_flow_metrics(void *arg, struct vk_req *req)
{
	struct vk_app *app = arg;
	struct vk_buf *b = &req->reply.body;
	vk_buf_init(b, VK_LIMIT_REPLY_BYTES);
	req->reply.status = 200;
	req->reply.may_gzip = true;
	req->reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
	vk_metrics_write(app->metrics, b);
	struct metrics_out o = {.b = b, .head = true};
	vk_engine_provider_stats(app->engine, provider_gauges, &o);
	o.head = true;
	vk_engine_space_stats(app->engine, space_gauges, &o);
	store_gauges(app, b);
	collection_gauges(app, b);
	vk_index_gauges(app, b);
	process_gauges(b);
}

void vk_flow_openapi(void *app, struct vk_req *req)
{
	(void)app;
	vk_buf_init(&req->reply.body, VK_LIMIT_REPLY_BYTES);
	vk_buf_put(&req->reply.body, vk_data_openapi_json, vk_data_openapi_json_size);
	req->reply.status = 200;
	req->reply.may_gzip = true;
}
