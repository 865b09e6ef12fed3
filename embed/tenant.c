/* Pools: the default one, and one a forwarded bearer. */
#include "embed/tenant.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "store/record.h"

#define PROVISIONAL 0x80000000u
#define CLIENT_PREFIX "client:"

struct vk_tenants {
	struct vk_catalog *catalog;
	pthread_mutex_t lock; /* guards the list's head, the count, and storing */
	struct vk_tenant *first;
	struct vk_tenant *def;
	uint32_t clients, provisional;
};

static void set_secrets(struct vk_tenant *t, const struct vk_rec_pool *r)
{
	size_t n = r->secrets < VK_TENANT_SECRETS_MAX ? r->secrets : VK_TENANT_SECRETS_MAX;
	for (size_t i = 0; i < n; i++)
		vk_hmac_key_init(&t->secret[i], r->secret[i], VK_POOL_SECRET_SIZE);
	t->secrets_n = n;
}

static struct vk_tenant *add(struct vk_tenants *ts, struct vk_bytes name)
{
	struct vk_tenant *t = calloc(1, sizeof *t);
	if (!t || name.n >= sizeof t->name) {
		free(t);
		return NULL;
	}
	memcpy(t->name, name.p, name.n);
	t->next = ts->first;
	ts->first = t;
	return t;
}

static bool load_one(void *arg, struct vk_bytes key, struct vk_bytes value)
{
	struct vk_tenants *ts = arg;
	struct vk_rec_pool r;
	if (!vk_rec_pool_decode(&r, value)) return true;
	struct vk_tenant *t = add(ts, key);
	if (!t) return false;
	t->id = r.id;
	set_secrets(t, &r);
	if (strcmp(t->name, "default") == 0)
		ts->def = t;
	else
		ts->clients++;
	vk_wipe(&r, sizeof r);
	return true;
}

static enum vk_status store(struct vk_tenants *ts, const char *name, uint32_t id,
			    const struct vk_rec_pool *from)
{
	struct vk_buf value;
	struct vk_rec_pool r = *from;
	vk_buf_init(&value, 4096);
	r.id = id;
	vk_rec_pool_encode(&value, &r);
	struct vk_catalog_op op = {VK_TABLE_POOL, vk_bytes_of(name), vk_buf_bytes(&value)};
	enum vk_status st = value.failed ? VK_E_NOMEM : vk_catalog_commit(ts->catalog, &op, 1);
	if (value.p) vk_wipe(value.p, value.n);
	vk_buf_free(&value);
	vk_wipe(&r, sizeof r);
	return st;
}

static enum vk_status make_default(struct vk_tenants *ts)
{
	struct vk_rec_pool r = {.created_ms = vk_wall_ms(), .secrets = 1};
	vk_random(r.secret[0], VK_POOL_SECRET_SIZE);
	uint32_t id;
	enum vk_status st = vk_catalog_intern(ts->catalog, VK_NAME_POOL, VK_LIT("default"), &id);
	if (!st) st = store(ts, "default", id, &r);
	if (!st && !(ts->def = add(ts, VK_LIT("default")))) st = VK_E_NOMEM;
	if (!st) {
		ts->def->id = id;
		set_secrets(ts->def, &r);
	}
	vk_wipe(&r, sizeof r);
	return st;
}

enum vk_status vk_tenants_open(struct vk_catalog *catalog, struct vk_tenants **out,
			       struct vk_error *err)
{
	*out = NULL;
	struct vk_tenants *ts = calloc(1, sizeof *ts);
	if (!ts) return vk_fail(err, VK_E_NOMEM, "out of memory");
	ts->catalog = catalog;
	pthread_mutex_init(&ts->lock, NULL);
	enum vk_status st = vk_catalog_scan(catalog, VK_TABLE_POOL, VK_LIT(""), load_one, ts);
	if (!st && !ts->def) st = make_default(ts);
	if (st) {
		vk_tenants_close(ts);
		return vk_fail(err, st, "cannot read the pools from the catalog: %s",
			       vk_status_text(st));
	}
	*out = ts;
	return VK_OK;
}

void vk_tenants_close(struct vk_tenants *ts)
{
	if (!ts) return;
	while (ts->first) {
		struct vk_tenant *t = ts->first;
		ts->first = t->next;
		vk_wipe(t, sizeof *t);
		free(t);
	}
	pthread_mutex_destroy(&ts->lock);
	free(ts);
}

