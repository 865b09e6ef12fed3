/* The config file's own part: listeners, limits, cache, log. */
#include "server/config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cfg.h"
#include "base/log.h"

#define FILE_MAX ((size_t)8 << 20)
#define TOP                                                                                        \
	"listen data_dir providers spaces models cache collections pools keys limits tls log insecure offline "  \
	"hosts threads $schema"

static const char *const default_listen[] = {"127.0.0.1:8325", NULL};
static const char *const none[] = {NULL};

static enum vk_status read_file(struct vk_config *c, struct vk_error *err)
{
	int fd = open(c->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return vk_fail(err, VK_E_NOT_FOUND, "%s: %s", c->path, strerror(errno));
	struct vk_buf text;
	vk_buf_init(&text, FILE_MAX);
	for (;;) {
		char *p = vk_buf_reserve(&text, 65536);
		ssize_t n = p ? read(fd, p, 65536) : -1;
		if (n <= 0) {
			if (n < 0) text.failed = true;
			break;
		}
		text.n += (size_t)n;
	}
	close(fd);
	c->text = vk_arena_strndup(&c->arena, vk_buf_cstr(&text), text.n);
	c->text_n = text.n;
	bool bad = text.failed || !c->text;
	vk_buf_free(&text);
	return bad ? vk_fail(err, VK_E_INVALID, "%s: cannot be read, or is larger than 8 MiB", c->path)
		   : VK_OK;
}

static void read_limits(struct vk_config *c, struct vk_cfg *cfg, const vk_jv *v)
{
	vk_cfg_object(cfg, v, "limits",
		      "body header connections per_ip inputs text_bytes deadline queue head_timeout "
		      "body_timeout idle_timeout drain snapshot");
	c->http.body_max = vk_cfg_size(cfg, v, "limits", "body", 0);
	c->http.header_max = vk_cfg_size(cfg, v, "limits", "header", 0);
	c->http.connections_max = (unsigned)vk_cfg_u64(cfg, v, "limits", "connections", 0, 0, 1000000);
	c->http.per_ip_max = (unsigned)vk_cfg_u64(cfg, v, "limits", "per_ip", 0, 0, 1000000);
	c->http.head_timeout_ms = vk_cfg_duration_ms(cfg, v, "limits", "head_timeout", 0);
	c->http.body_timeout_ms = vk_cfg_duration_ms(cfg, v, "limits", "body_timeout", 0);
	c->http.idle_timeout_ms = vk_cfg_duration_ms(cfg, v, "limits", "idle_timeout", 0);
	c->http.drain_ms = vk_cfg_duration_ms(cfg, v, "limits", "drain", 0);
	c->inputs_max = vk_cfg_u64(cfg, v, "limits", "inputs", VK_LIMIT_INPUTS, 1, 100000);
	c->text_bytes_max = vk_cfg_size(cfg, v, "limits", "text_bytes", VK_LIMIT_TEXT_BYTES);
	c->snapshot_bytes_max = vk_cfg_size(cfg, v, "limits", "snapshot", VK_LIMIT_SNAPSHOT_BYTES);
	c->deadline_ms = vk_cfg_duration_ms(cfg, v, "limits", "deadline", VK_DEADLINE_MS);
	c->queue_max = vk_cfg_u64(cfg, v, "limits", "queue", 0, 0, 100000000);
}

/* Parts of the file format that a later version serves: refused, so that nobody relies on them. */
static void refuse_later(struct vk_cfg *cfg, const vk_jv *root)
{
	if (vk_jv_len(vk_jv_get(root, "tls")))
		vk_cfg_fail(cfg, "tls", "this version does not terminate TLS: put a proxy in front");
	if (vk_jv_len(vk_jv_get(root, "pools")))
		vk_cfg_fail(cfg, "pools", "this version has one pool of its own (\"default\")");
}

static void read_top(struct vk_config *c, struct vk_cfg *cfg)
{
	const vk_jv *root = c->root;
	if (root && !vk_cfg_object(cfg, root, "", TOP) && !cfg->failed)
		vk_cfg_fail(cfg, "", "expected an object");
	const char *const *listen = vk_cfg_list(cfg, root, "", "listen");
	c->listen = listen[0] ? listen : default_listen;
	c->data_dir = vk_cfg_file(cfg, root, "", "data_dir", NULL);
	c->hosts = vk_cfg_list(cfg, root, "", "hosts");
	c->insecure = vk_cfg_bool(cfg, root, "", "insecure", false);
	c->offline = vk_cfg_bool(cfg, root, "", "offline", false);
	c->http_threads = (unsigned)vk_cfg_u64(cfg, root, "", "threads", 0, 0, 256);
	const vk_jv *cache = vk_jv_get(root, "cache");
	vk_cfg_object(cfg, cache, "cache", "max_bytes map_bytes");
	c->cache_max_bytes = vk_cfg_size(cfg, cache, "cache", "max_bytes", 0);
	c->cache_map_bytes = vk_cfg_size(cfg, cache, "cache", "map_bytes", 0);
	const vk_jv *collections = vk_jv_get(root, "collections");
	vk_cfg_object(cfg, collections, "collections", "open map_bytes");
	c->collections_open = (unsigned)vk_cfg_u64(cfg, collections, "collections", "open", 0, 0, 100000);
	c->collections_map_bytes = vk_cfg_size(cfg, collections, "collections", "map_bytes", 0);
	const vk_jv *log = vk_jv_get(root, "log");
	vk_cfg_object(cfg, log, "log", "level access");
	const char *level = vk_cfg_str(cfg, log, "log", "level", "info");
	c->log_level = vk_log_level_of(level);
	if (c->log_level < 0)
		vk_cfg_fail(cfg, "log.level", "expected debug, info, warn, error or off");
	c->access_log = vk_cfg_bool(cfg, log, "log", "access", false);
	read_limits(c, cfg, vk_jv_get(root, "limits"));
	refuse_later(cfg, root);
}

static const char *env(void *arg, const char *name)
{
	(void)arg;
	return getenv(name);
}

enum vk_status vk_config_load(struct vk_config *c, const char *path, struct vk_error *err)
{
	struct vk_error inner = {0};
	*c = (struct vk_config){.hosts = none, .listen = default_listen, .log_level = VK_LOG_INFO};
	vk_arena_init(&c->arena, 8 * FILE_MAX);
	struct vk_cfg cfg = {.arena = &c->arena, .getenv = env, .err = &inner};
	if (path) {
		char *copy = vk_arena_strndup(&c->arena, path, strlen(path));
		c->path = vk_arena_strndup(&c->arena, path, strlen(path));
		c->base_dir = copy ? dirname(copy) : ".";
		cfg.base_dir = c->base_dir;
		struct vk_json_opts opts = {.comments = true};
		enum vk_status st = read_file(c, err);
		if (st) return st;
		struct vk_bytes text = {c->text, c->text_n};
		st = vk_json_parse(&c->arena, text, &opts, &c->doc, &inner);
		if (st) return vk_fail(err, VK_E_INVALID, "%s: %s", path, inner.text);
		c->root = vk_json_root(c->doc);
	}
	read_top(c, &cfg);
	if (!cfg.failed) return VK_OK;
	return path ? vk_fail(err, VK_E_INVALID, "%s: %s", path, inner.text)
		    : vk_fail(err, VK_E_INVALID, "%s", inner.text);
}

void vk_config_free(struct vk_config *c)
{
	vk_json_free(c->doc);
	vk_arena_free(&c->arena);
	*c = (struct vk_config){0};
}
