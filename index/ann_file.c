/*
 * Generations on disk: pointers, files, cursors.
 *
 * Order. Save: the file first, under a new number, durable; then the pointer's commit; then the file before is deleted. So a pointer
 * always names a whole file, and what a crash leaves between is a file that no pointer names: deleted at the next open. A cursor is
 * registered before the view of a build begins and raised after the pointer's commit: tombstones go only when no file wants them.
 */
#include "index/ann_internal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "index/collection_internal.h"

#define NAME_PREFIX "gen-"
#define CURSOR_PREFIX "gen"
#define CURSOR_RENEW_MS ((uint64_t)24 * 3600 * 1000)

static void name_of(uint32_t set, const struct vk_rec_gen *r, bool building, char name[64])
{
	const struct vk_ann_ops *ops = vk_ann_ops_of((enum vk_ann_engine)r->engine);
	snprintf(name, 64, NAME_PREFIX "%u-%u.%s%s", set, r->number, ops ? ops->name : "none", building ? ".part" : "");
}

void vk_ann_path(const struct vk_ann *ann, const struct vk_ann_set *s, const struct vk_rec_gen *r, bool building, char path[VK_ANN_PATH_MAX])
{
	char name[64];
	name_of(s->set, r, building, name);
	snprintf(path, VK_ANN_PATH_MAX, "%s/%s", ann->dir, name);
}

/* --- pointers --- */

struct point_to {
	uint8_t key[VK_REC_GEN_KEY_SIZE];
	const struct vk_rec_gen *r; /* NULL: forget */
};

static enum vk_status apply_pointer(void *arg, struct vk_kv_txn *t)
{
	struct point_to *p = arg;
	struct vk_bytes key = {(char *)p->key, sizeof p->key};
	uint8_t value[VK_REC_GEN_SIZE];
	if (!p->r) {
		enum vk_status st = vk_kv_del(t, VK_T_META, key);
		return st == VK_E_NOT_FOUND ? VK_OK : st;
	}
	vk_rec_gen_encode(value, key, p->r);
	return vk_kv_put(t, VK_T_META, key, (struct vk_bytes){(char *)value, sizeof value});
}

static enum vk_status point(struct vk_ann *ann, uint32_t set, bool building, const struct vk_rec_gen *r)
{
	struct point_to p = {.r = r};
	struct vk_kv_job job = {.apply = apply_pointer, .arg = &p, .bytes = VK_REC_GEN_SIZE};
	vk_rec_gen_key(p.key, set, building);
	return vk_kv_run(vk_collection_kv(ann->c), &job);
}

/* Also what engines put beside a file: names that begin with the file's. */
static void remove_files(const struct vk_ann *ann, const char *name)
{
	DIR *d = opendir(ann->dir);
	char path[VK_ANN_PATH_MAX];
	size_t n = strlen(name);
	if (!d) return;
	for (struct dirent *e; (e = readdir(d));) {
		if (strncmp(e->d_name, name, n) != 0 || (e->d_name[n] && e->d_name[n] != '.') || !strcmp(e->d_name + n, ".part")) continue;
		if (snprintf(path, sizeof path, "%s/%s", ann->dir, e->d_name) < (int)sizeof path) unlink(path);
	}
	closedir(d);
}

enum vk_status vk_ann_forget(struct vk_ann *ann, struct vk_ann_set *s, bool building)
{
	bool *has = building ? &s->has_part : &s->has_file;
	struct vk_rec_gen *r = building ? &s->part : &s->file;
	char name[64];
	if (!*has) return VK_OK;
	enum vk_status st = point(ann, s->set, building, NULL);
	if (st) return st;
	name_of(s->set, r, building, name);
	remove_files(ann, name);
	*has = false;
	return VK_OK;
}

static uint64_t file_bytes(const char *path)
{
	struct stat sb;
	return stat(path, &sb) == 0 ? (uint64_t)sb.st_size : 0;
}

enum vk_status vk_ann_keep(struct vk_ann *ann, struct vk_ann_set *s, const struct vk_ann_plan *plan, const uint8_t made[VK_ANN_MADE],
			   void *self, uint64_t sequence, bool building, struct vk_error *err)
{
	bool *has = building ? &s->has_part : &s->has_file;
	struct vk_rec_gen *mine = building ? &s->part : &s->file, was = *mine;
	struct vk_rec_gen r = {.engine = (uint8_t)plan->engine, .number = ++s->number, .sequence = sequence};
	char path[VK_ANN_PATH_MAX], name[64];
	vk_random(r.tag, sizeof r.tag - VK_ANN_MADE);
	memcpy(r.tag + sizeof r.tag - VK_ANN_MADE, made, VK_ANN_MADE);
	vk_ann_path(ann, s, &r, building, path);
	enum vk_status st = vk_ann_ops_of(plan->engine)->save(self, path, sequence, r.tag, err);
	if (st) return st;
	r.bytes = file_bytes(path);
	st = point(ann, s->set, building, &r);
	if (st) {
		name_of(s->set, &r, building, name);
		remove_files(ann, name);
		return vk_fail(err, st, "the pointer to %s cannot be written: %s", path, vk_status_text(st));
	}
	if (*has) {
		name_of(s->set, &was, building, name);
		remove_files(ann, name);
	}
	*mine = r;
	*has = true;
	return VK_OK;
}

