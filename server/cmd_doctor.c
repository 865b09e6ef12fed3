/*
 * veckeep doctor: a list of checks, each of which adds lines marked ok, warn or fail. Nothing is
 * changed, no secret is printed; fail lines make the exit code 1.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "embed/dialect.h"
#include "embed/encoder.h"
#include "embed/registry.h"
#include "index/faiss.h"
#include "server/cli_client.h"
#include "server/cmd.h"
#include "server/config.h"
#include "simd/cpu.h"
#include "simd/gemm.h"
#include "store/cachedb.h"
#include "store/datadir.h"

#define FREE_MIN ((uint64_t)1 << 30)
#define PROBE_TIMEOUT_MS 8000

struct opts {
	const char *config, *data_dir;
};

static const struct vk_opt table[] = {
	{"config", 'c', VK_OPT_STR, offsetof(struct opts, config), "FILE", "check this config (VECKEEP_CONFIG)"},
	{"data-dir", 'd', VK_OPT_STR, offsetof(struct opts, data_dir), "DIR",
	 "the data directory (VECKEEP_DATA_DIR, the config's, $XDG_DATA_HOME/veckeep)"},
	{0},
};

static const struct vk_cli_help help = {
	.name = "veckeep doctor",
	.synopsis = "[OPTION]...",
	.text = "Checks the machine (CPU, BLAS, limits), the data directory, the config, whether each\n"
		"provider can be reached, and whether a server answers. Changes nothing, prints no secret.\n"
		"Exit code 1 when a check fails.\n",
	.examples = "  veckeep doctor\n  veckeep doctor --config veckeep.json --data-dir veckeep-data\n"
		    "  veckeep doctor --json | jq '.checks[] | select(.state != \"ok\")'\n",
	.client = true,
};

enum state { OK, WARN, FAIL };
static const char *const state_words[] = {[OK] = "ok", [WARN] = "warn", [FAIL] = "fail"};

struct doctor {
	const struct vk_cli *cli;
	const struct opts *o;
	struct vk_client client;
	struct vk_config config;
	bool config_good;
	struct vk_registry *registry; /* NULL: the config is wrong */
	struct vk_buf out;            /* JSON */
	struct vk_jw w;
	unsigned count[3];
};

