/*
 * The registry of collections: names to environments, opened at first use, closed when idle and too many. The registry
 * itself opens and closes in collections_open.c.
 *
 * Drop unlinks the files at once though references may be out: an unlinked file lives until it is unmapped, so readers finish
 * in peace and the space comes back with the last reference. Ids are never given out twice, so the directory of a new collection
 * cannot be one that a reader of an old one still has.
 */
#include "index/collections_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "index/collection_internal.h"
#include "store/file.h"

#define RECORD_MAX 4096

/* Words */

static int clip(struct vk_bytes name)
{
	return (int)vk_utf8_valid(name.p, name.n < VK_NAME_MAX ? name.n : VK_NAME_MAX);
}

enum vk_status vk_collection_missing(struct vk_bytes name, struct vk_error *err)
{
	return vk_fail(err, VK_E_NOT_FOUND, "Not found: Collection `%.*s` doesn't exist!", clip(name), name.p);
}

enum vk_status vk_collection_there(struct vk_bytes name, struct vk_error *err)
{
	return vk_fail(err, VK_E_EXISTS, "Wrong input: Collection `%.*s` already exists!", clip(name), name.p);
}

enum vk_status vk_collection_name_check(struct vk_bytes name, struct vk_error *err)
{
	static const char bad[] = "<>:\"/\\|?*";
	if (name.n == 0 || name.n > VK_NAME_MAX)
		return vk_fail(err, VK_E_INVALID, "Wrong input: collection name must be 1 to %d bytes long", VK_NAME_MAX);
	for (size_t i = 0; i < name.n; i++) {
		unsigned char b = (unsigned char)name.p[i];
		if (b >= 0x20 && b != 0x7f && !strchr(bad, b)) continue;
		char shown[8];
		snprintf(shown, sizeof shown, b > 0x20 && b < 0x7f ? "%c" : "\\x%02x", b);
		return vk_fail(err, VK_E_INVALID, "Wrong input: collection name cannot contain \"%s\" char", shown);
	}
	if (vk_bytes_is(name, ".") || vk_bytes_is(name, ".."))
		return vk_fail(err, VK_E_INVALID, "Wrong input: collection name cannot be \"%.*s\"", (int)name.n, name.p);
	return VK_OK;
}

/* The arrays */

static int compare(const char *have, struct vk_bytes name)
{
	size_t n = strlen(have), least = n < name.n ? n : name.n;
	int c = memcmp(have, name.p, least);
	return c ? c : (n > name.n) - (n < name.n);
}

size_t vk_centry_at(const struct vk_collections *cs, struct vk_bytes name, bool *found)
{
	size_t lo = 0, hi = cs->entry_n;
	*found = false;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		int c = compare(cs->entry[mid]->name, name);
		if (c == 0) *found = true;
		if (c < 0) lo = mid + 1;
		else hi = mid;
	}
	return lo;
}

size_t vk_calias_at(const struct vk_calias *alias, size_t n, struct vk_bytes name, bool *found)
{
	size_t lo = 0, hi = n;
	*found = false;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		int c = compare(alias[mid].name, name);
		if (c == 0) *found = true;
		if (c < 0) lo = mid + 1;
		else hi = mid;
	}
	return lo;
}

/* Room for one entry more, so that inserting after a commit cannot fail. */
bool vk_collections_make_room(struct vk_collections *cs)
{
	if (cs->entry_n < cs->entry_cap) return true;
	size_t cap = cs->entry_cap ? cs->entry_cap * 2 : 16;
	struct vk_centry **e = realloc(cs->entry, cap * sizeof(struct vk_centry *));
	if (!e) return false;
	cs->entry = e;
	cs->entry_cap = cap;
	return true;
}

static void insert(struct vk_collections *cs, struct vk_centry *e)
{
	bool found;
	size_t i = vk_centry_at(cs, vk_bytes_of(e->name), &found);
	assert(!found && cs->entry_n < cs->entry_cap);
	memmove(&cs->entry[i + 1], &cs->entry[i], (cs->entry_n - i) * sizeof(struct vk_centry *));
	cs->entry[i] = e;
	cs->entry_n++;
}