enum vk_status vk_ann_cursor(struct vk_ann *ann, struct vk_ann_set *s, uint64_t also)
{
	char name[32];
	uint64_t lowest = also;
	if (s->has_file && s->file.sequence < lowest) lowest = s->file.sequence;
	if (s->has_part && s->part.sequence < lowest) lowest = s->part.sequence;
	if (s->gen && !s->has_file) { /* it could not be saved: what it follows must stay all the same */
		uint64_t at = atomic_load(&s->gen->sequence);
		if (s->cursor < at) at = s->cursor;
		if (at < lowest) lowest = at;
	}
	bool fresh = lowest == UINT64_MAX || (s->cursor_ms && vk_mono_ms() - s->cursor_ms < CURSOR_RENEW_MS);
	if (lowest == s->cursor && fresh) return VK_OK;
	snprintf(name, sizeof name, CURSOR_PREFIX "%u", s->set);
	enum vk_status st = vk_collection_cursor(ann->c, name, lowest, vk_wall_ms() + VK_ANN_CURSOR_MS);
	if (st) return st;
	s->cursor = lowest;
	s->cursor_ms = vk_mono_ms() | 1;
	return VK_OK;
}

enum vk_status vk_ann_tidy(struct vk_ann *ann, struct vk_ann_set *s)
{
	enum vk_status st = vk_ann_forget(ann, s, true);
	if (!st && !s->gen) st = vk_ann_forget(ann, s, false);
	return st ? st : vk_ann_cursor(ann, s, UINT64_MAX);
}

/* --- opening --- */

struct vk_ann_set *vk_ann_add(struct vk_ann *ann, uint32_t set)
{
	struct vk_ann_set *s = vk_ann_find(ann, set);
	if (s || !(s = calloc(1, sizeof *s))) return s;
	s->set = set;
	s->cursor = UINT64_MAX;
	s->next = ann->sets;
	ann->sets = s;
	return s;
}

/* A pointer that does not check is there, too, to be forgotten. */
static bool take_pointer(struct vk_ann *ann, struct vk_bytes key, struct vk_bytes value)
{
	uint32_t set;
	bool building;
	if (!vk_rec_gen_key_read(key, &set, &building)) return true;
	struct vk_ann_set *s = vk_ann_add(ann, set);
	if (!s) return false;
	struct vk_rec_gen *r = building ? &s->part : &s->file;
	if (!vk_rec_gen_decode(r, key, value) || !vk_ann_ops_of((enum vk_ann_engine)r->engine)) *r = (struct vk_rec_gen){0};
	*(building ? &s->has_part : &s->has_file) = true;
	if (r->number > s->number) s->number = r->number;
	return true;
}

static bool take_cursor(struct vk_ann *ann, struct vk_bytes key, struct vk_bytes value)
{
	const struct vk_bytes prefix = VK_LIT(VK_REC_CURSOR_PREFIX CURSOR_PREFIX);
	struct vk_rec_cursor r;
	uint64_t set = 0;
	if (key.n <= prefix.n || memcmp(key.p, prefix.p, prefix.n) != 0) return true;
	for (size_t i = prefix.n; i < key.n; i++) {
		if (key.p[i] < '0' || key.p[i] > '9' || set > UINT32_MAX) return true; /* somebody else's */
		set = set * 10 + (uint64_t)(key.p[i] - '0');
	}
	struct vk_ann_set *s = set <= UINT32_MAX ? vk_ann_add(ann, (uint32_t)set) : NULL;
	if (s) s->cursor = vk_rec_cursor_decode(&r, key, value) ? r.sequence : 0;
	return set > UINT32_MAX || s;
}

/* Pointers, cursors and plans out of one view. Also those of sets that the config does not name any more: their process died before
 * it could let go of them, and a cursor that stays holds all tombstones. */
