/*
 * Goal: every text is bought once, whoever asks and whoever leaves; what is asked comes back right
 * or as an error; nothing is left over (flights, queue, operations), also when the engine stops.
 * Method: the real engine over a real cache, catalog and curl, against a small server of our own on
 * a loopback socket that speaks the OpenAI shape: its vector is a function of text and version, it
 * counts how often each text was bought, can hold its replies back, and refuses what says BAD.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <assert.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "embed/engine.h"

#define SEED 20261122u
#define DIMS 4
#define TEXTS 32000
#define WAIT_MS 20000

/* ---- the provider ---- */

static struct {
	int fd, port;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t change;
	bool hold;
	unsigned version, calls, held, refuse_key, own_key;
	unsigned bought[TEXTS];
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

/* Texts are "t<number>" with anything after it. */
static unsigned number_of(struct vk_bytes text)
{
	char s[16];
	snprintf(s, sizeof s, "%.*s", (int)(text.n < 15 ? text.n : 15), text.p);
	return s[0] == 't' ? (unsigned)atoi(s + 1) % TEXTS : 0;
}

static void vector(unsigned number, unsigned version, float v[DIMS])
{
	for (unsigned i = 0; i < DIMS; i++) v[i] = (float)(number + 1) + (float)(i * 1000) + (float)version / 8;
}

static void say(int fd, const char *status, const char *body)
{
	char head[160];
	int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
					    "Content-Length: %zu\r\n\r\n", status, strlen(body));
	if (send(fd, head, (size_t)n, MSG_NOSIGNAL | MSG_MORE) > 0) send(fd, body, strlen(body), MSG_NOSIGNAL);
}

/* The reply to a body: vectors, or a refusal. */
static void embed(int fd, struct vk_bytes body, bool own_key, bool bad_key, bool drift)
{
	struct vk_arena a;
	struct vk_json *doc;
	struct vk_buf out;
	struct vk_jw w;
	bool bad = false, echo = false;
	vk_arena_init(&a, 64 << 20);
	vk_buf_init(&out, 64 << 20);
	pthread_mutex_lock(&fake.lock);
	fake.calls++;
	fake.own_key += own_key;
	fake.refuse_key += bad_key;
	fake.held++;
	pthread_cond_broadcast(&fake.change);
	while (fake.hold) pthread_cond_wait(&fake.change, &fake.lock);
	fake.held--;
	unsigned version = fake.version;
	assert(!vk_json_parse(&a, body, NULL, &doc, NULL));
	const vk_jv *input = vk_jv_get(vk_json_root(doc), "input");
	struct vk_bytes s;
	size_t n = 0;
	vk_jw_init(&w, &out);
	vk_jw_object(&w);
	vk_jw_key(&w, "data");
	vk_jw_array(&w);
	for (const vk_jv *m = vk_jv_first(input); m; m = vk_jv_next(m), n++) {
		float v[DIMS];
		if (!vk_jv_str(m, &s)) s = VK_LIT("");
		bad |= memmem(s.p, s.n, "BAD", 3) != NULL;
		echo |= memmem(s.p, s.n, "ECHO", 4) != NULL;
		vector(number_of(s), version, v);
		if (drift) v[1] = -v[1];
		vk_jw_object(&w);
		vk_jw_ki(&w, "index", (int64_t)n);
		vk_jw_key(&w, "embedding");
		vk_jw_f32s(&w, v, DIMS);
		vk_jw_object_end(&w);
	}
	vk_jw_array_end(&w);
	vk_jw_key(&w, "usage");
	vk_jw_object(&w);
	vk_jw_ki(&w, "prompt_tokens", (int64_t)n);
	vk_jw_ki(&w, "total_tokens", (int64_t)n);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	for (const vk_jv *m = vk_jv_first(input); m && !bad && !bad_key && !echo; m = vk_jv_next(m))
		if (vk_jv_str(m, &s)) fake.bought[number_of(s)]++;
	pthread_mutex_unlock(&fake.lock);
	if (bad_key)
		say(fd, "401 x", "{\"error\":{\"message\":\"no such key\",\"code\":\"invalid_api_key\"}}");
	else if (echo)
		say(fd, "200 OK", "{\"error\":{\"message\":\"no own-key-12345 here\",\"code\":\"own-key-12345\"}}");
	else if (bad)
		say(fd, "400 x", "{\"error\":{\"message\":\"input is bad\"}}");
	else
		say(fd, "200 OK", vk_buf_cstr(&out));
	vk_json_free(doc);
	vk_buf_free(&out);
	vk_arena_free(&a);
}

