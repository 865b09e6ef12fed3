/*
 * Payload edits and selection on the text itself: what stays is copied as it came.
 *
 * Edits mean what Qdrant's set_payload and delete_payload mean: a set merges the patch's members into the
 * object at the path (null removes the member), making objects on the way; an index past the end and [] on
 * what is no array change nothing below.
 */
#include "index/payload.h"

#include <stdlib.h>

#include "index/json_text.h"

static void put(struct vk_buf *b, struct vk_bytes s)
{
	vk_buf_put(b, s.p, s.n);
}

/* Opens a container that is being written anew; item() goes before each member of it. */
struct list {
	struct vk_buf *b;
	bool any;
};

static void item(struct list *l)
{
	if (l->any) vk_buf_putc(l->b, ',');
	l->any = true;
}

static void put_key(struct vk_buf *b, struct vk_bytes key)
{
	struct vk_jw w;
	vk_jw_init(&w, b);
	vk_jw_str(&w, key);
	vk_buf_putc(b, ':');
}

static void put_value(struct vk_buf *b, const vk_jv *v)
{
	struct vk_jw w;
	vk_jw_init(&w, b);
	vk_jw_value(&w, v);
}

static bool is_object(struct vk_bytes v) { return v.n >= 2 && *v.p == '{'; }
static bool is_array(struct vk_bytes v) { return v.n >= 2 && *v.p == '['; }

/* --- merge --- */

struct merge {
	struct vk_buf *dst;
	struct vk_arena *scratch;
	const vk_jv *patch;
	const struct vk_path *at;
	enum vk_status st;
};

/* The patch's member of this quoted key, and which one it is. */
static const vk_jv *patch_member(const struct merge *m, struct vk_bytes quoted, size_t *index)
{
	*index = 0;
	for (const vk_jv *v = vk_jv_first(m->patch); v; v = vk_jv_next(v), ++*index)
		if (vk_jt_key_is(quoted, vk_jv_key(v))) return v;
	return NULL;
}

static void merge_members(struct merge *m, struct vk_bytes old)
{
	struct list l = {.b = m->dst};
	struct vk_jt_walk w;
	struct vk_jt_item it;
	size_t i, n = vk_jv_len(m->patch);
	bool *seen = vk_arena_calloc(m->scratch, n + 1, sizeof *seen);
	if (!seen) {
		m->st = VK_E_NOMEM;
		return;
	}
	vk_buf_putc(m->dst, '{');
	bool open = is_object(old) && vk_jt_open(&w, old);
	while (open && vk_jt_next(&w, &it)) {
		const vk_jv *v = patch_member(m, it.key, &i);
		if (v) seen[i] = true;
		if (v && vk_jv_type(v) == VK_J_NULL) continue;
		item(&l);
		if (!v) {
			put(m->dst, it.whole);
			continue;
		}
		put(m->dst, it.key);
		vk_buf_putc(m->dst, ':');
		put_value(m->dst, v);
	}
	if (open && w.bad) m->st = VK_E_CORRUPT;
	i = 0;
	for (const vk_jv *v = vk_jv_first(m->patch); v; v = vk_jv_next(v), i++) {
		if (seen[i] || vk_jv_type(v) == VK_J_NULL) continue;
		item(&l);
		put_key(m->dst, vk_jv_key(v));
		put_value(m->dst, v);
	}
	vk_buf_putc(m->dst, '}');
}

