/* What the provider saw: counters, how often each text came, and the last hundred requests. */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

enum { TEXT_MAX = 256, BODY_MAX = 4096, ENTRIES_MAX = 4 << 20 };

struct entry {
	struct entry *next;
	uint64_t hash, count;
	size_t n;
	char key[];
};

struct fake_map {
	struct entry **buckets;
	size_t bucket_count, entry_count;
};

static uint64_t hash_of(const char *s, size_t n)
{
	uint64_t h = 0xcbf29ce484222325u;
	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
	return h ^ h >> 29;
}

static void map_grow(struct fake_map *m)
{
	size_t count = m->bucket_count ? m->bucket_count * 2 : 1024;
	struct entry **buckets = calloc(count, sizeof *buckets);
	if (!buckets)
		abort();
	for (size_t i = 0; i < m->bucket_count; i++) {
		for (struct entry *e = m->buckets[i], *next; e; e = next) {
			next = e->next;
			e->next = buckets[e->hash & (count - 1)];
			buckets[e->hash & (count - 1)] = e;
		}
	}
	free(m->buckets);
	m->buckets = buckets;
	m->bucket_count = count;
}

static void map_add(struct fake_map **map, const char *key, size_t n)
{
	if (!*map && !(*map = calloc(1, sizeof **map)))
		abort();
	struct fake_map *m = *map;
	if (m->entry_count >= m->bucket_count)
		map_grow(m);
	uint64_t hash = hash_of(key, n);
	struct entry **at = &m->buckets[hash & (m->bucket_count - 1)];
	for (struct entry *e = *at; e; e = e->next) {
		if (e->hash == hash && e->n == n && !memcmp(e->key, key, n)) {
			e->count++;
			return;
		}
	}
	if (m->entry_count >= ENTRIES_MAX)
		return;
	struct entry *e = malloc(sizeof *e + n);
	if (!e)
		abort();
	*e = (struct entry){.next = *at, .hash = hash, .count = 1, .n = n};
	memcpy(e->key, key, n);
	*at = e;
	m->entry_count++;
}

static void map_json(const struct fake_map *m, struct fake_buf *out)
{
	bool first = true;
	fake_buf_str(out, "{");
	for (size_t i = 0; m && i < m->bucket_count; i++) {
		for (const struct entry *e = m->buckets[i]; e; e = e->next) {
			if (!first)
				fake_buf_str(out, ",");
			first = false;
			fake_buf_json(out, e->key, e->n);
			fake_buf_fmt(out, ":%llu", (unsigned long long)e->count);
		}
	}
	fake_buf_str(out, "}");
}

static void map_free(struct fake_map **map)
{
	struct fake_map *m = *map;
	*map = NULL;
	if (!m)
		return;
	for (size_t i = 0; i < m->bucket_count; i++) {
		for (struct entry *e = m->buckets[i], *next; e; e = next) {
			next = e->next;
			free(e);
		}
	}
	free(m->buckets);
	free(m);
}

/* How an input is named: its text, "sha256:<hex>" when long, "tokens:1,2,3". */
static void put_name(struct fake_buf *out, const struct fake_input *in)
{
	if (in->is_tokens) {
		fake_buf_str(out, "tokens:");
		for (size_t i = 4; i + 4 <= in->n; i += 4) {
			uint32_t id;
			memcpy(&id, in->bytes + i, 4);
			fake_buf_fmt(out, i > 4 ? ",%u" : "%u", id);
		}
	} else if (in->n <= TEXT_MAX) {
		fake_buf_add(out, in->bytes, in->n);
	} else {
		unsigned char digest[EVP_MAX_MD_SIZE];
		unsigned n = 0;
		EVP_Digest(in->bytes, in->n, digest, &n, EVP_sha256(), NULL);
		fake_buf_str(out, "sha256:");
		for (unsigned i = 0; i < n; i++)
			fake_buf_fmt(out, "%02x", digest[i]);
	}
}

void fake_stats_call(struct fake *f, const struct fake_call *call)
{
	static struct fake_buf name;
	f->stats.calls++;
	f->stats.inputs += call->count;
	f->stats.tokens += call->tokens;
	for (size_t i = 0; f->opt.count_texts && i < call->count; i++) {
		name.len = 0;
		fake_buf_str(&name, call->space);
		fake_buf_add(&name, "\x1f", 1);
		fake_buf_str(&name, call->role);
		fake_buf_add(&name, "\x1f", 1);
		size_t skip = name.len;
		put_name(&name, &call->inputs[i]);
		map_add(&f->stats.by_key, name.at, name.len);
		map_add(&f->stats.by_text, name.at + skip, name.len - skip);
	}
}

