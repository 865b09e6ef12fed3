/* Building the server in dependency order, taking it down in reverse, taking up a changed config. */
#include "server/app.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "index/collections.h"
#include "server/error.h"
#include "server/qdrant.h"
#include "simd/gemm.h"

#define CACHE_BYTES_DEFAULT ((uint64_t)20 << 30)
#define POOL_QUEUE 4096
#define CHORE_THREADS 4
#define CHORE_QUEUE 1024

static const char *env(void *arg, const char *name)
{
	const struct vk_app_opts *opts = arg;
	if (opts && opts->model_dir && strcmp(name, "VECKEEP_MODEL_DIR") == 0) return opts->model_dir;
	return getenv(name);
}

struct vk_registry *vk_app_registry(struct vk_app *app)
{
	pthread_mutex_lock(&app->lock);
	struct vk_registry *r = vk_registry_ref(app->registry);
	pthread_mutex_unlock(&app->lock);
	return r;
}

/* --- the HTTP door's callbacks --- */

static void handle(void *arg, struct vk_req *req)
{
	struct vk_app *app = arg;
	vk_router_dispatch(app->router, app, req, vk_wall_ms());
}

/* A snapshot is larger than any other body; only who may write sends one. */
static size_t body_max(void *arg, const struct vk_req *req)
{
	static const char head[] = "/collections/", tail[] = "/snapshots/upload";
	struct vk_app *app = arg;
	struct vk_bytes path = req->path;
	struct vk_auth who;
	if (req->method != VK_POST || path.n < sizeof head + sizeof tail - 1 || memcmp(path.p, head, sizeof head - 1) != 0 ||
	    memcmp(path.p + path.n - (sizeof tail - 1), tail, sizeof tail - 1) != 0)
		return 0;
	if (!req->peer_loopback && !vk_keys_any(app->keys) && !app->config.insecure) return 0;
	struct vk_bytes key = vk_req_header(req, "api-key");
	if (!key.p) key = vk_req_header(req, "x-api-key");
	if (vk_keys_authenticate(app->keys, vk_req_header(req, "Authorization"), key, false, vk_wall_ms(), &who, NULL)) return 0;
	return who.scopes & (VK_SCOPE_WRITE | VK_SCOPE_ADMIN) ? app->config.snapshot_bytes_max : 0;
}

static const char *const method_names[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
					   "OTHER"};

static void done(void *arg, const struct vk_req *req, int status, uint64_t duration_us,
		 uint64_t bytes_out)
{
	struct vk_app *app = arg;
	const char *route = req->route ? req->route : "none";
	char code[8];
	snprintf(code, sizeof code, "%d", status);
	vk_metric_add(vk_metric(app->metrics, VK_M_HTTP_REQUESTS, route, method_names[req->method], code),
		      1);
	vk_metric_observe_us(vk_metric(app->metrics, VK_M_HTTP_SECONDS, route), duration_us);
	if (app->config.access_log)
		vk_log(VK_LOG_INFO, "%s %s %d %llu us %llu bytes key=%s id=%s", method_names[req->method],
		       route, status, (unsigned long long)duration_us, (unsigned long long)bytes_out,
		       req->auth ? req->auth->key_id : "", req->id);
}

/* --- opening --- */

static uint64_t cache_budget(const struct vk_app *app)
{
	struct statvfs fs;
	if (app->config.cache_max_bytes) return app->config.cache_max_bytes;
	uint64_t budget = CACHE_BYTES_DEFAULT;
	if (!statvfs(app->datadir.path, &fs) && (uint64_t)fs.f_bavail * fs.f_frsize / 4 < budget)
		budget = (uint64_t)fs.f_bavail * fs.f_frsize / 4;
	return budget;
}

static const char *default_data_dir(struct vk_arena *a)
{
	const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	if (xdg && xdg[0]) return vk_arena_printf(a, "%s/veckeep", xdg);
	return home ? vk_arena_printf(a, "%s/.local/share/veckeep", home) : "veckeep-data";
}

static enum vk_status open_config(struct vk_app *app, const struct vk_app_opts *opts,
				  struct vk_error *err)
{
	const char *path = opts->config_path ? opts->config_path : getenv("VECKEEP_CONFIG");
	enum vk_status st = vk_config_load(&app->config, path, err);
	if (st) return st;
	struct vk_config *c = &app->config;
	const char *listen = opts->listen ? opts->listen : getenv("VECKEEP_LISTEN");
	const char *dir = opts->data_dir ? opts->data_dir : getenv("VECKEEP_DATA_DIR");
	if (listen) {
		const char **list = vk_arena_calloc(&c->arena, 64, sizeof *list);
		char *copy = vk_arena_strndup(&c->arena, listen, strlen(listen)), *save = NULL;
		size_t n = 0;
		for (char *p = copy && list ? strtok_r(copy, ",", &save) : NULL; p && n < 63;
		     p = strtok_r(NULL, ",", &save))
			list[n++] = p;
		if (n) c->listen = list;
	}
	if (dir) c->data_dir = dir;
	if (!c->data_dir) c->data_dir = default_data_dir(&c->arena);
	app->offline = c->offline || opts->offline;
	vk_log_set_level((enum vk_log_level)c->log_level);
	return VK_OK;
}

