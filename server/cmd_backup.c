/* veckeep backup and restore. A server, where one answers, makes its own backup; without one, and
 * with --data-dir, the files are opened read-only here. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "index/collections.h"
#include "server/cli_client.h"
#include "server/cmd.h"
#include "server/progress.h"
#include "store/backup.h"
#include "store/datadir.h"

#define BACKUP_TIMEOUT_MS ((uint64_t)24 * 3600 * 1000)

struct opts {
	const char *data_dir;
};

static const struct vk_opt table[] = {
	{"data-dir", 'd', VK_OPT_STR, offsetof(struct opts, data_dir), "DIR",
	 "the data directory (VECKEEP_DATA_DIR; $XDG_DATA_HOME/veckeep)"},
	{0},
};

static const struct vk_opt backup_table[] = {
	{"data-dir", 'd', VK_OPT_STR, offsetof(struct opts, data_dir), "DIR",
	 "when no server answers: read this data directory itself"},
	{0},
};

/* Absolute without asking the file system: the target need not be there. False: too long. */
static bool absolute(const char *path, char *dst, size_t cap)
{
	char here[2048];
	if (path[0] == '/') return snprintf(dst, cap, "%s", path) < (int)cap;
	return getcwd(here, sizeof here) && snprintf(dst, cap, "%s/%s", here, path) < (int)cap;
}

static void say_done(const struct vk_cli *cli, const char *verb, const char *dir, uint64_t bytes)
{
	char cell[VK_CELL_MAX];
	struct vk_buf b;
	struct vk_jw w;
	if (!cli->json) {
		if (bytes) printf("%s %s, %s\n", verb, dir, vk_show_bytes(cell, bytes));
		else printf("%s %s\n", verb, dir);
		return;
	}
	vk_buf_init(&b, 65536);
	vk_jw_init(&w, &b);
	vk_jw_object(&w);
	vk_jw_kv(&w, "dir", dir);
	if (bytes) vk_jw_ki(&w, "bytes", (int64_t)bytes);
	vk_jw_object_end(&w);
	puts(vk_buf_cstr(&b));
	vk_buf_free(&b);
}

static int fail(const struct vk_cli *cli, const struct vk_error *err)
{
	return vk_cli_say(cli, err->st == VK_E_BUSY ? VK_EXIT_AGAIN : VK_EXIT_FAILED, "%s", err->text);
}

/* --- backup --- */

static void show_progress(void *arg, uint64_t done, uint64_t total)
{
	vk_progress_show(arg, done, (double)done, (double)total, vk_mono_us());
}

struct stores {
	struct vk_datadir datadir;
	struct vk_catalog *catalog;
	struct vk_cachedb *cache;
	struct vk_collections *collections;
};

static enum vk_status open_stores(struct stores *s, const char *data_dir, struct vk_error *err)
{
	char path[4200];
	struct vk_cachedb_opts opts = {.read_only = true};
	*s = (struct stores){.datadir = {.lock_fd = -1}};
	enum vk_status st = vk_datadir_open_read(&s->datadir, data_dir, err);
	snprintf(path, sizeof path, "%s/catalog", s->datadir.path);
	if (!st) st = vk_catalog_open(path, true, &s->catalog, err);
	snprintf(path, sizeof path, "%s/cache", s->datadir.path);
	if (!st) st = vk_cachedb_open(path, &opts, &s->cache, err);
	snprintf(path, sizeof path, "%s/collections", s->datadir.path);
	struct vk_collections_opts c = {.catalog = s->catalog, .dir = path, .read_only = true};
	if (!st) st = vk_collections_open(&c, &s->collections, err);
	return st;
}

static void close_stores(struct stores *s)
{
	if (s->collections) vk_collections_close(s->collections);
	if (s->cache) vk_cachedb_close(s->cache);
	if (s->catalog) vk_catalog_close(s->catalog);
	vk_datadir_close(&s->datadir);
}