static void take_out(struct vk_collections *cs, struct vk_centry *e)
{
	bool found;
	size_t i = vk_centry_at(cs, vk_bytes_of(e->name), &found);
	assert(found && cs->entry[i] == e);
	cs->entry_n--;
	memmove(&cs->entry[i], &cs->entry[i + 1], (cs->entry_n - i) * sizeof(struct vk_centry *));
	e->dropped = true;
	if (!cs->holds) return;
	e->kept = true;
	e->waiting++;
	e->next_doomed = cs->doomed;
	cs->doomed = e;
}

struct vk_centry *vk_centry_new(struct vk_bytes name, uint32_t id, int64_t created_ms)
{
	struct vk_centry *e = calloc(1, sizeof *e);
	if (!e) return NULL;
	memcpy(e->name, name.p, name.n);
	e->id = id;
	e->created_ms = created_ms;
	return e;
}

/* The entry that a name or an alias leads to, or NULL. */
static struct vk_centry *resolve(const struct vk_collections *cs, struct vk_bytes name)
{
	bool found;
	size_t i = vk_centry_at(cs, name, &found);
	if (found) return cs->entry[i];
	i = vk_calias_at(cs->alias, cs->alias_n, name, &found);
	if (!found) return NULL;
	i = vk_centry_at(cs, vk_bytes_of(cs->alias[i].collection), &found);
	return found ? cs->entry[i] : NULL;
}

bool vk_collections_real_name(struct vk_collections *cs, struct vk_bytes name, char real[VK_NAME_MAX + 1])
{
	pthread_mutex_lock(&cs->lock);
	struct vk_centry *e = resolve(cs, name);
	if (e) memcpy(real, e->name, sizeof e->name);
	pthread_mutex_unlock(&cs->lock);
	return e != NULL;
}

/* Waits until nobody opens or closes e; the caller is counted and must vk_centry_let_go(). */
static void wait_for(struct vk_collections *cs, struct vk_centry *e)
{
	e->waiting++;
	while (e->busy) pthread_cond_wait(&cs->changed, &cs->lock);
}

void vk_centry_let_go(struct vk_centry *e)
{
	if (--e->waiting == 0 && e->dropped && !e->busy) free(e);
}

void vk_collections_dir_of(const struct vk_collections *cs, uint32_t id, char path[4200])
{
	snprintf(path, 4200, "%.4000s/%u", cs->dir, id);
}

void vk_collections_new_dir(struct vk_collections *cs, uint32_t *id, char path[4200])
{
	pthread_mutex_lock(&cs->lock);
	*id = cs->next_id++;
	pthread_mutex_unlock(&cs->lock);
	vk_collections_dir_of(cs, *id, path);
}

/* Opening and closing of environments */

static enum vk_status open_dir(struct vk_collections *cs, uint32_t id, struct vk_bytes config, struct vk_collection **out,
			       struct vk_error *err)
{
	char path[4200];
	struct vk_collection_opts o = {.writers = cs->writers, .map_bytes = cs->map_bytes, .read_only = cs->read_only};
	vk_collections_dir_of(cs, id, path);
	enum vk_status st = vk_collection_open(path, config, &o, out, err);
	if (st != VK_E_NOT_FOUND) return st;
	return vk_fail(err, VK_E_CORRUPT, "%s: the catalog's collection is not there: its file is gone or empty", path);
}

static bool is_idle(const struct vk_centry *e)
{
	/* Nobody but the registry, under whose lock we are, can turn one reference into two. */
	return e->c && !e->busy && atomic_load(&e->c->refs) == 1;
}

/* The longest unused, when more than open_max are idle: busy from here on. Under lock. */
static struct vk_centry *pick_victim(struct vk_collections *cs)
{
	struct vk_centry *oldest = NULL;
	size_t idle = 0;
	for (size_t i = 0; i < cs->entry_n; i++) {
		struct vk_centry *e = cs->entry[i];
		if (!is_idle(e)) continue;
		idle++;
		if (!oldest || e->used < oldest->used) oldest = e;
	}
	if (idle <= cs->open_max) return NULL;
	oldest->busy = true;
	oldest->waiting++;
	return oldest;
}