static void put_member(struct fake_buf *out, const char *key, const char *value)
{
	fake_buf_str(out, ",\"");
	fake_buf_str(out, key);
	fake_buf_str(out, "\":");
	fake_buf_json_bytes(out, value, strlen(value));
}

void fake_stats_request(struct fake *f, const struct fake_request *req, const struct fake_call *call,
	int status, bool body_is_json)
{
	struct fake_buf *out = &f->stats.ring[f->stats.ring_n++ % FAKE_RING];
	out->len = 0;
	fake_buf_fmt(out, "{\"n\":%zu,\"status\":%d,\"dims\":%u,\"tokens\":%zu,\"base64\":%s", call->count, status,
		call->dims, call->tokens, call->base64 ? "true" : "false");
	put_member(out, "dialect", call->dialect->name);
	put_member(out, "path", req->path);
	put_member(out, "query", req->query);
	fake_buf_str(out, ",\"model\":");
	fake_buf_json(out, call->model, strlen(call->model));
	fake_buf_str(out, ",\"role\":");
	fake_buf_json(out, call->role, strlen(call->role));
	fake_buf_str(out, ",\"faults\":[");
	for (int i = 0; i < f->fired_count; i++)
		fake_buf_fmt(out, i ? ",\"%s\"" : "\"%s\"", f->fired[i]);
	fake_buf_str(out, "],\"headers\":{");
	for (int i = 0; i < req->header_count; i++) {
		if (i)
			fake_buf_str(out, ",");
		fake_buf_json_bytes(out, req->headers[i].name, strlen(req->headers[i].name));
		fake_buf_str(out, ":");
		fake_buf_json_bytes(out, req->headers[i].value, strlen(req->headers[i].value));
	}
	fake_buf_fmt(out, "},\"body_bytes\":%zu", req->body_n);
	if (req->body_n <= BODY_MAX) {
		fake_buf_str(out, ",\"body\":");
		(body_is_json ? fake_buf_json : fake_buf_json_bytes)(out, req->body, req->body_n);
	}
	fake_buf_str(out, "}");
}

void fake_stats_json(struct fake *f, struct fake_buf *out, bool brief)
{
	const struct fake_stats *s = &f->stats;
	fake_buf_fmt(out, "{\"calls\":%llu,\"inputs\":%llu,\"tokens\":%llu,\"ok_calls\":%llu,\"ok_inputs\":%llu,"
		"\"connections\":%llu,\"gone\":%llu,\"in_flight\":%llu,\"max_in_flight\":%llu,\"seed\":%llu",
		(unsigned long long)s->calls, (unsigned long long)s->inputs, (unsigned long long)s->tokens,
		(unsigned long long)s->ok_calls, (unsigned long long)s->ok_inputs,
		(unsigned long long)s->connections, (unsigned long long)s->gone,
		(unsigned long long)s->in_flight, (unsigned long long)s->max_in_flight,
		(unsigned long long)f->opt.seed);
	fake_buf_str(out, ",\"faults\":");
	fake_faults_json(f, out);
	if (!brief) {
		fake_buf_str(out, ",\"by_text\":");
		map_json(s->by_text, out);
		fake_buf_str(out, ",\"by_key\":");
		map_json(s->by_key, out);
		fake_buf_str(out, ",\"requests\":[");
		uint64_t first = s->ring_n > FAKE_RING ? s->ring_n - FAKE_RING : 0;
		for (uint64_t i = first; i < s->ring_n; i++) {
			if (i > first)
				fake_buf_str(out, ",");
			fake_buf_add(out, s->ring[i % FAKE_RING].at, s->ring[i % FAKE_RING].len);
		}
		fake_buf_str(out, "]");
	}
	fake_buf_str(out, "}\n");
}

/* What is in the air stays counted. */
void fake_stats_reset(struct fake *f)
{
	struct fake_stats *s = &f->stats;
	map_free(&s->by_text);
	map_free(&s->by_key);
	for (int i = 0; i < FAKE_RING; i++)
		fake_buf_free(&s->ring[i]);
	*s = (struct fake_stats){.in_flight = s->in_flight, .max_in_flight = s->in_flight};
}
