/*
 * The server as one long-lived struct: built in dependency order by vk_app_open(), torn down in
 * reverse by vk_app_close(); handlers get it as their `app`.
 *
 * Threads: `registry` is swapped under `lock` when the config changes; a request takes a reference
 * (vk_app_registry) and keeps it to its end. Everything else is set once.
 */
#ifndef VK_SERVER_APP_H
#define VK_SERVER_APP_H

#include <pthread.h>
#include <stdatomic.h>

#include "embed/engine.h"
#include "server/auth.h"
#include "server/config.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/router.h"
#include "store/datadir.h"

struct vk_collections; /* index/collections.h */
struct vk_parted;      /* server/qdrant.h */

struct vk_app_opts {              /* the command line's word; NULL = not said; strings outlive the app */
	const char *config_path, *data_dir, *listen, *model_dir;
	uint64_t lock_wait_ms;
	bool offline;
};

struct vk_app {
	struct vk_config config;
	struct vk_datadir datadir;
	struct vk_catalog *catalog;
	struct vk_collections *collections;
	_Atomic(struct vk_parted *) parted; /* references to collections that wait to be given back: server/qdrant.h */
	struct vk_cachedb *cache;
	struct vk_tenants *tenants;
	struct vk_upstream *upstream;
	struct vk_pool *pool;         /* compute: its jobs never wait */
	struct vk_pool *chores;       /* what waits for commits and files: configs, snapshots, sweeping */
	struct vk_engine *engine;
	struct vk_keys *keys;
	struct vk_router *router;
	struct vk_metrics *metrics;
	struct vk_http *http;
	uint64_t started_ms;          /* monotonic */

	pthread_mutex_t lock;         /* guards registry and config_error */
	struct vk_registry *registry;
	char config_error[VK_ERROR_TEXT_MAX]; /* why a changed config was refused; "" = fine */
	_Atomic bool offline, ready, sweeping;
	struct vk_app_opts opts;      /* goes before the config, also before a changed one */
	atomic_uint light_us[256]; /* what plain searches took lately, by vector: server/qdrant_light.c */
	_Atomic uint64_t seen[1 << 14]; /* provenance of derived rows that was written lately */
};

enum vk_status vk_app_open(struct vk_app *app, const struct vk_app_opts *opts, struct vk_error *err);
/* Drains and closes. */
void vk_app_close(struct vk_app *app);
/* Looks whether the config file changed and takes it up, or refuses it and says so. */
void vk_app_reload(struct vk_app *app);
/* A reference; give it back with vk_registry_unref(). */
struct vk_registry *vk_app_registry(struct vk_app *app);

/* The table of routes (routes.c). */
extern const struct vk_route vk_routes[];
extern const size_t vk_routes_n;

#endif