static void *serve_connection(void *arg)
{
	int fd = (int)(intptr_t)arg;
	size_t cap = 4 << 20, have = 0;
	char *text = malloc(cap + 1);
	for (;;) {
		text[have] = 0;
		char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "content-length:");
		size_t head = end ? (size_t)(end - text) + 4 : 0;
		size_t n = end && length && length < end ? strtoul(length + 15, NULL, 10) : 0;
		if (end && have >= head + n) {
			bool own = memmem(text, head, "own-key", 7) != NULL;
			bool bad = memmem(text, head, "stranger", 8) != NULL;
			embed(fd, (struct vk_bytes){text + head, n}, own, bad,
			      !strncmp(text, "POST /drift", 11));
			memmove(text, text + head + n, have - head - n);
			have -= head + n;
			continue;
		}
		ssize_t got = recv(fd, text + have, cap - have, 0);
		if (got <= 0) break;
		have += (size_t)got;
	}
	close(fd);
	free(text);
	return NULL;
}

static void *serve(void *arg)
{
	(void)arg;
	for (int fd; (fd = accept(fake.fd, NULL, NULL)) >= 0;) {
		pthread_t t;
		if (pthread_create(&t, NULL, serve_connection, (void *)(intptr_t)fd)) close(fd);
		else pthread_detach(t);
	}
	return NULL;
}

static int start_fake(void **state)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	(void)state;
	vk_log_set_level(VK_LOG_ERROR);
#ifndef __SANITIZE_THREAD__ /* which needs its own room on them */
	pthread_attr_t small; /* stacks: depth that grows with a queue shows itself */
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 1 << 20);
	pthread_setattr_default_np(&small);
	pthread_attr_destroy(&small);
#endif
	fake.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fake.fd, (struct sockaddr *)&a, sizeof a) || listen(fake.fd, 256)) return -1;
	if (getsockname(fake.fd, (struct sockaddr *)&a, &n)) return -1;
	fake.port = ntohs(a.sin_port);
	return pthread_create(&fake.thread, NULL, serve, NULL);
}

static void hold(bool on)
{
	pthread_mutex_lock(&fake.lock);
	fake.hold = on;
	pthread_cond_broadcast(&fake.change);
	pthread_mutex_unlock(&fake.lock);
}

static void wait_held(unsigned n)
{
	pthread_mutex_lock(&fake.lock);
	while (fake.held < n) pthread_cond_wait(&fake.change, &fake.lock);
	pthread_mutex_unlock(&fake.lock);
}

/* ---- the engine and what it stands on ---- */

struct house {
	char dir[64], secret[96];
	struct vk_catalog *catalog;
	struct vk_cachedb *cache;
	struct vk_tenants *tenants;
	struct vk_upstream *upstream;
	struct vk_pool *pool;
	struct vk_registry *registry;
	struct vk_engine *engine;
	const struct vk_space *space;
	bool stopped;
};

static const char *no_env(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return NULL;
}

static struct vk_registry *load(struct house *h, const char *config)
{
	struct vk_arena a;
	struct vk_json *doc;
	struct vk_error err = {0};
	struct vk_registry *r = NULL;
	struct vk_registry_env env = {no_env, NULL};
	vk_arena_init(&a, 1 << 20);
	if (vk_json_parse(&a, vk_bytes_of(config), NULL, &doc, &err)) fail_msg("%s", err.text);
	if (vk_registry_load(vk_json_root(doc), h->dir, &env, h->catalog, NULL, &r, &err)) fail_msg("%s", err.text);
	vk_json_free(doc);
	vk_arena_free(&a);
	return r;
}