static enum vk_status read_pointers(void *arg, struct vk_view *v)
{
	struct vk_ann *ann = arg;
	struct vk_kv_cursor *cur;
	struct vk_bytes k, value;
	for (size_t i = 0; i < v->conf->vectors_n; i++) {
		struct vk_ann_set *s = vk_ann_add(ann, v->conf->vectors[i].set.id);
		if (!s) return VK_E_NOMEM;
		s->named = true;
		vk_ann_plan_of(v->conf, &v->conf->vectors[i], &s->plan);
	}
	enum vk_status st = vk_kv_cursor_open(v->t, VK_T_META, &cur);
	if (st) return st;
	for (st = vk_kv_seek(cur, (struct vk_bytes){0}, &k, &value); !st; st = vk_kv_next(cur, &k, &value))
		if (!take_pointer(ann, k, value) || !take_cursor(ann, k, value)) {
			st = VK_E_NOMEM;
			break;
		}
	vk_kv_cursor_close(cur);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

/* what: begins with the file's name. */
static void say_lost(const char *what, const char *why)
{
	vk_log(VK_LOG_WARN, "%s%s%s; the index is built anew, exact search answers meanwhile", what, *why ? ": " : "", why);
}

/* The view's moment and what lies between it and the file. */
static enum vk_status first_delta(void *arg, struct vk_view *v)
{
	struct vk_ann_set *s = arg;
	uint64_t sequence;
	enum vk_status st = vk_view_sequence(v, &sequence);
	if (!st && sequence < s->file.sequence) return VK_E_CORRUPT;
	return st ? st : vk_delta_extend(v, NULL, s->file.sequence, &s->delta);
}

static void open_file(struct vk_ann *ann, struct vk_ann_set *s)
{
	const struct vk_ann_ops *ops = vk_ann_ops_of((enum vk_ann_engine)s->file.engine);
	char path[VK_ANN_PATH_MAX];
	uint8_t tag[32];
	uint64_t sequence;
	struct vk_error err = {0};
	void *self = NULL;
	vk_ann_path(ann, s, &s->file, false, path);
	if (!ops) {
		say_lost(path, "its pointer does not check");
		return;
	}
	enum vk_status st = ops->open(&s->plan, path, &self, &sequence, tag, &err);
	if (st) {
		say_lost(err.text[0] ? err.text : path, err.text[0] ? "" : vk_status_text(st));
	} else if (sequence != s->file.sequence || memcmp(tag, s->file.tag, sizeof tag) != 0) {
		say_lost(path, "not the file that the collection points to");
		st = VK_E_CORRUPT;
	} else if (ops->partial && ops->partial(self)) {
		say_lost(path, "it is half built");
		st = VK_E_CORRUPT;
	} else if (s->cursor > sequence) {
		say_lost(path, "its cursor is gone, and perhaps tombstones with it");
		st = VK_E_CORRUPT;
	} else if ((st = vk_view_run(ann->c, 0, NULL, first_delta, s))) {
		say_lost(path, st == VK_E_CORRUPT ? "it is ahead of the collection" : vk_status_text(st));
	}
	if (!st) s->gen = vk_gen_new(ops, self, &s->plan, sequence);
	if (!s->gen) {
		if (self) ops->close(self);
		vk_delta_unref(s->delta);
		s->delta = NULL;
		return;
	}
	memcpy(s->gen->made, s->file.tag + sizeof s->file.tag - VK_ANN_MADE, VK_ANN_MADE);
	s->checkpoint = sequence;
	s->state = s->delta->count ? VK_ANN_FOLLOWING : VK_ANN_READY;
}

static bool pointed_to(const struct vk_ann *ann, const char *name)
{
	char mine[64];
	for (const struct vk_ann_set *s = ann->sets; s; s = s->next)
		for (int building = 0; building < 2; building++) {
			if (!(building ? s->has_part : s->has_file)) continue;
			name_of(s->set, building ? &s->part : &s->file, building, mine);
			size_t n = strlen(mine);
			if (!strncmp(name, mine, n) && (!name[n] || (name[n] == '.' && strcmp(name + n, ".part") != 0))) return true;
		}
	return false;
}

static void remove_strays(const struct vk_ann *ann)
{
	DIR *d = opendir(ann->dir);
	char path[VK_ANN_PATH_MAX];
	if (!d) return;
	for (struct dirent *e; (e = readdir(d));)
		if (!strncmp(e->d_name, NAME_PREFIX, sizeof NAME_PREFIX - 1) && !pointed_to(ann, e->d_name) &&
		    snprintf(path, sizeof path, "%s/%s", ann->dir, e->d_name) < (int)sizeof path)
			unlink(path);
	closedir(d);
}

enum vk_status vk_ann_load(struct vk_ann *ann, struct vk_error *err)
{
	enum vk_status st = vk_view_run(ann->c, 0, NULL, read_pointers, ann);
	if (st) return vk_fail(err, st, "%s: pointers to indexes cannot be read", ann->dir);
	uint64_t least = UINT64_MAX;
	for (struct vk_ann_set *s = ann->sets; s; s = s->next) {
		if (s->has_file && s->named) open_file(ann, s);
		if (s->plan.engine != VK_ANN_NONE && s->plan.rows_min < least) least = s->plan.rows_min;
		if (s->has_file || s->has_part) least = 0;
	}
	atomic_store(&ann->rows_least, least);
	if (!ann->read_only) remove_strays(ann);
	return VK_OK;
}
