/* Aliases: a list of changes, worked out on a copy of the array, then one commit of what differs. */
#include "index/collections_internal.h"

#include <stdlib.h>
#include <string.h>

struct plan {
	struct vk_collections *cs;
	struct vk_calias *alias; /* room for one more per op */
	size_t n;
	struct vk_error *err;
};

static int shown(struct vk_bytes b)
{
	return (int)(b.n < VK_NAME_MAX ? b.n : VK_NAME_MAX);
}

static void plan_put(struct plan *p, struct vk_bytes name, struct vk_bytes collection)
{
	bool found;
	size_t i = vk_calias_at(p->alias, p->n, name, &found);
	if (!found) {
		memmove(&p->alias[i + 1], &p->alias[i], (p->n - i) * sizeof *p->alias);
		p->n++;
	}
	p->alias[i] = (struct vk_calias){0};
	memcpy(p->alias[i].name, name.p, name.n);
	memcpy(p->alias[i].collection, collection.p, collection.n);
}

static void plan_remove(struct plan *p, size_t i)
{
	p->n--;
	memmove(&p->alias[i], &p->alias[i + 1], (p->n - i) * sizeof *p->alias);
}

/* A name that an alias may have: well-formed, and no collection's. Holds admin: the entries stay. */
static enum vk_status check_alias(struct plan *p, struct vk_bytes alias)
{
	bool found;
	enum vk_status st = vk_collection_name_check(alias, p->err);
	if (st) return st;
	vk_centry_at(p->cs, alias, &found);
	return found ? vk_collection_there(alias, p->err) : VK_OK;
}

static enum vk_status plan_create(struct plan *p, const struct vk_alias_op *op)
{
	bool found;
	vk_centry_at(p->cs, op->collection, &found);
	enum vk_status st = found ? VK_OK : vk_collection_missing(op->collection, p->err);
	if (!st) st = check_alias(p, op->alias);
	if (!st) plan_put(p, op->alias, op->collection);
	return st;
}

/* One that is not there is gone already. */
static enum vk_status plan_delete(struct plan *p, const struct vk_alias_op *op)
{
	bool found;
	size_t i = vk_calias_at(p->alias, p->n, op->alias, &found);
	if (found) plan_remove(p, i);
	return VK_OK;
}

static enum vk_status plan_rename(struct plan *p, const struct vk_alias_op *op)
{
	bool found;
	size_t i = vk_calias_at(p->alias, p->n, op->alias, &found);
	if (!found)
		return vk_fail(p->err, VK_E_NOT_FOUND, "Not found: Alias %.*s does not exists!", shown(op->alias), op->alias.p);
	enum vk_status st = check_alias(p, op->to);
	if (st) return st;
	struct vk_calias old = p->alias[i];
	plan_remove(p, i);
	plan_put(p, op->to, vk_bytes_of(old.collection));
	return VK_OK;
}

static enum vk_status plan_op(struct plan *p, const struct vk_alias_op *op)
{
	switch (op->kind) {
	case VK_ALIAS_CREATE:
		return plan_create(p, op);
	case VK_ALIAS_DELETE:
		return plan_delete(p, op);
	case VK_ALIAS_RENAME:
		return plan_rename(p, op);
	}
	return vk_fail(p->err, VK_E_INVALID, "Wrong input: no such alias operation");
}

/* What is in one list and not, or otherwise, in the other. */
static enum vk_status commit_plan(struct plan *p)
{
	struct vk_collections *cs = p->cs;
	size_t n = 0;
	bool found;
	struct vk_catalog_op *ops = calloc(cs->alias_n + p->n + 1, sizeof *ops);
	if (!ops) return vk_fail(p->err, VK_E_NOMEM, "no memory");
	for (size_t i = 0; i < cs->alias_n; i++) {
		struct vk_bytes name = vk_bytes_of(cs->alias[i].name);
		vk_calias_at(p->alias, p->n, name, &found);
		if (!found) ops[n++] = (struct vk_catalog_op){VK_TABLE_ALIAS, name, {0}};
	}
	for (size_t i = 0; i < p->n; i++) {
		struct vk_bytes name = vk_bytes_of(p->alias[i].name), to = vk_bytes_of(p->alias[i].collection);
		size_t at = vk_calias_at(cs->alias, cs->alias_n, name, &found);
		if (found && strcmp(cs->alias[at].collection, p->alias[i].collection) == 0) continue;
		ops[n++] = (struct vk_catalog_op){VK_TABLE_ALIAS, name, to};
	}
	enum vk_status st = vk_catalog_commit(cs->catalog, ops, n);
	free(ops);
	return st ? vk_fail(p->err, st, "The catalog cannot be written: %s", vk_status_text(st)) : VK_OK;
}

enum vk_status vk_collections_alias(struct vk_collections *cs, const struct vk_alias_op *ops, size_t n, struct vk_error *err)
{
	if (cs->read_only) return vk_fail(err, VK_E_INVALID, "Opened for reading only.");
	/* Who holds admin reads the arrays without the lock: nobody else changes them. */
	pthread_mutex_lock(&cs->admin);
	struct plan p = {.cs = cs, .n = cs->alias_n, .err = err};
	p.alias = calloc(cs->alias_n + n + 1, sizeof *p.alias);
	enum vk_status st = p.alias ? VK_OK : vk_fail(err, VK_E_NOMEM, "no memory");
	if (!st && cs->alias_n) memcpy(p.alias, cs->alias, cs->alias_n * sizeof *p.alias);
	for (size_t i = 0; i < n && !st; i++) st = plan_op(&p, &ops[i]);
	if (!st) st = commit_plan(&p);
	if (!st) {
		pthread_mutex_lock(&cs->lock);
		struct vk_calias *old = cs->alias;
		cs->alias = p.alias;
		cs->alias_n = p.n;
		p.alias = old;
		pthread_mutex_unlock(&cs->lock);
	}
	pthread_mutex_unlock(&cs->admin);
	free(p.alias);
	return st;
}

enum vk_status vk_collections_aliases(struct vk_collections *cs, bool (*fn)(void *arg, struct vk_bytes alias, struct vk_bytes name), void *arg)
{
	pthread_mutex_lock(&cs->lock);
	size_t n = cs->alias_n;
	struct vk_calias *copy = calloc(n + 1, sizeof *copy);
	if (copy && n) memcpy(copy, cs->alias, n * sizeof *copy);
	pthread_mutex_unlock(&cs->lock);
	if (!copy) return VK_E_NOMEM;
	for (size_t i = 0; i < n; i++)
		if (!fn(arg, vk_bytes_of(copy[i].name), vk_bytes_of(copy[i].collection))) break;
	free(copy);
	return VK_OK;
}