/* One provider "p" (caps as JSON members), one space "s@1" (more JSON members), or a whole config. */
static struct house *build(const char *provider, const char *space, const char *config)
{
	struct house *h = calloc(1, sizeof *h);
	struct vk_error err = {0};
	char path[160], text[2048];
	assert_non_null(h);
	pthread_mutex_lock(&fake.lock);
	memset(fake.bought, 0, sizeof fake.bought);
	fake.calls = fake.version = fake.own_key = fake.refuse_key = 0;
	fake.hold = false;
	pthread_mutex_unlock(&fake.lock);
	snprintf(h->dir, sizeof h->dir, "/tmp/vk-engine-XXXXXX");
	assert_non_null(mkdtemp(h->dir));
	snprintf(h->secret, sizeof h->secret, "%s/secret", h->dir);
	FILE *f = fopen(h->secret, "we");
	fputs("own-key-12345\n", f);
	fclose(f);
	snprintf(path, sizeof path, "%s/catalog", h->dir);
	assert_int_equal(vk_catalog_open(path, false, &h->catalog, &err), VK_OK);
	snprintf(path, sizeof path, "%s/cache", h->dir);
	struct vk_cachedb_opts cache = {.map_bytes = 64 << 20};
	assert_int_equal(vk_cachedb_open(path, &cache, &h->cache, &err), VK_OK);
	assert_int_equal(vk_tenants_open(h->catalog, &h->tenants, &err), VK_OK);
	assert_int_equal(vk_upstream_start(&h->upstream, &err), VK_OK);
	assert_non_null(h->pool = vk_pool_new(2, 256, "test"));
	snprintf(text, sizeof text,
		 "{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"http://127.0.0.1:%d/v1\","
		 "\"attempts\": 2, \"api_key\": {\"file\": \"secret\"} %s}},"
		 "\"spaces\": {\"s@1\": {\"dims\": 4, \"route\": [{\"provider\": \"p\", \"model\": \"m\"}] %s}}}",
		 fake.port, provider, space);
	h->registry = load(h, config ? config : text);
	h->space = vk_registry_space(h->registry, VK_LIT("s@1"));
	assert_non_null(h->space);
	struct vk_engine_opts opts = {.cache = h->cache, .catalog = h->catalog, .tenants = h->tenants,
				      .upstream = h->upstream, .pool = h->pool, .seed = SEED};
	assert_int_equal(vk_engine_new(&opts, &h->engine), VK_OK);
	return h;
}

static void stop(struct house *h)
{
	if (h->stopped) return;
	h->stopped = true;
	vk_engine_stop(h->engine);
	vk_upstream_stop(h->upstream);
	vk_pool_free(h->pool);
}

static void tear_down(struct house *h)
{
	struct vk_engine_gauges g;
	hold(false);
	stop(h);
	vk_cachedb_close(h->cache);
	vk_engine_gauges(h->engine, &g);
	assert_int_equal(g.flights, 0);
	assert_int_equal(g.queued_inputs, 0);
	assert_int_equal(g.operations, 0);
	assert_int_equal(g.landed_bytes, 0);
	vk_engine_free(h->engine);
	vk_registry_unref(h->registry);
	vk_tenants_close(h->tenants);
	vk_catalog_close(h->catalog);
	char command[128];
	snprintf(command, sizeof command, "rm -r %s", h->dir);
	assert_int_equal(system(command), 0);
	free(h);
}

static void settle(struct house *h) /* until nothing is on its way, to LMDB neither */
{
	struct vk_engine_gauges g;
	uint64_t until = vk_mono_ms() + WAIT_MS;
	do {
		vk_engine_gauges(h->engine, &g);
		if (g.flights) usleep(1000);
	} while (g.flights && vk_mono_ms() < until);
	assert_int_equal(g.flights, 0);
	assert_int_equal(g.queued_inputs, 0);
}

/* ---- one question ---- */

struct ask {
	struct vk_arena arena;
	struct vk_op op;
	struct vk_input *inputs;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	unsigned done;
};

static void on_done(struct vk_op *op)
{
	struct ask *q = op->arg;
	pthread_mutex_lock(&q->lock);
	q->done++;
	pthread_cond_broadcast(&q->ended);
	pthread_mutex_unlock(&q->lock);
}