const struct vk_tenant *vk_tenants_default(const struct vk_tenants *ts)
{
	return ts->def;
}

static struct vk_tenant *find_locked(struct vk_tenants *ts, struct vk_bytes name)
{
	struct vk_tenant *t = ts->first;
	while (t && !vk_bytes_is(name, t->name)) t = t->next;
	return t;
}

const struct vk_tenant *vk_tenants_find(struct vk_tenants *ts, struct vk_bytes name)
{
	pthread_mutex_lock(&ts->lock);
	const struct vk_tenant *t = find_locked(ts, name);
	pthread_mutex_unlock(&ts->lock);
	return t;
}

enum vk_status vk_tenants_client(struct vk_tenants *ts, struct vk_bytes bearer,
				 const struct vk_tenant **out)
{
	/* Named by the bearer's MAC under the default pool's oldest secret: it stays the same when
	 * that pool's secret is rotated, and nobody can guess a bearer from a name. */
	uint8_t mac[VK_SHA256_SIZE];
	char name[48] = CLIENT_PREFIX;
	vk_hmac(&ts->def->secret[ts->def->secrets_n - 1], bearer.p, bearer.n, mac);
	vk_hex(name + sizeof CLIENT_PREFIX - 1, mac, 16);
	enum vk_status st = VK_OK;
	pthread_mutex_lock(&ts->lock);
	struct vk_tenant *t = find_locked(ts, vk_bytes_of(name));
	if (!t && ts->clients >= VK_TENANTS_CLIENT_MAX) st = VK_E_BUSY;
	if (!t && !st) {
		t = add(ts, vk_bytes_of(name));
		if (t) {
			t->id = PROVISIONAL | ++ts->provisional;
			vk_random(t->raw, sizeof t->raw);
			vk_hmac_key_init(&t->secret[0], t->raw, sizeof t->raw);
			t->secrets_n = 1;
			ts->clients++;
		} else {
			st = VK_E_NOMEM;
		}
	}
	pthread_mutex_unlock(&ts->lock);
	*out = t;
	return st;
}

enum vk_status vk_tenants_accept(struct vk_tenants *ts, const struct vk_tenant *tenant)
{
	struct vk_tenant *t = (struct vk_tenant *)tenant; /* ours: handed out as const */
	if (!vk_tenant_provisional(t)) return VK_OK;
	enum vk_status st = VK_OK;
	pthread_mutex_lock(&ts->lock);
	if (vk_tenant_provisional(t)) {
		struct vk_rec_pool r = {.created_ms = vk_wall_ms(), .secrets = 1};
		uint32_t id;
		memcpy(r.secret[0], t->raw, sizeof t->raw);
		st = vk_catalog_intern(ts->catalog, VK_NAME_POOL, vk_bytes_of(t->name), &id);
		if (!st) st = store(ts, t->name, id, &r);
		if (!st) {
			t->id = id;
			vk_wipe(t->raw, sizeof t->raw);
		}
		vk_wipe(&r, sizeof r);
	}
	pthread_mutex_unlock(&ts->lock);
	return st;
}

enum vk_status vk_tenants_rotate(struct vk_tenants *ts, struct vk_error *err)
{
	struct vk_buf old;
	struct vk_rec_pool r;
	vk_buf_init(&old, 4096);
	pthread_mutex_lock(&ts->lock);
	enum vk_status st = vk_catalog_get(ts->catalog, VK_TABLE_POOL, VK_LIT("default"), &old);
	if (!st && !vk_rec_pool_decode(&r, vk_buf_bytes(&old))) st = VK_E_CORRUPT;
	if (!st && r.secrets >= VK_TENANT_SECRETS_MAX) r.secrets = VK_TENANT_SECRETS_MAX - 1;
	if (!st) {
		memmove(r.secret[1], r.secret[0], r.secrets * sizeof r.secret[0]);
		vk_random(r.secret[0], VK_POOL_SECRET_SIZE);
		r.secrets++;
		st = store(ts, "default", r.id, &r);
	}
	pthread_mutex_unlock(&ts->lock);
	vk_wipe(&r, sizeof r);
	if (old.p) vk_wipe(old.p, old.n);
	vk_buf_free(&old);
	/* Requests read the secrets without a lock: the running server takes them up at its next
	 * start; until then it goes on under the old ones, which stay in the list. */
	return st ? vk_fail(err, st, "cannot rotate the pool's secret: %s", vk_status_text(st)) : VK_OK;
}