static void say(struct doctor *d, enum state state, const char *check, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static void say(struct doctor *d, enum state state, const char *check, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	d->count[state]++;
	if (!d->cli->json) {
		printf("%-4s  %-10s %s\n", state_words[state], check, text);
		fflush(stdout); /* the next check may take seconds */
		return;
	}
	vk_jw_object(&d->w);
	vk_jw_kv(&d->w, "check", check);
	vk_jw_kv(&d->w, "state", state_words[state]);
	vk_jw_kv(&d->w, "text", text);
	vk_jw_object_end(&d->w);
}

/* --- the machine --- */

static void check_cpu(struct doctor *d)
{
	enum vk_cpu_level level = vk_cpu_best();
	const char *forced = getenv("VECKEEP_CPU_LEVEL");
	say(d, OK, "cpu", "%s, %u cores", vk_cpu_name(), vk_cpu_cores());
	if (forced && *forced)
		say(d, WARN, "simd", "%s, by VECKEEP_CPU_LEVEL=%s", vk_cpu_level_name(level), forced);
	else
		say(d, level == VK_CPU_SCALAR ? WARN : OK, "simd", "%s%s", vk_cpu_level_name(level),
		    level == VK_CPU_SCALAR ? ": no vector unit that veckeep knows; everything works, slowly" : "");
}

/* What the library should run as on this CPU (simd/gemm.h tells why it often does not). */
static bool core_fits(enum vk_cpu_level level, const char *core)
{
	static const char *const avx512[] = {"SkylakeX", "Cooperlake", "SapphireRapids", "Zen", NULL};
	static const char *const avx2[] = {"Haswell", "Zen", "Excavator", "SkylakeX", NULL};
	const char *const *good = level == VK_CPU_AVX512 ? avx512 : level == VK_CPU_AVX2 ? avx2 : NULL;
	for (; good && *good; good++)
		if (!strcasecmp(*good, core)) return true;
	return !good && strcasecmp(core, "Prescott") != 0;
}

static void check_blas(struct doctor *d)
{
	const struct vk_gemm_info *g = vk_gemm_init();
	if (!g->openblas)
		say(d, WARN, "blas", "OpenBLAS was not found: the built-in encoder works, many times slower "
				     "(Debian: apt-get install libopenblas0-pthread)");
	else if (!core_fits(vk_cpu_best(), g->core_type))
		say(d, WARN, "blas", "%s runs as %s, which is not this CPU's best: unset OPENBLAS_CORETYPE",
		    g->library, g->core_type);
	else
		say(d, OK, "blas", "%s, kernels for %s (%s)", g->library, g->core_type, g->config);
}

/* Its lack is no fault: the graph needs none of it. */
static void check_faiss(struct doctor *d)
{
	struct vk_error err = {0};
	const char *library = vk_faiss_library(&err);
	say(d, OK, "faiss", "%s", library ? library : err.text);
}

static void limit_text(char dst[VK_CELL_MAX], rlim_t v)
{
	if (v == RLIM_INFINITY) snprintf(dst, VK_CELL_MAX, "unlimited");
	else vk_show_bytes(dst, v);
}

static void check_limits(struct doctor *d)
{
	struct rlimit as = {0}, files = {0};
	char cell[VK_CELL_MAX];
	getrlimit(RLIMIT_AS, &as);
	getrlimit(RLIMIT_NOFILE, &files);
	limit_text(cell, as.rlim_cur);
	say(d, as.rlim_cur == RLIM_INFINITY || as.rlim_cur >= (rlim_t)64 << 30 ? OK : WARN, "limits",
	    "address space %s%s", cell,
	    as.rlim_cur == RLIM_INFINITY ? "" : " (ulimit -v): the cache's map is made smaller to fit");
	say(d, files.rlim_cur >= 8192 ? OK : WARN, "limits", "%llu open files%s", (unsigned long long)files.rlim_cur,
	    files.rlim_cur >= 8192 ? "" : ": raise `ulimit -n` (LimitNOFILE) for thousands of connections");
}

/* --- the data directory --- */

static const char *fs_name(const char *path)
{
	static const struct {
		unsigned long magic;
		const char *name;
	} known[] = {{0xef53, "ext4"}, {0x58465342, "xfs"}, {0x9123683e, "btrfs"}, {0x01021994, "tmpfs"},
		     {0x794c7630, "overlayfs"}, {0x2fc12fc1, "zfs"}, {0x6969, "nfs"}, {0xff534d42, "cifs"},
		     {0xfe534d42, "smb2"}, {0x65735546, "fuse"}, {0xf2f52010, "f2fs"}};
	struct statfs fs;
	if (statfs(path, &fs) != 0) return "unknown file system";
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i].magic == ((unsigned long)fs.f_type & 0xffffffff)) return known[i].name;
	return "unknown file system";
}

static void check_disk(struct doctor *d, const char *path)
{
	struct statvfs v;
	char left[VK_CELL_MAX];
	const char *fs = fs_name(path);
	bool network = !strcmp(fs, "nfs") || !strcmp(fs, "cifs") || !strcmp(fs, "smb2") || !strcmp(fs, "fuse");
	bool lost = !strcmp(fs, "tmpfs") || !strcmp(fs, "overlayfs");
	if (network) say(d, FAIL, "disk", "%s is on %s: LMDB is not safe there, the server refuses it", path, fs);
	else if (lost) say(d, WARN, "disk", "%s is on %s: the cache is gone when the machine or container is", path, fs);
	else say(d, OK, "disk", "%s is on %s", path, fs);
	if (statvfs(path, &v) != 0) return;
	uint64_t bytes = (uint64_t)v.f_bavail * v.f_frsize;
	vk_show_bytes(left, bytes);
	say(d, bytes >= FREE_MIN ? OK : WARN, "disk", "%s free%s", left,
	    bytes >= FREE_MIN ? "" : ": when it is full, nothing more is stored (serving goes on)");
	if (access(path, W_OK) != 0) say(d, FAIL, "disk", "%s cannot be written by this user", path);
}