static enum vk_status open_stores(struct vk_app *app, const struct vk_app_opts *opts,
				  struct vk_error *err)
{
	char path[4200];
	enum vk_status st =
		vk_datadir_open(&app->datadir, app->config.data_dir, opts->lock_wait_ms, err);
	if (st) return st;
	snprintf(path, sizeof path, "%s/catalog", app->datadir.path);
	if ((st = vk_catalog_open(path, false, &app->catalog, err))) return st;
	struct vk_cachedb_opts cache = {.budget_bytes = cache_budget(app),
					.map_bytes = app->config.cache_map_bytes};
	snprintf(path, sizeof path, "%s/cache", app->datadir.path);
	if ((st = vk_cachedb_open(path, &cache, &app->cache, err))) return st;
	return vk_tenants_open(app->catalog, &app->tenants, err);
}

static enum vk_status open_collections(struct vk_app *app, struct vk_error *err)
{
	char dir[4200], snapshots[4200];
	snprintf(dir, sizeof dir, "%s/collections", app->datadir.path);
	snprintf(snapshots, sizeof snapshots, "%s/snapshots", app->datadir.path);
	struct vk_collections_opts o = {.catalog = app->catalog, .dir = dir, .snapshots_dir = snapshots,
					.open_max = app->config.collections_open,
					.map_bytes = app->config.collections_map_bytes};
	return vk_collections_open(&o, &app->collections, err);
}

/* A reader of this machine's network may only come in with a key, or with insecure written down. */
static enum vk_status check_bind(struct vk_app *app, struct vk_error *err)
{
	for (size_t i = 0; app->config.listen[i]; i++) {
		if (vk_listen_is_loopback(app->config.listen[i]) || vk_keys_any(app->keys)) continue;
		if (!app->config.insecure)
			return vk_fail(err, VK_E_INVALID,
				       "%s is reachable from other machines and there is no API key: set "
				       "VECKEEP_ADMIN_KEY (or keys in the config), or write \"insecure\": true",
				       app->config.listen[i]);
		vk_log(VK_LOG_WARN, "%s is open to everybody: \"insecure\": true is set",
		       app->config.listen[i]);
	}
	return VK_OK;
}

static enum vk_status open_embed(struct vk_app *app, struct vk_error *err)
{
	struct vk_registry_env e = {env, &app->opts};
	uint64_t seed;
	enum vk_status st = vk_registry_load(app->config.root, app->config.base_dir, &e, app->catalog, NULL,
					     &app->registry, err);
	if (st) return st;
	if (!(app->pool = vk_pool_new(0, POOL_QUEUE, "vk-pool")))
		return vk_fail(err, VK_E_NOMEM, "no threads for the compute pool");
	if (!(app->chores = vk_pool_new(CHORE_THREADS, CHORE_QUEUE, "vk-chore")))
		return vk_fail(err, VK_E_NOMEM, "no threads for chores");
	if ((st = vk_upstream_start(&app->upstream, err))) return st;
	vk_random(&seed, sizeof seed);
	struct vk_engine_opts engine = {
		.cache = app->cache, .catalog = app->catalog, .tenants = app->tenants,
		.upstream = app->upstream, .pool = app->pool, .seed = seed,
		.queue_max = app->config.queue_max,
	};
	st = vk_engine_new(&engine, &app->engine);
	return st ? vk_fail(err, st, "out of memory") : VK_OK;
}

static enum vk_status open_http(struct vk_app *app, struct vk_error *err)
{
	enum vk_status st = vk_keys_open(app->catalog, &app->keys, err);
	if (!st)
		st = vk_keys_set_config(app->keys, vk_jv_get(app->config.root, "keys"),
					app->config.base_dir, err);
	if (!st) st = check_bind(app, err);
	if (!st) st = vk_router_new(vk_routes, vk_routes_n, app->keys, &app->router, err);
	if (st) return st;
	vk_router_set_forward(app->router, vk_registry_forwards(app->registry));
	vk_router_set_insecure(app->router, app->config.insecure);
	if (!(app->metrics = vk_metrics_new())) return vk_fail(err, VK_E_NOMEM, "out of memory");
	size_t n = 0;
	while (app->config.listen[n]) n++;
	struct vk_http_opts http = {
		.listen = app->config.listen, .listen_n = n, .threads = app->config.http_threads,
		.limits = app->config.http, .hosts = app->config.hosts, .handler = handle, .app = app,
		.done = done, .reject = vk_reply_reject, .body_max = body_max,
	};
	return vk_http_start(&http, &app->http, err);
}