static struct ask *ask_new(struct house *h, const unsigned *numbers, size_t n, const char *tail)
{
	struct ask *q = calloc(1, sizeof *q);
	assert_non_null(q);
	vk_arena_init(&q->arena, 256 << 20);
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->ended, NULL);
	q->inputs = vk_arena_calloc(&q->arena, n, sizeof *q->inputs);
	for (size_t i = 0; i < n; i++)
		q->inputs[i].text = vk_bytes_of(vk_arena_printf(&q->arena, "t%u%s", numbers[i], tail));
	q->op = (struct vk_op){.arena = &q->arena, .registry = h->registry, .space = h->space,
			       .role = &h->space->roles[0], .tenant = vk_tenants_default(h->tenants),
			       .inputs = q->inputs, .n = n, .max_age_ms = -1, .now_ms = vk_wall_ms()};
	return q;
}

static void start(struct house *h, struct ask *q)
{
	assert_int_equal(vk_op_lookup(h->engine, &q->op), VK_OK);
	vk_op_start(h->engine, &q->op, on_done, q);
}

static void await(struct ask *q)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_MS / 1000;
	pthread_mutex_lock(&q->lock);
	while (!q->done)
		if (pthread_cond_timedwait(&q->ended, &q->lock, &until)) break;
	pthread_mutex_unlock(&q->lock);
	assert_int_equal(q->done, 1);
}

static void ask_free(struct ask *q)
{
	vk_arena_free(&q->arena);
	free(q);
}

static bool rows_are(const struct ask *q, unsigned version)
{
	for (size_t i = 0; i < q->op.n; i++) {
		const struct vk_slot *s = &q->op.slots[q->op.slot_of[i]];
		float want[DIMS];
		vector(number_of(q->inputs[i].text), version, want);
		if (!s->done || memcmp(want, s->row, sizeof want) != 0) return false;
	}
	return true;
}

/* Asks for one text and waits; the hits are returned, the version must be right. */
static uint64_t once(struct house *h, unsigned number, unsigned version, bool no_cache, bool no_store,
		     int64_t later_ms)
{
	struct vk_op_counts c;
	struct ask *q = ask_new(h, &number, 1, "");
	q->op.no_cache = no_cache;
	q->op.no_store = no_store;
	q->op.now_ms += later_ms;
	start(h, q);
	await(q);
	assert_int_equal(q->op.error.st, VK_OK);
	assert_true(rows_are(q, version));
	vk_op_counts(&q->op, &c);
	ask_free(q);
	return c.hits;
}

/* ---- tests ---- */

struct crowd {
	struct house *h;
	uint64_t rng;
	bool ok;
};

static void *one_of_crowd(void *arg)
{
	struct crowd *c = arg;
	c->ok = true;
	for (int round = 0; round < 30; round++) {
		unsigned numbers[24];
		size_t n = 1 + vk_rng(&c->rng) % 24;
		for (size_t i = 0; i < n; i++) numbers[i] = (unsigned)(vk_rng(&c->rng) % 400);
		struct ask *q = ask_new(c->h, numbers, n, "");
		q->op.interactive = vk_rng(&c->rng) % 2;
		start(c->h, q);
		/* Some leave; what they asked for is bought for others and the cache all the same, or not at all. */
		bool left = vk_rng(&c->rng) % 4 == 0 && vk_op_cancel(c->h->engine, &q->op);
		if (!left) {
			await(q);
			c->ok &= !q->op.error.st && rows_are(q, 0);
		}
		c->ok &= q->done == !left;
		ask_free(q);
	}
	return NULL;
}

static void test_engine_crowd_buys_each_text_once(void **state)
{
	(void)state;
	struct house *h = build(", \"caps\": {\"items\": 7, \"concurrency\": 3}", "", NULL);
	struct crowd crowd[8];
	pthread_t t[8];
	for (unsigned i = 0; i < 8; i++) {
		crowd[i] = (struct crowd){.h = h, .rng = SEED + i};
		pthread_create(&t[i], NULL, one_of_crowd, &crowd[i]);
	}
	for (unsigned i = 0; i < 8; i++) pthread_join(t[i], NULL);
	for (unsigned i = 0; i < 8; i++) assert_true(crowd[i].ok);
	settle(h);
	for (unsigned i = 0; i < 400; i++) assert_in_range(fake.bought[i], 0, 1);
	tear_down(h);
}