/* Under lock, which it lets go meanwhile. */
static void close_idle(struct vk_collections *cs)
{
	struct vk_centry *e;
	while ((e = pick_victim(cs))) {
		struct vk_collection *c = e->c;
		e->c = NULL;
		pthread_mutex_unlock(&cs->lock);
		vk_collection_unref(c);
		pthread_mutex_lock(&cs->lock);
		e->busy = false;
		pthread_cond_broadcast(&cs->changed);
		vk_centry_let_go(e);
	}
}

/* Under lock, which it lets go meanwhile; nobody else has e. */
static enum vk_status open_entry(struct vk_collections *cs, struct vk_centry *e, struct vk_error *err)
{
	struct vk_collection *c = NULL;
	e->busy = true;
	pthread_mutex_unlock(&cs->lock);
	enum vk_status st = open_dir(cs, e->id, (struct vk_bytes){0}, &c, err);
	if (st == VK_E_NOT_FOUND) st = VK_E_CORRUPT; /* it has a name, so it should be there: no 404 */
	if (st && err) err->st = st;
	pthread_mutex_lock(&cs->lock);
	e->busy = false;
	e->c = c;
	pthread_cond_broadcast(&cs->changed);
	return st;
}

enum vk_status vk_centry_get(struct vk_collections *cs, struct vk_centry *e, struct vk_collection **out, struct vk_error *err)
{
	enum vk_status st = VK_OK;
	*out = NULL;
	wait_for(cs, e);
	bool was_closed = !e->c && !e->gone;
	if (was_closed) st = open_entry(cs, e, err);
	if (!st && !e->gone) {
		e->used = ++cs->tick;
		*out = vk_collection_ref(e->c);
	}
	vk_centry_let_go(e);
	if (was_closed && !st) close_idle(cs);
	return st;
}

enum vk_status vk_collections_get(struct vk_collections *cs, struct vk_bytes name, struct vk_collection **out, struct vk_error *err)
{
	enum vk_status st = VK_OK;
	*out = NULL;
	pthread_mutex_lock(&cs->lock);
	struct vk_centry *e = resolve(cs, name);
	if (e) st = vk_centry_get(cs, e, out, err);
	pthread_mutex_unlock(&cs->lock);
	return st || *out ? st : vk_collection_missing(name, err);
}

/* Creating and dropping */

static void put_record(struct vk_buf *b, uint32_t id, int64_t created_ms, const char *pool)
{
	struct vk_jw w;
	vk_buf_init(b, RECORD_MAX);
	vk_jw_init(&w, b);
	vk_jw_object(&w);
	vk_jw_ki(&w, "id", id);
	vk_jw_ki(&w, "created_ms", created_ms);
	vk_jw_kv(&w, "pool", pool);
	vk_jw_object_end(&w);
}

/* Neither a collection nor an alias has the name. Under lock. */
static enum vk_status check_free(const struct vk_collections *cs, struct vk_bytes name, struct vk_error *err)
{
	bool found;
	vk_centry_at(cs, name, &found);
	if (found) return vk_collection_there(name, err);
	vk_calias_at(cs->alias, cs->alias_n, name, &found);
	if (found)
		return vk_fail(err, VK_E_EXISTS,
			       "Wrong input: Can't create collection with name %.*s. Alias with the same name already exists",
			       clip(name), name.p);
	return VK_OK;
}