/* Writes what the patch makes of the value `old` (n == 0: there was none), `step` steps below the top. */
static void merge_value(struct merge *m, struct vk_bytes old, size_t step)
{
	struct vk_jt_walk w;
	struct vk_jt_item it;
	if (!m->at || step == m->at->n) {
		merge_members(m, old);
		return;
	}
	const struct vk_path_step *s = &m->at->step[step];
	struct list l = {.b = m->dst};
	bool object = s->key.p != NULL, found = false;
	bool open = (object ? is_object(old) : is_array(old)) && vk_jt_open(&w, old);
	vk_buf_putc(m->dst, object ? '{' : '[');
	for (int64_t i = 0; open && vk_jt_next(&w, &it); i++) {
		item(&l);
		if (object ? !vk_jt_key_is(it.key, s->key) : s->index >= 0 && s->index != i) {
			put(m->dst, it.whole);
			continue;
		}
		found = true;
		if (object) {
			put(m->dst, it.key);
			vk_buf_putc(m->dst, ':');
		}
		merge_value(m, it.value, step + 1);
	}
	if (open && w.bad) m->st = VK_E_CORRUPT;
	if (object && !found) {
		item(&l);
		put_key(m->dst, s->key);
		merge_value(m, (struct vk_bytes){0}, step + 1);
	}
	vk_buf_putc(m->dst, object ? '}' : ']');
}

static enum vk_status trimmed(struct vk_bytes *text)
{
	if (!text->n) *text = VK_LIT("{}");
	*text = vk_jt_trim(*text);
	return is_object(*text) ? VK_OK : VK_E_CORRUPT;
}

enum vk_status vk_payload_merge(struct vk_buf *dst, struct vk_arena *scratch, struct vk_bytes old,
				const vk_jv *patch, const struct vk_path *at)
{
	struct merge m = {.dst = dst, .scratch = scratch, .patch = patch, .at = at};
	m.st = trimmed(&old);
	if (!m.st) merge_value(&m, old, 0);
	return m.st ? m.st : dst->failed ? VK_E_TOO_LARGE : VK_OK;
}

/* --- delete --- */

static enum vk_status delete_one(struct vk_buf *dst, struct vk_bytes old, const struct vk_path *path, size_t step)
{
	const struct vk_path_step *s = &path->step[step];
	bool object = s->key.p != NULL, last = step + 1 == path->n;
	struct vk_jt_walk w;
	struct vk_jt_item it;
	struct list l = {.b = dst};
	enum vk_status st = VK_OK;
	if (object ? !is_object(old) : !is_array(old)) {
		put(dst, old);
		return VK_OK;
	}
	vk_buf_putc(dst, object ? '{' : '[');
	vk_jt_open(&w, old);
	for (int64_t i = 0; !st && vk_jt_next(&w, &it); i++) {
		bool hit = object ? vk_jt_key_is(it.key, s->key) : s->index < 0 || s->index == i;
		if (hit && last) continue;
		item(&l);
		if (!hit) {
			put(dst, it.whole);
			continue;
		}
		vk_buf_put(dst, it.whole.p, (size_t)(it.value.p - it.whole.p));
		st = delete_one(dst, it.value, path, step + 1);
	}
	vk_buf_putc(dst, object ? '}' : ']');
	return st ? st : w.bad ? VK_E_CORRUPT : VK_OK;
}

/* Each key by its own pass: later keys see what earlier ones left, as Qdrant's do. */
enum vk_status vk_payload_delete(struct vk_buf *dst, struct vk_arena *scratch, struct vk_bytes old,
				 const struct vk_path *keys, size_t n)
{
	(void)scratch;
	struct vk_buf pass[2];
	vk_buf_init(&pass[0], old.n + 2);
	vk_buf_init(&pass[1], old.n + 2);
	enum vk_status st = trimmed(&old);
	for (size_t i = 0; !st && i < n; i++) {
		struct vk_buf *b = &pass[i & 1];
		b->n = 0;
		st = delete_one(b, old, &keys[i], 0);
		if (b->failed) st = VK_E_NOMEM;
		old = vk_buf_bytes(b);
	}
	if (!st) put(dst, old);
	vk_buf_free(&pass[0]);
	vk_buf_free(&pass[1]);
	return st ? st : dst->failed ? VK_E_TOO_LARGE : VK_OK;
}

/* --- selection --- */

/*
 * A place is the keys and indexes on the way to a value. A pattern matches it as far as both go; then the
 * value is wholly in (pattern at its end), or it depends on what is below. Qdrant compares array items with
 * [] alone; an index here selects its item.
 */
