/*
 * The set of keys: where they come from, and how it is changed. Two lists, replaced as a whole:
 * `config` (environment and configuration, on every reload) and `stored` (the catalog, after every
 * change of it). The hash table over both is rebuilt with them under the write lock; a change is
 * rare and a few thousand keys take a millisecond.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "server/keys_internal.h"
#include "store/file.h"

#define SECRET_FILE_MAX 4096
#define RECORD_MAX 8192
#define PLAIN_KEY_MIN 16 /* a key that a person made up: at least this long */

/* ---- the set ---- */

static unsigned bucket_of(const uint8_t sha256[VK_SHA256_SIZE])
{
	return sha256[0] % VK_KEY_BUCKETS;
}

struct vk_key *vk_keys_find(struct vk_keys *k, const uint8_t sha256[VK_SHA256_SIZE])
{
	struct vk_bytes want = {(const char *)sha256, VK_SHA256_SIZE};
	for (struct vk_key *key = k->bucket[bucket_of(sha256)]; key; key = key->next_hash)
		if (vk_bytes_eq_secret((struct vk_bytes){(const char *)key->sha256, VK_SHA256_SIZE}, want)) return key;
	return NULL;
}

static void free_list(struct vk_key *list)
{
	while (list) {
		struct vk_key *next = list->next;
		vk_wipe(list->sha256, sizeof list->sha256);
		free(list);
		list = next;
	}
}

static size_t hash_list(struct vk_keys *k, struct vk_key *list)
{
	size_t n = 0;
	for (struct vk_key *key = list; key; key = key->next, n++) {
		struct vk_key **b = &k->bucket[bucket_of(key->sha256)];
		key->next_hash = *b;
		*b = key;
	}
	return n;
}

/* A key that stays keeps when it was last used. */
static void carry_over(const struct vk_key *from, struct vk_key *to)
{
	for (; to; to = to->next)
		for (const struct vk_key *f = from; f; f = f->next)
			if (!memcmp(f->sha256, to->sha256, VK_SHA256_SIZE)) {
				atomic_store(&to->last_used_ms, atomic_load(&f->last_used_ms));
				break;
			}
}

/* Puts list in the place of *which. Config keys go in last, so that they are found first. */
static void swap_list(struct vk_keys *k, struct vk_key **which, struct vk_key *list)
{
	carry_over(*which, list);
	pthread_rwlock_wrlock(&k->lock);
	struct vk_key *old = *which;
	*which = list;
	memset(k->bucket, 0, sizeof k->bucket);
	size_t n = hash_list(k, k->stored);
	n += hash_list(k, k->config);
	atomic_store(&k->count, n);
	pthread_rwlock_unlock(&k->lock);
	free_list(old);
}

bool vk_keys_any(struct vk_keys *k)
{
	return atomic_load_explicit(&k->count, memory_order_relaxed) > 0;
}

/* Requests hold patterns without a lock, so patterns stay; there are few different ones. */
static const char *intern(struct vk_keys *k, struct vk_bytes text)
{
	if (!text.n) text = VK_LIT("*");
	for (struct pattern *p = k->patterns; p; p = p->next)
		if (vk_bytes_is(text, p->text)) return p->text;
	struct pattern *p = malloc(sizeof *p + text.n + 1);
	if (!p) return NULL;
	memcpy(p->text, text.p, text.n);
	p->text[text.n] = 0;
	p->next = k->patterns;
	k->patterns = p;
	return p->text;
}

/* ---- reading one key, from config and from the catalog ---- */

static enum vk_status read_text(const vk_jv *v, const char *what, char *dst, size_t cap, struct vk_error *err)
{
	struct vk_bytes s;
	if (!vk_jv_str(v, &s) || !s.n || s.n >= cap)
		return vk_fail_param(err, VK_E_INVALID, "", what, "\"%s\" must be a text of 1 to %zu bytes", what, cap - 1);
	memcpy(dst, s.p, s.n);
	dst[s.n] = 0;
	return VK_OK;
}