static enum vk_status commit_entry(struct vk_collections *cs, const struct vk_centry *e, struct vk_error *err)
{
	struct vk_buf record;
	struct vk_colconf *conf = vk_collection_config(e->c);
	char next[16];
	pthread_mutex_lock(&cs->lock);
	snprintf(next, sizeof next, "%u", cs->next_id);
	pthread_mutex_unlock(&cs->lock);
	put_record(&record, e->id, e->created_ms, conf->pool);
	vk_colconf_unref(conf);
	struct vk_catalog_op ops[] = {
		{VK_TABLE_COLLECTION, vk_bytes_of(e->name), vk_buf_bytes(&record)},
		{VK_TABLE_META, VK_COLLECTIONS_NEXT_ID, vk_bytes_of(next)},
	};
	enum vk_status st = record.failed ? VK_E_NOMEM : vk_catalog_commit(cs->catalog, ops, 2);
	vk_buf_free(&record);
	return st ? vk_fail(err, st, "The catalog cannot be written: %s", vk_status_text(st)) : VK_OK;
}

void vk_centry_discard(struct vk_collections *cs, struct vk_centry *e)
{
	char path[4200];
	vk_collections_dir_of(cs, e->id, path);
	pthread_mutex_lock(&cs->lock);
	wait_for(cs, e);
	bool kept = e->kept;
	struct vk_collection *c = NULL;
	if (!kept) {
		e->gone = true;
		c = e->c;
		e->c = NULL;
	}
	vk_centry_let_go(e);
	pthread_mutex_unlock(&cs->lock);
	if (c) vk_collection_unref(c);
	if (!kept) vk_dir_remove(path);
}

enum vk_status vk_collections_install(struct vk_collections *cs, struct vk_bytes name, uint32_t id, struct vk_collection *c,
				      bool replace, int64_t now_ms, struct vk_error *err)
{
	bool found = false;
	struct vk_centry *old = NULL, *e = vk_centry_new(name, id, now_ms);
	enum vk_status st = e ? VK_OK : vk_fail(err, VK_E_NOMEM, "no memory");
	pthread_mutex_lock(&cs->admin);
	pthread_mutex_lock(&cs->lock);
	if (!st && !vk_collections_make_room(cs)) st = vk_fail(err, VK_E_NOMEM, "no memory");
	size_t at = vk_centry_at(cs, name, &found);
	if (!st && !(found && replace)) st = check_free(cs, name, err);
	pthread_mutex_unlock(&cs->lock);
	/* admin is held: the arrays are still what they were. */
	if (!st) {
		e->c = c;
		st = vk_dir_sync(cs->dir, err);
		if (!st) st = commit_entry(cs, e, err);
	}
	if (!st) {
		pthread_mutex_lock(&cs->lock);
		if (found) {
			old = cs->entry[at];
			old->waiting++; /* until it is discarded */
			take_out(cs, old);
		}
		e->used = ++cs->tick;
		insert(cs, e);
		close_idle(cs);
		pthread_mutex_unlock(&cs->lock);
	}
	pthread_mutex_unlock(&cs->admin);
	if (st) free(e);
	if (old) {
		vk_centry_discard(cs, old);
		pthread_mutex_lock(&cs->lock);
		vk_centry_let_go(old);
		pthread_mutex_unlock(&cs->lock);
	}
	return st;
}

enum vk_status vk_collections_create(struct vk_collections *cs, struct vk_bytes name, struct vk_bytes config, int64_t now_ms,
				     struct vk_error *err)
{
	uint32_t id;
	char path[4200];
	struct vk_collection *c = NULL;
	enum vk_status st = vk_collection_name_check(name, err);
	if (!st && cs->read_only) st = vk_fail(err, VK_E_INVALID, "Opened for reading only.");
	if (st) return st;
	/* A first look, so that a name that is taken costs no environment. */
	pthread_mutex_lock(&cs->lock);
	st = check_free(cs, name, err);
	pthread_mutex_unlock(&cs->lock);
	if (st) return st;
	vk_collections_new_dir(cs, &id, path);
	st = open_dir(cs, id, config, &c, err);
	if (!st) st = vk_dir_sync(path, err);
	if (!st) st = vk_collections_install(cs, name, id, c, false, now_ms, err);
	if (st) {
		if (c) vk_collection_unref(c);
		vk_dir_remove(path);
	}
	return st;
}