static void check_cache(struct doctor *d, const char *dir)
{
	struct vk_cachedb_opts opts = {.read_only = true};
	struct vk_cachedb *db;
	struct vk_cachedb_stats s;
	struct vk_error err = {0};
	char path[4200], rows[VK_CELL_MAX], used[VK_CELL_MAX], map[VK_CELL_MAX];
	snprintf(path, sizeof path, "%s/cache", dir);
	enum vk_status st = vk_cachedb_open(path, &opts, &db, &err);
	if (st) {
		say(d, st == VK_E_NOT_FOUND ? OK : FAIL, "cache", "%s", st == VK_E_NOT_FOUND ? "empty" : err.text);
		return;
	}
	vk_cachedb_stats(db, &s);
	say(d, s.used_bytes < s.map_bytes / 10 * 9 ? OK : WARN, "cache", "%s rows, %s of a %s map in use",
	    vk_show_count(rows, s.rows), vk_show_bytes(used, s.used_bytes), vk_show_bytes(map, s.map_bytes));
	vk_cachedb_close(db);
}

static void check_data(struct doctor *d)
{
	char path[4096];
	const char *said = d->o->data_dir ? d->o->data_dir
			   : getenv("VECKEEP_DATA_DIR") ? NULL
			   : d->config_good ? d->config.data_dir
					    : NULL;
	struct vk_datadir dir;
	struct vk_error err = {0};
	vk_cli_data_dir(said, path, sizeof path);
	enum vk_status st = vk_datadir_open_read(&dir, path, &err);
	if (st && access(path, F_OK) != 0) {
		say(d, OK, "data", "%s is not there yet: the server makes it", path);
		return;
	}
	if (st) {
		say(d, FAIL, "data", "%s", err.text);
		return;
	}
	say(d, OK, "data", "%s has a format that this veckeep reads", dir.path);
	check_disk(d, dir.path);
	check_cache(d, dir.path);
	vk_datadir_close(&dir);
}

/* --- config and providers --- */

static const char *env(void *arg, const char *name)
{
	(void)arg;
	return getenv(name);
}

static void check_config(struct doctor *d)
{
	struct vk_error err = {0};
	struct vk_registry_env from = {env, NULL};
	const char *path = d->o->config ? d->o->config : getenv("VECKEEP_CONFIG");
	if (path && !*path) path = NULL;
	d->config_good = !vk_config_load(&d->config, path, &err);
	if (!d->config_good) {
		say(d, FAIL, "config", "%s", err.text);
		return;
	}
	if (vk_registry_load(d->config.root, d->config.base_dir, &from, NULL, NULL, &d->registry, &err)) {
		d->registry = NULL;
		say(d, FAIL, "config", "%s%s%s", path ? path : "", path ? ": " : "", err.text);
		return;
	}
	size_t spaces, providers, models;
	vk_registry_spaces(d->registry, &spaces);
	vk_registry_providers(d->registry, &providers);
	vk_registry_models(d->registry, &models);
	say(d, spaces ? OK : WARN, "config", "%s: %zu providers, %zu spaces, %zu model names%s",
	    path ? path : "no file, defaults", providers, spaces, models,
	    spaces ? "" : "; nothing can be embedded: script/fetch-model gets the built-in encoder's weights, "
			  "or set a provider's key");
}

static void judge_probe(struct doctor *d, const struct vk_provider *p, const struct vk_xfer *x)
{
	double ms = (double)(x->ended_us - x->started_us) / 1000;
	if (x->end == VK_XFER_OK && x->status >= 500)
		say(d, WARN, "provider", "%s: %s answers HTTP %d after %.0f ms", p->name, p->base_url, x->status, ms);
	else if (x->end == VK_XFER_OK) /* 401, 404: the base URL is no resource, but somebody is there */
		say(d, OK, "provider", "%s: %s is reachable (HTTP %d, %.0f ms)", p->name, p->base_url, x->status, ms);
	else
		say(d, FAIL, "provider", "%s: %s: %s", p->name, p->base_url, x->error);
}