/* ["embed", "read"] or "embed,read". */
static enum vk_status read_scopes(const vk_jv *v, uint32_t *scopes, struct vk_error *err)
{
	struct vk_bytes s;
	bool ok = vk_jv_str(v, &s) && vk_scopes_parse(s, scopes);
	if (vk_jv_type(v) == VK_J_ARRAY && vk_jv_len(v)) {
		ok = true;
		*scopes = 0;
		for (const vk_jv *i = vk_jv_first(v); i && ok; i = vk_jv_next(i)) {
			uint32_t bits = 0;
			ok = vk_jv_str(i, &s) && vk_scopes_parse(s, &bits);
			*scopes |= bits;
		}
	}
	if (ok) return VK_OK;
	return vk_fail_param(err, VK_E_INVALID, "", "scopes",
			     "\"scopes\" must list one or more of read, write, embed, admin, metrics");
}

/* Unix milliseconds, "2027-01-31" or "2027-01-31T12:00:00Z". */
static enum vk_status read_expires(const vk_jv *v, int64_t *ms, struct vk_error *err)
{
	struct vk_bytes s;
	*ms = 0;
	if (vk_jv_type(v) == VK_J_NULL) return VK_OK;
	if (vk_jv_i64(v, ms) && *ms >= 0) return VK_OK;
	if (vk_jv_str(v, &s) && s.n < 32) {
		char text[32];
		struct tm tm = {0};
		memcpy(text, s.p, s.n);
		text[s.n] = 0;
		const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
		if (!end || *end) {
			memset(&tm, 0, sizeof tm);
			end = strptime(text, "%Y-%m-%d", &tm);
		}
		if (end && !*end) {
			*ms = (int64_t)timegm(&tm) * 1000;
			return VK_OK;
		}
	}
	return vk_fail_param(err, VK_E_INVALID, "", "expires",
			     "\"expires\" must be a date (2027-01-31, 2027-01-31T12:00:00Z) or Unix milliseconds");
}

/* "a-*" or ["a-*", "b"]: kept as one comma list. */
static enum vk_status read_collections(struct vk_keys *k, const vk_jv *v, const char **out, struct vk_error *err)
{
	char list[1024] = "";
	size_t n = 0;
	struct vk_bytes s;
	if (vk_jv_str(v, &s)) {
		*out = s.n < sizeof list ? intern(k, s) : NULL;
	} else if (vk_jv_type(v) == VK_J_ARRAY) {
		for (const vk_jv *i = vk_jv_first(v); i; i = vk_jv_next(i)) {
			if (!vk_jv_str(i, &s) || !s.n || n + s.n + 2 > sizeof list) goto bad;
			if (n) list[n++] = ',';
			memcpy(list + n, s.p, s.n);
			n += s.n;
		}
		*out = intern(k, (struct vk_bytes){list, n});
	} else if (vk_jv_type(v) == VK_J_NULL) {
		*out = intern(k, VK_LIT("*"));
	} else {
		goto bad;
	}
	if (*out) return VK_OK;
bad:
	return vk_fail_param(err, VK_E_INVALID, "", "collections",
			     "\"collections\" must be a pattern or a list of patterns, 1000 bytes in all");
}

static enum vk_status hash_key(struct vk_bytes text, const char *from, struct vk_key *key, struct vk_error *err)
{
	while (text.n && strchr(" \t\r\n", text.p[text.n - 1])) text.n--;
	while (text.n && strchr(" \t\r\n", text.p[0])) text.p++, text.n--;
	if (!text.n) return vk_fail(err, VK_E_INVALID, "%s is empty", from);
	if (vk_key_form_of(text) == VK_KEY_DAMAGED)
		return vk_fail(err, VK_E_INVALID, "%s is a damaged key: its checksum does not agree", from);
	vk_sha256(text.p, text.n, key->sha256);
	return VK_OK;
}

static enum vk_status hash_file(const char *path, const char *base_dir, struct vk_key *key, struct vk_error *err)
{
	char full[4096];
	bool relative = path[0] != '/' && base_dir && *base_dir;
	int n = snprintf(full, sizeof full, "%s%s%s", relative ? base_dir : "", relative ? "/" : "", path);
	if (n < 0 || (size_t)n >= sizeof full) return vk_fail(err, VK_E_INVALID, "the path of a key file is too long");
	struct vk_buf b;
	vk_buf_init(&b, SECRET_FILE_MAX);
	enum vk_status st = vk_file_read(full, &b, err);
	if (!st) st = hash_key(vk_buf_bytes(&b), path, key, err);
	if (b.p) vk_wipe(b.p, b.n);
	vk_buf_free(&b);
	return st;
}

