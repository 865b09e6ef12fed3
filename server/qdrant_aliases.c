/* Aliases: the lists, and changes of several in one commit. A key must be allowed each name that an action touches. */
#include "server/flows_qdrant.h"
#include "server/qdrant.h"

#define ACTIONS_MAX 10000

struct alias_flow {
	struct vk_alias_op *op;
	size_t n;
};

struct list {
	struct vk_qd *q;
	struct vk_jw *w;
	struct vk_bytes only; /* of this collection; p == NULL: all */
};

static bool put_alias(void *arg, struct vk_bytes alias, struct vk_bytes name)
{
	struct list *l = arg;
	if (l->only.p && !vk_bytes_eq(l->only, name)) return true;
	if (vk_qd_access(l->q->req, name, NULL)) return true;
	vk_jw_object(l->w);
	vk_jw_key(l->w, "alias_name");
	vk_jw_str(l->w, alias);
	vk_jw_key(l->w, "collection_name");
	vk_jw_str(l->w, name);
	vk_jw_object_end(l->w);
	return true;
}

static void write_list(struct vk_qd *q)
{
	struct vk_jw w;
	struct vk_error err = {0};
	struct list l = {q, &w, q->name};
	vk_qd_begin(q, &w);
	vk_jw_object(&w);
	vk_jw_key(&w, "aliases");
	vk_jw_array(&w);
	enum vk_status st = vk_collections_aliases(q->app->collections, put_alias, &l);
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	if (!st) {
		vk_qd_reply(q, &w);
		return;
	}
	vk_fail(&err, st, "the list of aliases cannot be read");
	vk_qd_fail(q, &err);
}

void vk_flow_aliases(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, false, false);
	if (q) vk_qd_run(q, write_list);
}

void vk_flow_collection_aliases(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false); /* 404 when there is none */
	if (q) vk_qd_run(q, write_list);
}

/* --- changes --- */

static enum vk_status read_name(struct vk_qd *q, const vk_jv *body, const char *key, struct vk_bytes *out, struct vk_error *err)
{
	if (!vk_jv_str(vk_jv_get(body, key), out)) return vk_qd_format(err, "actions: missing field `%s`", key);
	return vk_qd_access(q->req, *out, err);
}

static enum vk_status read_new_name(struct vk_qd *q, const vk_jv *body, const char *key, struct vk_bytes *out, struct vk_error *err)
{
	enum vk_status st = read_name(q, body, key, out, err);
	if (!st && vk_collection_name_check(*out, err)) st = vk_qd_validation(err, key, "not a name: %.300s", err->text);
	return st;
}

static enum vk_status read_action(struct vk_qd *q, const vk_jv *v, struct vk_alias_op *op, struct vk_error *err)
{
	const vk_jv *create = vk_jv_get(v, "create_alias"), *del = vk_jv_get(v, "delete_alias"), *rename = vk_jv_get(v, "rename_alias");
	enum vk_status st;
	if (vk_jv_type(create) == VK_J_OBJECT) {
		op->kind = VK_ALIAS_CREATE;
		st = read_name(q, create, "collection_name", &op->collection, err);
		return st ? st : read_new_name(q, create, "alias_name", &op->alias, err);
	}
	if (vk_jv_type(del) == VK_J_OBJECT) {
		op->kind = VK_ALIAS_DELETE;
		return read_name(q, del, "alias_name", &op->alias, err);
	}
	if (vk_jv_type(rename) == VK_J_OBJECT) {
		op->kind = VK_ALIAS_RENAME;
		st = read_name(q, rename, "old_alias_name", &op->alias, err);
		return st ? st : read_new_name(q, rename, "new_alias_name", &op->to, err);
	}
	return vk_qd_format(err, "data did not match any variant of untagged enum AliasOperations");
}

static enum vk_status read_actions(struct vk_qd *q, struct vk_error *err)
{
	const vk_jv *actions = vk_jv_get(q->body, "actions");
	size_t n = vk_jv_len(actions);
	struct alias_flow *f = vk_arena_calloc(&q->req->arena, 1, sizeof *f);
	if (vk_jv_type(actions) != VK_J_ARRAY) return vk_qd_format(err, "actions: expected a list of actions");
	if (n > ACTIONS_MAX) return vk_qd_wrong(err, "more than %d actions in one request", ACTIONS_MAX);
	if (f) f->op = vk_arena_calloc(&q->req->arena, n + 1, sizeof *f->op);
	if (!f || !f->op) return vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
	q->flow = f;
	enum vk_status st = VK_OK;
	for (const vk_jv *v = vk_jv_first(actions); v && !st; v = vk_jv_next(v)) st = read_action(q, v, &f->op[f->n++], err);
	return st;
}

static void change(struct vk_qd *q)
{
	struct alias_flow *f = q->flow;
	struct vk_error err = {0};
	enum vk_status st = f->n ? vk_collections_alias(q->app->collections, f->op, f->n, &err) : VK_OK;
	if (st) vk_qd_fail(q, &err);
	else vk_qd_reply_bool(q, true);
}

void vk_flow_aliases_change(void *app, struct vk_req *req)
{
	struct vk_error err = {0};
	struct vk_qd *q = vk_qd_new(app, req, false, true);
	if (!q) return;
	if (read_actions(q, &err)) vk_qd_fail(q, &err);
	else vk_qd_chore(q, change);
}