/* A GET of the base URL without any credential: does TCP, TLS and HTTP work from here? */
static void probe(struct doctor *d, const struct vk_provider *p)
{
	struct vk_ask call;
	vk_ask_init(&call, &d->client, "GET", "");
	call.url.n = 0;
	vk_buf_puts(&call.url, p->base_url);
	call.headers_n = 0; /* our server's key is not for them */
	call.headers[0] = NULL;
	call.x.proxy = p->proxy;
	call.x.cert_file = p->cert_file;
	call.x.key_file = p->key_file;
	vk_ask_send_to(&call, p->ca_file, p->private_ok, p->connect_timeout_ms);
	vk_ask_wait(&call);
	judge_probe(d, p, &call.x);
	vk_ask_free(&call);
}

static void check_secret(struct doctor *d, const struct vk_provider *p)
{
	static const char *const words[] = {[VK_SECRET_NONE] = "no key is set",
					    [VK_SECRET_VALUE] = "a key is set",
					    [VK_SECRET_FILE] = "the key is in a file",
					    [VK_SECRET_CLIENT] = "the caller's own key is forwarded"};
	bool needed = p->api_key.from == VK_SECRET_NONE && !strncmp(p->base_url, "https://", 8);
	say(d, needed ? WARN : OK, "provider", "%s: %s", p->name, words[p->api_key.from]);
}

static void check_providers(struct doctor *d)
{
	size_t n = 0;
	const struct vk_provider *const *list = d->registry ? vk_registry_providers(d->registry, &n) : NULL;
	for (size_t i = 0; i < n; i++) {
		const struct vk_provider *p = list[i];
		if (p->dialect->local) {
			const struct vk_encoder_info *e = p->encoder ? vk_encoder_info(p->encoder) : NULL;
			say(d, OK, "provider", "%s: the built-in encoder, %s, %u dims", p->name, e ? e->model : "?",
			    e ? e->dims : 0);
			continue;
		}
		check_secret(d, p);
		probe(d, p);
	}
}

/* --- the server --- */

static void check_server(struct doctor *d)
{
	struct vk_ask call;
	vk_ask_init(&call, &d->client, "GET", "/readyz");
	vk_ask_send(&call, 0);
	vk_ask_wait(&call);
	const char *url = d->cli->url;
	if (vk_ask_ok(&call)) say(d, OK, "server", "%s answers and is ready", url);
	else if (call.x.end == VK_XFER_OK) say(d, WARN, "server", "%s answers HTTP %d: not ready", url, call.x.status);
	else say(d, WARN, "server", "%s: %s", url, call.x.error);
	vk_ask_free(&call);
}

static void begin(struct doctor *d)
{
	vk_buf_init(&d->out, (size_t)1 << 20);
	vk_jw_init(&d->w, &d->out);
	if (!d->cli->json) return;
	vk_jw_object(&d->w);
	vk_jw_key(&d->w, "checks");
	vk_jw_array(&d->w);
}

static void end(struct doctor *d)
{
	if (!d->cli->json) {
		printf("\n%u ok, %u warnings, %u failed\n", d->count[OK], d->count[WARN], d->count[FAIL]);
	} else {
		vk_jw_array_end(&d->w);
		vk_jw_kb(&d->w, "ok", !d->count[FAIL]);
		vk_jw_object_end(&d->w);
		puts(vk_buf_cstr(&d->out));
	}
	vk_buf_free(&d->out);
}

static int examine(struct vk_cli *cli, const struct opts *o)
{
	struct doctor d = {.cli = cli, .o = o};
	if (cli->timeout_ms > PROBE_TIMEOUT_MS) cli->timeout_ms = PROBE_TIMEOUT_MS;
	int rc = vk_client_open(&d.client, cli);
	if (rc) return rc;
	begin(&d);
	check_cpu(&d);
	check_blas(&d);
	check_faiss(&d);
	check_limits(&d);
	check_config(&d);
	check_data(&d);
	check_providers(&d);
	check_server(&d);
	end(&d);
	vk_registry_unref(d.registry);
	vk_config_free(&d.config);
	vk_client_close(&d.client);
	return d.count[FAIL] ? VK_EXIT_FAILED : VK_EXIT_OK;
}

int vk_doctor_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct opts o = {0};
	vk_gemm_init(); /* sets variables: before there are threads */
	int rc = vk_cli_begin(&cli, &help, table, &o, argc, argv);
	if (rc >= 0) return rc;
	rc = examine(&cli, &o);
	vk_cli_end(&cli);
	return rc;
}