/* "${NAME}", {"file": path}, or the text itself. */
static enum vk_status read_secret(const vk_jv *v, const char *base_dir, struct vk_key *key, struct vk_error *err)
{
	struct vk_bytes s;
	char word[1024];
	if (vk_jv_type(v) == VK_J_OBJECT) {
		enum vk_status st = read_text(vk_jv_get(v, "file"), "file", word, sizeof word, err);
		return st ? st : hash_file(word, base_dir, key, err);
	}
	if (!vk_jv_str(v, &s) || s.n >= sizeof word)
		return vk_fail_param(err, VK_E_INVALID, "", "key", "\"key\" must be \"${NAME}\" or {\"file\": path}");
	if (s.n > 3 && s.p[0] == '$' && s.p[1] == '{' && s.p[s.n - 1] == '}') {
		memcpy(word, s.p + 2, s.n - 3);
		word[s.n - 3] = 0;
		const char *value = getenv(word);
		if (!value) return vk_fail_param(err, VK_E_INVALID, "", "key", "the environment has no %.100s", word);
		return hash_key(vk_bytes_of(value), word, key, err);
	}
	if (s.n < PLAIN_KEY_MIN)
		return vk_fail_param(err, VK_E_INVALID, "", "key", "\"key\" must have at least %d characters", PLAIN_KEY_MIN);
	return hash_key(s, "\"key\"", key, err);
}

static enum vk_status read_hash(const vk_jv *entry, const char *base_dir, struct vk_key *key, struct vk_error *err)
{
	const vk_jv *hash = vk_jv_get(entry, "sha256"), *secret = vk_jv_get(entry, "key");
	struct vk_bytes s;
	if (!hash == !secret)
		return vk_fail_param(err, VK_E_INVALID, "", "key", "a key needs one of \"sha256\" and \"key\"");
	if (secret) return read_secret(secret, base_dir, key, err);
	if (vk_jv_str(hash, &s) && vk_unhex(key->sha256, sizeof key->sha256, s.p, s.n)) return VK_OK;
	return vk_fail_param(err, VK_E_INVALID, "", "sha256", "\"sha256\" must be 64 hexadecimal digits");
}

/* What config entries and stored records have in common. */
static enum vk_status read_key(struct vk_keys *k, const vk_jv *entry, struct vk_key *key, struct vk_error *err)
{
	enum vk_status st = read_text(vk_jv_get(entry, "name"), "name", key->name, sizeof key->name, err);
	if (!st) st = read_scopes(vk_jv_get(entry, "scopes"), &key->scopes, err);
	if (!st) st = read_collections(k, vk_jv_get(entry, "collections"), &key->collections, err);
	if (!st) st = read_expires(vk_jv_get(entry, "expires"), &key->expires_ms, err);
	return st;
}

static struct vk_key *new_key(enum vk_key_source source)
{
	struct vk_key *key = calloc(1, sizeof *key);
	if (key) key->source = source;
	return key;
}

/* ---- configuration and environment ---- */

static enum vk_status check_fields(const vk_jv *entry, struct vk_error *err)
{
	static const char *const known[] = {"name", "sha256", "key", "scopes", "collections", "expires"};
	if (vk_jv_type(entry) != VK_J_OBJECT) return vk_fail(err, VK_E_INVALID, "must be an object");
	for (const vk_jv *m = vk_jv_first(entry); m; m = vk_jv_next(m)) {
		bool ok = false;
		for (size_t i = 0; i < sizeof known / sizeof *known; i++) ok |= vk_bytes_is(vk_jv_key(m), known[i]);
		struct vk_bytes name = vk_jv_key(m);
		if (!ok) return vk_fail(err, VK_E_INVALID, "\"%.*s\" is not a field of a key", (int)(name.n < 60 ? name.n : 60), name.p);
	}
	return VK_OK;
}