static void test_engine_cancel_while_sent_fills_the_cache(void **state)
{
	(void)state;
	unsigned numbers[] = {1, 2, 1};
	struct house *h = build("", "", NULL);
	hold(true);
	struct ask *a = ask_new(h, numbers, 3, "");
	start(h, a);
	wait_held(1);
	assert_true(vk_op_cancel(h->engine, &a->op));
	assert_false(vk_op_cancel(h->engine, &a->op));
	assert_int_equal(a->done, 0);
	ask_free(a); /* nothing may point at it any more */
	hold(false);
	settle(h);
	assert_int_equal(once(h, 1, 0, false, false, 0), 1);
	assert_int_equal(once(h, 2, 0, false, false, 0), 1);
	assert_int_equal(fake.calls, 1);
	tear_down(h);
}

static void test_engine_cancel_while_queued_buys_only_what_others_want(void **state)
{
	(void)state;
	unsigned first = 1, second[] = {2, 3}, third = 3;
	struct vk_engine_gauges g;
	struct house *h = build(", \"caps\": {\"concurrency\": 1}", "", NULL);
	hold(true);
	struct ask *a = ask_new(h, &first, 1, ""), *b = ask_new(h, second, 2, ""), *c = ask_new(h, &third, 1, "");
	start(h, a);
	wait_held(1);
	start(h, b);
	start(h, c);
	vk_engine_gauges(h->engine, &g);
	assert_int_equal(g.queued_inputs, 2);
	assert_true(vk_op_cancel(h->engine, &b->op));
	vk_engine_gauges(h->engine, &g);
	assert_int_equal(g.queued_inputs, 1);
	ask_free(b);
	hold(false);
	await(a);
	await(c);
	assert_true(rows_are(c, 0));
	assert_int_equal(c->op.billed_tokens, 1); /* it goes on at the one's expense who is left */
	assert_int_equal(fake.bought[2], 0);
	assert_int_equal(fake.bought[3], 1);
	ask_free(a);
	ask_free(c);
	tear_down(h);
}

static void test_engine_no_store_is_kept_only_where_another_lets_it(void **state)
{
	(void)state;
	unsigned number = 7;
	struct house *h = build("", "", NULL);
	once(h, 5, 0, false, true, 0);
	settle(h);
	assert_int_equal(once(h, 5, 0, false, true, 0), 0);
	assert_int_equal(fake.bought[5], 2);
	hold(true);
	struct ask *a = ask_new(h, &number, 1, ""), *b = ask_new(h, &number, 1, "");
	a->op.no_store = true;
	start(h, a);
	start(h, b);
	hold(false);
	await(a);
	await(b);
	settle(h);
	assert_int_equal(once(h, 7, 0, false, true, 0), 1);
	assert_int_equal(fake.bought[7], 1);
	ask_free(a);
	ask_free(b);
	tear_down(h);
}

static void test_engine_no_cache_answers_anew_and_the_stored_row_stays(void **state)
{
	(void)state;
	struct house *h = build("", "", NULL);
	once(h, 9, 0, false, false, 0);
	settle(h);
	fake.version = 1;
	assert_int_equal(once(h, 9, 1, true, false, 0), 0);
	assert_int_equal(once(h, 9, 0, false, false, 0), 1); /* at once, while the new one is on its way to LMDB */
	settle(h);
	assert_int_equal(once(h, 9, 0, false, false, 0), 1);
	assert_int_equal(fake.bought[9], 2);
	tear_down(h);
}

static void test_engine_ttl_replaces_only_what_has_outlived_it(void **state)
{
	(void)state;
	struct house *h = build("", ", \"ttl\": \"60s\"", NULL);
	once(h, 11, 0, false, false, 0);
	settle(h);
	fake.version = 1;
	once(h, 11, 1, true, false, 0); /* fresh answer; the stored row is young and stays */
	settle(h);
	assert_int_equal(once(h, 11, 0, false, false, 0), 1);
	fake.version = 2;
	assert_int_equal(once(h, 11, 2, false, false, 61000), 0);
	settle(h);
	assert_int_equal(once(h, 11, 2, false, false, 0), 1);
	tear_down(h);
}