struct place {
	struct vk_bytes key[VK_PATH_STEPS_MAX]; /* quoted; n == 0: an item */
	int64_t index[VK_PATH_STEPS_MAX];
	size_t n;
};
enum match { MATCH_NO, MATCH_BELOW, MATCH_WHOLE };

static bool step_is(const struct place *at, size_t i, const struct vk_path_step *s)
{
	if (s->key.p) return at->key[i].n && vk_jt_key_is(at->key[i], s->key);
	return !at->key[i].n && (s->index < 0 || s->index == at->index[i]);
}

static enum match match(const struct place *at, const struct vk_path *path, size_t n)
{
	enum match best = MATCH_NO;
	for (size_t k = 0; k < n && best != MATCH_WHOLE; k++) {
		size_t i = 0, both = path[k].n < at->n ? path[k].n : at->n;
		while (i < both && step_is(at, i, &path[k].step[i])) i++;
		if (i < both) continue;
		best = path[k].n <= at->n ? MATCH_WHOLE : MATCH_BELOW;
	}
	return best;
}

struct selection {
	const struct vk_payload_select *sel;
	struct vk_buf *b;
	struct place at;
	enum vk_status st;
};

static void select_value(struct selection *s, struct vk_bytes v, bool inside);

/* One member: left out, copied, or looked into. inside: an include pattern covers it whole already. */
static void select_member(struct selection *s, const struct vk_jt_item *it, bool inside, struct list *l)
{
	const struct vk_payload_select *sel = s->sel;
	enum match in = inside || !sel->include ? MATCH_WHOLE : match(&s->at, sel->include, sel->include_n);
	enum match out = match(&s->at, sel->exclude, sel->exclude_n);
	if (in == MATCH_NO || out == MATCH_WHOLE) return;
	item(l);
	bool look = (in == MATCH_BELOW || out == MATCH_BELOW) && s->at.n < VK_PATH_STEPS_MAX &&
		    (is_object(it->value) || is_array(it->value));
	if (!look) {
		put(s->b, it->whole);
		return;
	}
	vk_buf_put(s->b, it->whole.p, (size_t)(it->value.p - it->whole.p));
	select_value(s, it->value, in == MATCH_WHOLE);
}

static void select_value(struct selection *s, struct vk_bytes v, bool inside)
{
	struct vk_jt_walk w;
	struct vk_jt_item it;
	struct list l = {.b = s->b};
	bool object = is_object(v);
	size_t depth = s->at.n++;
	vk_buf_putc(s->b, object ? '{' : '[');
	vk_jt_open(&w, v);
	for (int64_t i = 0; vk_jt_next(&w, &it); i++) {
		s->at.key[depth] = it.key;
		s->at.index[depth] = i;
		select_member(s, &it, inside, &l);
	}
	if (w.bad) s->st = VK_E_CORRUPT;
	vk_buf_putc(s->b, object ? '}' : ']');
	s->at.n = depth;
}

enum vk_status vk_payload_write(struct vk_jw *w, struct vk_arena *scratch, struct vk_bytes text,
				const struct vk_payload_select *sel)
{
	struct selection *s;
	struct vk_buf b;
	enum vk_status st = trimmed(&text);
	if (st) return st;
	if (!sel->include && !sel->exclude) {
		vk_jw_raw(w, text);
		return VK_OK;
	}
	if (!(s = vk_arena_alloc(scratch, sizeof *s))) return VK_E_NOMEM;
	vk_buf_init(&b, text.n + 2);
	s->sel = sel;
	s->b = &b;
	s->at.n = 0;
	s->st = VK_OK;
	select_value(s, text, false);
	if (!s->st && b.failed) s->st = VK_E_NOMEM;
	if (!s->st) vk_jw_raw(w, vk_buf_bytes(&b));
	vk_buf_free(&b);
	return s->st;
}