static enum vk_status add_config(struct vk_keys *k, const vk_jv *entry, const char *base_dir, size_t i,
				 struct vk_key ***tail, struct vk_error *err)
{
	struct vk_error why;
	struct vk_key *key = new_key(VK_KEY_CONFIG);
	if (!key) return vk_fail(err, VK_E_NOMEM, "no memory");
	enum vk_status st = check_fields(entry, &why);
	if (!st) st = read_key(k, entry, key, &why);
	if (!st) st = read_hash(entry, base_dir, key, &why);
	if (st) {
		free(key);
		return vk_fail_param(err, st, "", "keys", "keys[%zu]: %s", i, why.text);
	}
	memcpy(key->id, key->name, sizeof key->id);
	**tail = key;
	*tail = &key->next;
	return VK_OK;
}

static enum vk_status add_environment(struct vk_keys *k, struct vk_key ***tail, struct vk_error *err)
{
	const char *text = getenv("VECKEEP_ADMIN_KEY"), *file = getenv("VECKEEP_ADMIN_KEY_FILE");
	const char *const from[2] = {text, file};
	for (int i = 0; i < 2; i++) {
		if (!from[i] || !*from[i]) continue;
		struct vk_key *key = new_key(VK_KEY_ENV);
		if (!key) return vk_fail(err, VK_E_NOMEM, "no memory");
		key->scopes = VK_SCOPE_ADMIN;
		key->collections = intern(k, VK_LIT("*"));
		strcpy(key->id, "admin");
		strcpy(key->name, "admin");
		enum vk_status st = i == 0 ? hash_key(vk_bytes_of(text), "VECKEEP_ADMIN_KEY", key, err)
					   : hash_file(file, NULL, key, err);
		if (!st && !key->collections) st = vk_fail(err, VK_E_NOMEM, "no memory");
		if (st) {
			free(key);
			return st;
		}
		**tail = key;
		*tail = &key->next;
	}
	return VK_OK;
}

enum vk_status vk_keys_set_config(struct vk_keys *k, const vk_jv *keys, const char *base_dir, struct vk_error *err)
{
	struct vk_key *list = NULL, **tail = &list;
	enum vk_jtype type = vk_jv_type(keys);
	size_t i = 0;
	pthread_mutex_lock(&k->change);
	enum vk_status st = add_environment(k, &tail, err);
	if (!st && type != VK_J_NULL && type != VK_J_ARRAY)
		st = vk_fail_param(err, VK_E_INVALID, "", "keys", "\"keys\" must be a list of keys");
	if (!st && vk_jv_len(keys) > VK_KEYS_MAX)
		st = vk_fail_param(err, VK_E_INVALID, "", "keys", "more than %d keys", VK_KEYS_MAX);
	for (const vk_jv *e = st ? NULL : vk_jv_first(keys); e && !st; e = vk_jv_next(e))
		st = add_config(k, e, base_dir, i++, &tail, err);
	if (st) free_list(list); /* the keys in force stay */
	else swap_list(k, &k->config, list);
	pthread_mutex_unlock(&k->change);
	return st;
}

/* ---- the catalog ---- */

/* A record: the fields of a config entry with "sha256" and "created". */
static void write_record(struct vk_buf *b, const struct vk_key *key)
{
	char hex[2 * VK_SHA256_SIZE + 1], scopes[64];
	struct vk_jw w;
	vk_hex(hex, key->sha256, VK_SHA256_SIZE);
	vk_scopes_print(scopes, sizeof scopes, key->scopes);
	vk_jw_init(&w, b);
	vk_jw_object(&w);
	vk_jw_kv(&w, "name", key->name);
	vk_jw_kv(&w, "sha256", hex);
	vk_jw_kv(&w, "scopes", scopes);
	vk_jw_kv(&w, "collections", key->collections);
	vk_jw_ki(&w, "expires", key->expires_ms);
	vk_jw_ki(&w, "created", key->created_ms);
	vk_jw_object_end(&w);
}

struct load {
	struct vk_keys *k;
	struct vk_key *list, **tail;
	size_t n;
	enum vk_status st;
	struct vk_error *err;
};