static void test_engine_bad_text_is_named_and_the_others_are_kept(void **state)
{
	(void)state;
	unsigned numbers[16], bad = 15;
	struct house *h = build("", "", NULL);
	for (unsigned i = 0; i < 16; i++) numbers[i] = 20 + i;
	struct ask *q = ask_new(h, numbers, 16, "");
	q->inputs[bad].text = VK_LIT("t99 BAD");
	start(h, q);
	await(q);
	assert_int_equal(q->op.error.st, VK_E_INVALID);
	assert_non_null(strstr(q->op.error.text, "(position 15)"));
	settle(h);
	for (unsigned i = 0; i < 15; i++) assert_int_equal(once(h, 20 + i, 0, false, false, 0), 1);
	assert_int_equal(fake.calls, 1 + 2 * 4); /* two halves a step, four steps */
	ask_free(q);
	tear_down(h);
}

static void test_engine_stop_ends_what_is_out_and_what_is_queued(void **state)
{
	(void)state;
	unsigned first = 1, second[] = {2, 3};
	struct house *h = build(", \"caps\": {\"concurrency\": 1}", "", NULL);
	hold(true);
	struct ask *a = ask_new(h, &first, 1, ""), *b = ask_new(h, second, 2, ""), *c = ask_new(h, second, 1, "");
	start(h, a);
	wait_held(1);
	start(h, b);
	stop(h);
	await(a);
	await(b);
	assert_int_equal(a->op.error.st, VK_E_UNAVAILABLE);
	assert_string_equal(b->op.error.code, "shutting_down");
	start(h, c); /* one that comes too late */
	await(c);
	assert_string_equal(c->op.error.code, "shutting_down");
	ask_free(a);
	ask_free(b);
	ask_free(c);
	tear_down(h);
}

static void test_engine_unreadable_secret_fails_a_long_queue(void **state)
{
	(void)state;
	enum { QUEUE = 4000 };
	unsigned number = 0;
	struct house *h = build(", \"caps\": {\"concurrency\": 1, \"items\": 1}", "", NULL);
	struct ask *a = ask_new(h, &number, 1, ""), **b = calloc(QUEUE, sizeof *b);
	hold(true);
	start(h, a);
	wait_held(1);
	for (unsigned i = 0; i < QUEUE; i++) { /* each is a batch of its own that cannot be built */
		number = i + 1;
		b[i] = ask_new(h, &number, 1, "");
		start(h, b[i]);
	}
	assert_int_equal(unlink(h->secret), 0);
	hold(false);
	await(a);
	assert_int_equal(a->op.error.st, VK_OK);
	for (unsigned i = 0; i < QUEUE; i++) {
		await(b[i]);
		assert_string_equal(b[i]->op.error.code, "secret_unreadable");
		assert_null(strstr(b[i]->op.error.text, h->secret)); /* the place is nobody's business */
		ask_free(b[i]);
	}
	assert_int_equal(fake.calls, 1);
	ask_free(a);
	free(b);
	tear_down(h);
}

static void test_engine_error_in_a_200_tells_no_secret(void **state)
{
	(void)state;
	unsigned number = 1;
	struct house *h = build("", "", NULL);
	struct ask *q = ask_new(h, &number, 1, " ECHO");
	start(h, q);
	await(q);
	assert_int_not_equal(q->op.error.st, VK_OK);
	assert_non_null(strstr(q->op.error.text, "no *** here"));
	assert_null(strstr(q->op.error.text, "own-key"));
	assert_null(strstr(q->op.error.code, "own-key"));
	assert_int_equal(fake.bought[1], 0);
	ask_free(q);
	tear_down(h);
}

/* Two providers of ours; the second one's API key or address goes in as JSON members. */
static void two_providers(char *config, size_t cap, const char *first_key, const char *second_path,
			  int weight)
{
	snprintf(config, cap,
		 "{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"http://127.0.0.1:%d/v1\","
		 "\"api_key\": %s}, \"q\": {\"dialect\": \"openai\", \"base_url\":"
		 "\"http://127.0.0.1:%d%s\", \"api_key\": \"own-key\"}}, \"spaces\": {\"s@1\": {\"dims\": 4,"
		 "\"route\": [{\"provider\": \"p\", \"model\": \"m\", \"weight\": %d},"
		 "{\"provider\": \"q\", \"model\": \"m\", \"weight\": %d}]}}}",
		 fake.port, first_key, fake.port, second_path, weight, weight);
}