/* LISTEN: who we are listening as, one "host:port" a line, there once we are ready. */
static void write_listen_file(const struct vk_app *app)
{
	char tmp[4200], path[4200];
	snprintf(tmp, sizeof tmp, "%s/LISTEN.tmp", app->datadir.path);
	snprintf(path, sizeof path, "%s/LISTEN", app->datadir.path);
	FILE *f = fopen(tmp, "we");
	if (!f) return;
	for (size_t i = 0; i < vk_http_addresses(app->http); i++)
		fprintf(f, "%s\n", vk_http_address(app->http, i));
	if (fclose(f) == 0 && rename(tmp, path)) unlink(tmp);
}

enum vk_status vk_app_open(struct vk_app *app, const struct vk_app_opts *opts, struct vk_error *err)
{
	memset(app, 0, sizeof *app);
	app->opts = *opts;
	app->datadir.lock_fd = -1;
	pthread_mutex_init(&app->lock, NULL);
	app->started_ms = vk_mono_ms();
	vk_gemm_init(); /* before other threads read the environment */
	enum vk_status st = open_config(app, opts, err);
	if (!st) st = open_stores(app, opts, err);
	if (!st) st = open_collections(app, err);
	if (!st) st = open_embed(app, err);
	if (!st) st = open_http(app, err);
	if (st) {
		vk_app_close(app);
		return st;
	}
	app->ready = true;
	write_listen_file(app);
	return VK_OK;
}

void vk_app_close(struct vk_app *app)
{
	char path[4200];
	app->ready = false;
	snprintf(path, sizeof path, "%s/LISTEN", app->datadir.path);
	if (app->http) {
		unlink(path);
		vk_http_quiesce(app->http);
		vk_http_stop(app->http);
	}
	if (app->engine) vk_engine_stop(app->engine);
	if (app->upstream) vk_upstream_stop(app->upstream);
	vk_pool_free(app->pool);
	vk_pool_free(app->chores);
	vk_qd_part(app);
	if (app->collections) vk_collections_close(app->collections);
	if (app->engine) vk_engine_flush_usage(app->engine, vk_wall_ms());
	/* The writer's callbacks look at the engine: the cache closes first. */
	if (app->cache) vk_cachedb_close(app->cache);
	vk_engine_free(app->engine);
	if (app->router) vk_router_free(app->router);
	if (app->keys) vk_keys_close(app->keys);
	if (app->metrics) vk_metrics_free(app->metrics);
	vk_registry_unref(app->registry);
	vk_tenants_close(app->tenants);
	if (app->catalog) vk_catalog_close(app->catalog);
	if (app->datadir.path[0]) vk_datadir_close(&app->datadir);
	vk_config_free(&app->config);
	pthread_mutex_destroy(&app->lock);
}

/* --- taking up a changed file --- */

static void refuse(struct vk_app *app, const struct vk_error *err)
{
	vk_log(VK_LOG_ERROR, "changed config refused, the old one serves on: %s", err->text);
	pthread_mutex_lock(&app->lock);
	snprintf(app->config_error, sizeof app->config_error, "%s", err->text);
	pthread_mutex_unlock(&app->lock);
}

/* Only what can change while serving is taken from the new file: providers, spaces, models, keys,
 * offline, log level. Listeners, limits, the data directory and thread counts wait for
 * a restart. The old text and tree stay alive in the old arena's place: requests copy nothing from
 * them. */
static void take_up(struct vk_app *app, struct vk_config *next)
{
	struct vk_error err = {0};
	struct vk_registry_env e = {env, &app->opts};
	struct vk_registry *r = NULL;
	enum vk_status st = vk_registry_load(next->root, next->base_dir, &e, app->catalog, app->registry,
					     &r, &err);
	if (!st)
		st = vk_keys_set_config(app->keys, vk_jv_get(next->root, "keys"), next->base_dir, &err);
	if (st) {
		vk_registry_unref(r);
		refuse(app, &err);
		return;
	}
	pthread_mutex_lock(&app->lock);
	struct vk_registry *old = app->registry;
	app->registry = r;
	app->config_error[0] = 0;
	pthread_mutex_unlock(&app->lock);
	vk_registry_unref(old);
	vk_router_set_forward(app->router, vk_registry_forwards(r));
	app->offline = next->offline || app->opts.offline;
	vk_log_set_level((enum vk_log_level)next->log_level);
	vk_engine_kick(app->engine);
	vk_log(VK_LOG_INFO, "config taken up: %s", next->path);
}

void vk_app_reload(struct vk_app *app)
{
	static const char nothing[] = "";
	struct vk_config next;
	struct vk_error err = {0};
	if (!app->config.path) return;
	enum vk_status st = vk_config_load(&next, app->config.path, &err);
	const char *text = next.text ? next.text : nothing;
	bool same = next.text_n == app->config.text_n &&
		    memcmp(text, app->config.text ? app->config.text : nothing, next.text_n) == 0;
	if (!same) {
		if (st)
			refuse(app, &err);
		else
			take_up(app, &next);
		/* Remember this text, good or bad, so that it is judged once. */
		char *copy = vk_arena_strndup(&app->config.arena, text, next.text_n);
		if (copy) {
			app->config.text = copy;
			app->config.text_n = next.text_n;
		}
	}
	vk_config_free(&next);
}