static enum vk_status read_record(struct load *l, struct vk_bytes id, struct vk_bytes text, struct vk_key *key)
{
	struct vk_arena arena;
	struct vk_json *doc = NULL;
	vk_arena_init(&arena, 64 * 1024);
	enum vk_status st = vk_json_parse(&arena, text, NULL, &doc, l->err);
	const vk_jv *root = st ? NULL : vk_json_root(doc);
	if (!st) st = read_key(l->k, root, key, l->err);
	if (!st) st = read_hash(root, NULL, key, l->err);
	if (!st) vk_jv_i64(vk_jv_get(root, "created"), &key->created_ms);
	if (!st && id.n >= sizeof key->id) st = VK_E_CORRUPT;
	if (!st) memcpy(key->id, id.p, id.n);
	vk_json_free(doc);
	vk_arena_free(&arena);
	return st;
}

static bool load_one(void *arg, struct vk_bytes id, struct vk_bytes value)
{
	struct load *l = arg;
	struct vk_key *key = new_key(VK_KEY_CATALOG);
	l->st = key ? read_record(l, id, value, key) : VK_E_NOMEM;
	if (!l->st && ++l->n > VK_KEYS_MAX) l->st = VK_E_NO_SPACE;
	if (l->st) {
		free(key);
		vk_fail(l->err, VK_E_CORRUPT, "the stored key %.*s cannot be read", (int)(id.n < 32 ? id.n : 32), id.p);
		return false;
	}
	*l->tail = key;
	l->tail = &key->next;
	return true;
}

/* Under `change`. */
static enum vk_status reload_stored(struct vk_keys *k, struct vk_error *err)
{
	if (!k->catalog) return VK_OK;
	struct load l = {.k = k, .err = err};
	l.tail = &l.list;
	enum vk_status st = vk_catalog_scan(k->catalog, VK_TABLE_KEY, (struct vk_bytes){NULL, 0}, load_one, &l);
	if (!st) st = l.st;
	else vk_fail(err, st, "the stored keys cannot be read");
	if (st) free_list(l.list);
	else swap_list(k, &k->stored, l.list);
	return st;
}

static enum vk_status commit(struct vk_keys *k, const char *id, struct vk_bytes value, struct vk_error *err)
{
	if (!k->catalog) return vk_fail(err, VK_E_UNAVAILABLE, "there is no catalog to store keys in");
	struct vk_catalog_op op = {.table = VK_TABLE_KEY, .key = vk_bytes_of(id), .value = value};
	enum vk_status st = vk_catalog_commit(k->catalog, &op, 1);
	return st ? vk_fail(err, st, "the key could not be stored") : VK_OK;
}

static enum vk_status check_spec(const struct vk_key_spec *spec, int64_t now_ms, struct vk_error *err)
{
	size_t n = spec->name ? strlen(spec->name) : 0;
	if (!n || n >= 64)
		return vk_fail_param(err, VK_E_INVALID, "", "name", "\"name\" must be a text of 1 to 63 bytes");
	if (!spec->scopes || spec->scopes >= 2 * VK_SCOPE_METRICS)
		return vk_fail_param(err, VK_E_INVALID, "", "scopes", "a key needs at least one scope");
	if (spec->collections && strlen(spec->collections) >= 1024)
		return vk_fail_param(err, VK_E_INVALID, "", "collections", "\"collections\" is too long");
	if (spec->expires_ms && spec->expires_ms <= now_ms)
		return vk_fail_param(err, VK_E_INVALID, "", "expires", "\"expires\" is in the past");
	return VK_OK;
}

enum vk_status vk_keys_create(struct vk_keys *k, const struct vk_key_spec *spec, int64_t now_ms,
			      char text[VK_KEY_TEXT_MAX], char id[64], struct vk_error *err)
{
	struct vk_key key = {.source = VK_KEY_CATALOG, .scopes = spec->scopes, .created_ms = now_ms};
	struct vk_buf record;
	enum vk_status st = check_spec(spec, now_ms, err);
	if (st) return st;
	vk_keytext_make(text, id);
	vk_sha256(text, strlen(text), key.sha256);
	snprintf(key.name, sizeof key.name, "%s", spec->name);
	key.expires_ms = spec->expires_ms;
	key.collections = spec->collections ? spec->collections : "*";
	vk_buf_init(&record, RECORD_MAX);
	write_record(&record, &key);
	pthread_mutex_lock(&k->change);
	st = record.failed ? vk_fail(err, VK_E_NOMEM, "no memory") : commit(k, id, vk_buf_bytes(&record), err);
	if (!st) st = reload_stored(k, err);
	pthread_mutex_unlock(&k->change);
	vk_buf_free(&record);
	if (st) vk_wipe(text, VK_KEY_TEXT_MAX);
	return st;
}