static void change_registry(struct house *h, const char *config)
{
	struct vk_registry *old = h->registry;
	settle(h);
	h->registry = load(h, config);
	vk_registry_unref(old);
	h->space = vk_registry_space(h->registry, VK_LIT("s@1"));
}

/* Asks on until a provider of the route has this verdict. */
static void await_canary(struct house *h, unsigned number, size_t hop, enum vk_canary_state want)
{
	float cosine;
	uint64_t until = vk_mono_ms() + WAIT_MS;
	enum vk_canary_state is = VK_CANARY_NONE;
	while (is != want && vk_mono_ms() < until) {
		once(h, number++, 0, false, false, 0);
		is = vk_engine_canary(h->engine, h->space, h->space->route[hop].provider, &cosine);
	}
	assert_int_equal(is, want);
}

/* A house whose second provider has joined the space of the first and takes half of the calls. */
static struct house *joined(void)
{
	char config[1024];
	two_providers(config, sizeof config, "\"own-key\"", "/v1", 0);
	struct house *h = build("", "", config);
	await_canary(h, 100, 0, VK_CANARY_OK); /* the first one makes the reference */
	two_providers(config, sizeof config, "\"own-key\"", "/v1", 1);
	change_registry(h, config);
	await_canary(h, 10000, 1, VK_CANARY_OK);
	return h;
}

static void test_engine_stranger_never_falls_back_on_our_key(void **state)
{
	(void)state;
	char config[1024];
	struct house *h = joined();
	two_providers(config, sizeof config, "{\"from\": \"client\"}", "/v1", 1);
	change_registry(h, config); /* now the first one forwards, and the second has long joined */
	settle(h);
	fake.own_key = 0;
	for (unsigned number = 20000; number < 20016; number++) {
		struct ask *q = ask_new(h, &number, 1, "");
		q->op.bearer = VK_LIT("stranger");
		assert_int_equal(vk_tenants_client(h->tenants, q->op.bearer, &q->op.tenant), VK_OK);
		start(h, q);
		await(q);
		assert_int_equal(q->op.error.st, VK_E_UNAUTHORIZED);
		assert_true(vk_tenant_provisional(q->op.tenant));
		ask_free(q);
	}
	assert_int_equal(fake.own_key, 0);
	tear_down(h);
}

static void test_engine_moved_provider_proves_itself_anew(void **state)
{
	(void)state;
	char config[1024];
	float cosine;
	struct house *h = joined();
	two_providers(config, sizeof config, "\"own-key\"", "/drift/v1", 1);
	change_registry(h, config);
	assert_int_equal(vk_engine_canary(h->engine, h->space, h->space->route[1].provider, &cosine), VK_CANARY_NONE);
	await_canary(h, 20000, 1, VK_CANARY_FAILED); /* and every row on the way was the first one's */
	two_providers(config, sizeof config, "\"own-key\"", "/v1", 1);
	change_registry(h, config); /* back: what was proven holds */
	assert_int_equal(vk_engine_canary(h->engine, h->space, h->space->route[1].provider, &cosine), VK_CANARY_OK);
	tear_down(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_engine_crowd_buys_each_text_once),
		cmocka_unit_test(test_engine_cancel_while_sent_fills_the_cache),
		cmocka_unit_test(test_engine_cancel_while_queued_buys_only_what_others_want),
		cmocka_unit_test(test_engine_no_store_is_kept_only_where_another_lets_it),
		cmocka_unit_test(test_engine_no_cache_answers_anew_and_the_stored_row_stays),
		cmocka_unit_test(test_engine_ttl_replaces_only_what_has_outlived_it),
		cmocka_unit_test(test_engine_bad_text_is_named_and_the_others_are_kept),
		cmocka_unit_test(test_engine_stop_ends_what_is_out_and_what_is_queued),
		cmocka_unit_test(test_engine_unreadable_secret_fails_a_long_queue),
		cmocka_unit_test(test_engine_error_in_a_200_tells_no_secret),
		cmocka_unit_test(test_engine_stranger_never_falls_back_on_our_key),
		cmocka_unit_test(test_engine_moved_provider_proves_itself_anew),
	};
	return cmocka_run_group_tests(tests, start_fake, NULL);
}