static int backup_offline(const struct vk_cli *cli, const char *data_dir, const char *dir)
{
	struct stores s;
	struct vk_error err = {0};
	struct vk_progress progress;
	struct vk_backup_source collections;
	struct vk_backup_opts opts = {.progress = show_progress, .arg = &progress, .collections = &collections};
	vk_progress_begin(&progress, stderr, false, "bytes", vk_mono_us());
	enum vk_status st = open_stores(&s, data_dir, &err);
	if (!st) {
		vk_collections_backup_begin(s.collections, &collections);
		st = vk_backup_write(s.catalog, s.cache, s.datadir.path, dir, &opts, &err);
		vk_collections_backup_end(s.collections);
	}
	vk_progress_end(&progress);
	close_stores(&s);
	if (st) return fail(cli, &err);
	say_done(cli, "wrote", dir, 0);
	return 0;
}

/* Asks the server. *unreached: none answers, nothing was said. */
static int backup_by_server(const struct vk_cli *cli, const char *dir, bool may_be_offline, bool *unreached)
{
	struct vk_client client;
	struct vk_json_reply reply;
	struct vk_buf body;
	struct vk_jw w;
	*unreached = false;
	int rc = vk_client_open(&client, cli);
	if (rc) return rc;
	if (may_be_offline) { /* is anybody there? */
		struct vk_ask call;
		vk_ask_init(&call, &client, "GET", "/livez");
		vk_ask_send(&call, 0);
		vk_ask_wait(&call);
		*unreached = call.x.end == VK_XFER_CONNECT;
		vk_ask_free(&call);
	}
	if (!*unreached) {
		vk_buf_init(&body, 65536);
		vk_jw_init(&w, &body);
		vk_jw_object(&w);
		vk_jw_kv(&w, "dir", dir);
		vk_jw_object_end(&w);
		rc = vk_client_json(&client, "POST", "/v1/backup", vk_buf_bytes(&body), &reply);
		if (!rc) say_done(cli, "wrote", dir, vk_reply_u64(reply.root, "bytes"));
		vk_json_reply_free(&reply);
		vk_buf_free(&body);
	}
	vk_client_close(&client);
	return rc;
}

static const struct vk_cli_help backup_help = {
	.name = "veckeep backup",
	.synopsis = "[OPTION]... DIR",
	.text = "Copies catalog, cache and collections into DIR, which must be missing or empty, while the server\n"
		"serves on. The server writes it, so DIR is a path on its machine. A directory without\n"
		"manifest.json is no backup: it is written last.\n",
	.examples = "  veckeep backup /backups/veckeep-$(date +%F)\n"
		    "  veckeep backup --data-dir veckeep-data /backups/v   # with no server running\n",
	.args_min = 1,
	.args_max = 1,
	.client = true,
};

int vk_backup_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct opts o = {0};
	char dir[4096];
	bool unreached = false;
	int rc = vk_cli_begin(&cli, &backup_help, backup_table, &o, argc, argv);
	if (rc >= 0) return rc;
	cli.timeout_ms = BACKUP_TIMEOUT_MS; /* as long as a copy takes */
	if (!absolute(cli.args.v[0], dir, sizeof dir)) rc = vk_cli_say(&cli, VK_EXIT_MISUSE, "the path is too long");
	else rc = backup_by_server(&cli, dir, o.data_dir != NULL, &unreached);
	if (unreached) rc = backup_offline(&cli, o.data_dir, dir);
	vk_cli_end(&cli);
	return rc;
}

/* --- restore --- */

static const struct vk_cli_help restore_help = {
	.name = "veckeep restore",
	.synopsis = "[OPTION]... DIR",
	.text = "Checks the backup in DIR (every file's hash) and lays it into the data directory, which\n"
		"must be missing or empty. Start the server afterwards.\n",
	.examples = "  veckeep restore --data-dir veckeep-data /backups/veckeep-2026-01-31\n",
	.args_min = 1,
	.args_max = 1,
};

int vk_restore_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct opts o = {0};
	struct vk_error err = {0};
	char data_dir[4096];
	int rc = vk_cli_begin(&cli, &restore_help, table, &o, argc, argv);
	if (rc >= 0) return rc;
	vk_cli_data_dir(o.data_dir, data_dir, sizeof data_dir);
	rc = 0;
	if (vk_backup_restore(cli.args.v[0], data_dir, &err)) rc = fail(&cli, &err);
	else say_done(&cli, "restored into", data_dir, 0);
	vk_cli_end(&cli);
	return rc;
}