static const struct vk_key *find_id(const struct vk_key *list, const char *id)
{
	while (list && strcmp(list->id, id)) list = list->next;
	return list;
}

enum vk_status vk_keys_revoke(struct vk_keys *k, const char *id, struct vk_error *err)
{
	enum vk_status st;
	pthread_mutex_lock(&k->change);
	if (find_id(k->stored, id)) {
		st = commit(k, id, (struct vk_bytes){NULL, 0}, err);
		if (!st) st = reload_stored(k, err);
	} else if (find_id(k->config, id)) {
		st = vk_fail_param(err, VK_E_CONFLICT, "key_in_config", "id",
				   "this key comes from the configuration or the environment: remove it there");
	} else {
		st = vk_fail_param(err, VK_E_NOT_FOUND, "key_not_found", "id", "there is no key with this id");
	}
	pthread_mutex_unlock(&k->change);
	return st;
}

/* ---- showing them ---- */

static void write_time(struct vk_jw *w, const char *name, int64_t ms)
{
	vk_jw_key(w, name);
	if (ms) vk_jw_i64(w, ms);
	else vk_jw_null(w);
}

static void write_list(struct vk_jw *w, const struct vk_key *key)
{
	static const char *const sources[] = {
		[VK_KEY_ENV] = "environment", [VK_KEY_CONFIG] = "config", [VK_KEY_CATALOG] = "catalog"};
	for (; key; key = key->next) {
		char scopes[64];
		vk_scopes_print(scopes, sizeof scopes, key->scopes);
		vk_jw_object(w);
		vk_jw_kv(w, "id", key->id);
		vk_jw_kv(w, "name", key->name);
		vk_jw_key(w, "scopes");
		vk_jw_array(w);
		char *save = NULL;
		for (char *s = strtok_r(scopes, ",", &save); s; s = strtok_r(NULL, ",", &save)) vk_jw_cstr(w, s);
		vk_jw_array_end(w);
		vk_jw_kv(w, "collections", key->collections);
		write_time(w, "expires", key->expires_ms);
		write_time(w, "created", key->created_ms);
		vk_jw_kv(w, "source", sources[key->source]);
		write_time(w, "last_used", atomic_load_explicit(&((struct vk_key *)(uintptr_t)key)->last_used_ms,
								memory_order_relaxed));
		vk_jw_object_end(w);
	}
}

void vk_keys_write(struct vk_keys *k, struct vk_jw *w)
{
	vk_jw_array(w);
	pthread_rwlock_rdlock(&k->lock);
	write_list(w, k->config);
	write_list(w, k->stored);
	pthread_rwlock_unlock(&k->lock);
	vk_jw_array_end(w);
}

/* ---- life ---- */

enum vk_status vk_keys_open(struct vk_catalog *catalog, struct vk_keys **out, struct vk_error *err)
{
	*out = NULL;
	struct vk_keys *k = calloc(1, sizeof *k);
	if (!k) return vk_fail(err, VK_E_NOMEM, "no memory");
	k->catalog = catalog;
	pthread_rwlock_init(&k->lock, NULL);
	pthread_mutex_init(&k->change, NULL);
	pthread_mutex_lock(&k->change);
	enum vk_status st = reload_stored(k, err);
	pthread_mutex_unlock(&k->change);
	if (st) vk_keys_close(k);
	else *out = k;
	return st;
}

void vk_keys_close(struct vk_keys *k)
{
	if (!k) return;
	free_list(k->config);
	free_list(k->stored);
	while (k->patterns) {
		struct pattern *next = k->patterns->next;
		free(k->patterns);
		k->patterns = next;
	}
	pthread_rwlock_destroy(&k->lock);
	pthread_mutex_destroy(&k->change);
	free(k);
}