/* The record, and the aliases that lead to it: one commit. */
static enum vk_status commit_drop(struct vk_collections *cs, struct vk_bytes name, struct vk_error *err)
{
	size_t n = 0;
	struct vk_catalog_op *ops = calloc(cs->alias_n + 1, sizeof *ops);
	if (!ops) return vk_fail(err, VK_E_NOMEM, "no memory");
	ops[n++] = (struct vk_catalog_op){VK_TABLE_COLLECTION, name, {0}};
	for (size_t i = 0; i < cs->alias_n; i++)
		if (vk_bytes_is(name, cs->alias[i].collection))
			ops[n++] = (struct vk_catalog_op){VK_TABLE_ALIAS, vk_bytes_of(cs->alias[i].name), {0}};
	enum vk_status st = vk_catalog_commit(cs->catalog, ops, n);
	free(ops);
	return st ? vk_fail(err, st, "The catalog cannot be written: %s", vk_status_text(st)) : VK_OK;
}

static void drop_aliases(struct vk_collections *cs, struct vk_bytes name)
{
	size_t kept = 0;
	for (size_t i = 0; i < cs->alias_n; i++)
		if (!vk_bytes_is(name, cs->alias[i].collection)) cs->alias[kept++] = cs->alias[i];
	cs->alias_n = kept;
}

enum vk_status vk_collections_drop(struct vk_collections *cs, struct vk_bytes name, struct vk_error *err)
{
	bool found;
	struct vk_centry *e = NULL;
	if (cs->read_only) return vk_fail(err, VK_E_INVALID, "Opened for reading only.");
	pthread_mutex_lock(&cs->admin);
	pthread_mutex_lock(&cs->lock);
	size_t at = vk_centry_at(cs, name, &found);
	if (found) e = cs->entry[at];
	if (e) e->waiting++;
	pthread_mutex_unlock(&cs->lock);
	enum vk_status st = e ? commit_drop(cs, name, err) : vk_collection_missing(name, err);
	if (!st) {
		pthread_mutex_lock(&cs->lock);
		take_out(cs, e);
		drop_aliases(cs, name);
		pthread_mutex_unlock(&cs->lock);
	}
	pthread_mutex_unlock(&cs->admin);
	if (!st) vk_centry_discard(cs, e);
	if (e) {
		pthread_mutex_lock(&cs->lock);
		vk_centry_let_go(e);
		pthread_mutex_unlock(&cs->lock);
	}
	return st;
}

/* Walking */

enum vk_status vk_collections_each(struct vk_collections *cs, bool (*fn)(void *arg, struct vk_bytes name), void *arg)
{
	pthread_mutex_lock(&cs->lock);
	size_t n = cs->entry_n;
	char(*names)[VK_NAME_MAX + 1] = calloc(n + 1, sizeof *names);
	for (size_t i = 0; names && i < n; i++) memcpy(names[i], cs->entry[i]->name, sizeof *names);
	pthread_mutex_unlock(&cs->lock);
	if (!names) return VK_E_NOMEM;
	for (size_t i = 0; i < n; i++)
		if (!fn(arg, vk_bytes_of(names[i]))) break;
	free(names);
	return VK_OK;
}

struct open_one {
	char name[VK_NAME_MAX + 1];
	struct vk_collection *c;
};

void vk_collections_each_open(struct vk_collections *cs, void (*fn)(void *arg, struct vk_bytes name, struct vk_collection *c), void *arg)
{
	size_t n = 0;
	pthread_mutex_lock(&cs->lock);
	struct open_one *open = calloc(cs->entry_n + 1, sizeof *open);
	for (size_t i = 0; open && i < cs->entry_n; i++) {
		struct vk_centry *e = cs->entry[i];
		if (!e->c || e->busy) continue;
		memcpy(open[n].name, e->name, sizeof e->name);
		open[n++].c = vk_collection_ref(e->c);
	}
	pthread_mutex_unlock(&cs->lock);
	for (size_t i = 0; i < n; i++) {
		fn(arg, vk_bytes_of(open[i].name), open[i].c);
		vk_collection_unref(open[i].c);
	}
	free(open);
}
