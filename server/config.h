/*
 * The one config file: JSON with comments (DESIGN section 11, docs/config.md). Read whole and
 * checked whole; errors name file, line or key. What belongs to other rooms (providers, spaces,
 * models, keys) is handed to them as parsed JSON.
 *
 * Precedence: command line, environment (VECKEEP_*), file, default.
 */
#ifndef VK_SERVER_CONFIG_H
#define VK_SERVER_CONFIG_H

#include <sys/stat.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/status.h"
#include "server/http.h"

/* Limits of requests, in one list; `limits` of the config changes them. */
#define VK_LIMIT_INPUTS 2048              /* inputs a request, as OpenAI's */
#define VK_LIMIT_TEXT_BYTES (1u << 20)    /* one text */
#define VK_LIMIT_TOKENS 131072            /* one token array */
#define VK_LIMIT_MODEL_BYTES 512          /* a model name */
#define VK_LIMIT_REPLY_BYTES ((size_t)1 << 30)
#define VK_LIMIT_SNAPSHOT_BYTES ((size_t)1 << 30)
#define VK_DEADLINE_MS 55000              /* under the 60 s that most clients and proxies wait */
#define VK_INTERACTIVE_INPUTS 8           /* requests of so few inputs go first */

struct vk_config {
	struct vk_arena arena;
	struct vk_json *doc;        /* NULL: no file */
	const vk_jv *root;          /* NULL: no file */
	const char *path, *base_dir;/* path NULL: no file */
	const char *text;           /* what was read, for telling whether it changed */
	size_t text_n;
	const char *const *listen;
	const char *data_dir;
	const char *const *hosts;
	uint64_t cache_max_bytes;   /* 0: the default (20 GiB or a quarter of the free disk) */
	uint64_t cache_map_bytes;
	unsigned collections_open;  /* without a user, 0: 256 */
	uint64_t collections_map_bytes;
	bool offline, insecure;
	int log_level;
	bool access_log;
	unsigned http_threads;
	struct vk_http_limits http;
	size_t inputs_max, text_bytes_max;
	size_t snapshot_bytes_max;  /* of an uploaded snapshot: its body lies in memory */
	uint64_t deadline_ms;
	size_t queue_max;
};

/* path NULL: defaults. Free with vk_config_free(), also after a failure. */
enum vk_status vk_config_load(struct vk_config *c, const char *path, struct vk_error *err);
void vk_config_free(struct vk_config *c);

#endif
