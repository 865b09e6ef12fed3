/*
 * veckeep serve: open, print where we are, look after things once a second until a signal comes,
 * drain, close, exit 0.
 */
#include "server/serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cfg.h"
#include "base/clock.h"
#include "base/log.h"
#include "server/app.h"
#include "server/cli.h"
#include "server/cmd.h"
#include "server/qdrant.h"

#define USAGE_FLUSH_MS 60000
#define SWEEP_MS 3000

static void print_banner(struct vk_app *app)
{
	struct vk_registry *r = vk_app_registry(app);
	size_t n, shown = 0;
	const struct vk_space *const *s = vk_registry_spaces(r, &n);
	const struct vk_model_name *m;
	size_t models;
	printf("veckeep %s\n", VK_VERSION);
	for (size_t i = 0; i < vk_http_addresses(app->http); i++)
		printf("  listening  http://%s\n", vk_http_address(app->http, i));
	printf("  data       %s\n", app->datadir.path);
	for (size_t i = 0; i < n && shown < 12; i++, shown++)
		printf("  %s %s (%u d, by %s)\n", i ? "          " : "spaces    ", s[i]->id, s[i]->dims,
		       s[i]->route[0].provider->name);
	if (n > shown) printf("             and %zu more: GET /v1/spaces\n", n - shown);
	if (!n) printf("  spaces     none: configure a provider, or run script/fetch-model\n");
	m = vk_registry_models(r, &models);
	const char *model = NULL;
	for (size_t i = 0; i < models && !model; i++)
		if (m[i].space && !strchr(m[i].name, '@')) model = m[i].name;
	if (model)
		printf("  try        curl -s http://%s/v1/embeddings -H 'content-type: application/json' \\\n"
		       "               -d '{\"model\": \"%s\", \"input\": \"Hello, vectors\"}'\n",
		       vk_http_address(app->http, 0), model);
	if (app->offline) printf("  offline    hits only\n");
	fflush(stdout);
	vk_registry_unref(r);
}

/* Many connections want many descriptors; a core dump would hold secrets. */
static void settle_process(void)
{
	struct rlimit files;
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max < 65536 ? files.rlim_max : 65536;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	prctl(PR_SET_DUMPABLE, 0);
	umask(0077);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
}

static int block_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

struct sweep {
	int64_t now_ms;
	uint64_t swept;
};

static void sweep_one(void *arg, struct vk_bytes name, struct vk_collection *c)
{
	struct sweep *s = arg;
	uint64_t n = 0;
	(void)name;
	if (!vk_collection_sweep(c, s->now_ms, &n)) s->swept += n;
}

/* Points past their time to live, of collections that are open: nobody sees them meanwhile. Not on the loop's thread, a big sweep
 * takes a while and waits for its commits; one at a time. */
static void sweep_job(void *arg)
{
	struct vk_app *app = arg;
	struct sweep s = {.now_ms = vk_wall_ms()};
	vk_collections_each_open(app->collections, sweep_one, &s);
	if (s.swept) vk_log(VK_LOG_DEBUG, "%llu points past their time to live were deleted", (unsigned long long)s.swept);
	atomic_store(&app->sweeping, false);
}

static void sweep(struct vk_app *app)
{
	if (atomic_exchange(&app->sweeping, true)) return;
	if (vk_pool_submit(app->chores, sweep_job, app)) atomic_store(&app->sweeping, false);
}

/* Has the config file been touched since the last look? */
static bool config_touched(const struct vk_app *app, struct timespec *last, ino_t *inode)
{
	struct stat st;
	if (!app->config.path || stat(app->config.path, &st)) return false;
	bool touched = st.st_mtim.tv_sec != last->tv_sec || st.st_mtim.tv_nsec != last->tv_nsec ||
		       st.st_ino != *inode;
	*last = st.st_mtim;
	*inode = st.st_ino;
	return touched;
}

static void look_after(struct vk_app *app, int signals)
{
	struct timespec touched = {0};
	ino_t inode = 0;
	uint64_t flush_at_ms = vk_mono_ms() + USAGE_FLUSH_MS, sweep_at_ms = vk_mono_ms() + SWEEP_MS;
	config_touched(app, &touched, &inode);
	for (;;) {
		struct pollfd p = {.fd = signals, .events = POLLIN};
		bool reload = false;
		if (poll(&p, 1, 1000) > 0) {
			struct signalfd_siginfo info;
			if (read(signals, &info, sizeof info) == sizeof info &&
			    info.ssi_signo != SIGHUP)
				return;
			reload = true;
		}
		if (config_touched(app, &touched, &inode) || reload) vk_app_reload(app);
		vk_qd_part(app);
		if (vk_mono_ms() >= sweep_at_ms) {
			sweep(app);
			sweep_at_ms = vk_mono_ms() + SWEEP_MS;
		}
		if (vk_mono_ms() >= flush_at_ms) {
			vk_engine_flush_usage(app->engine, vk_wall_ms());
			flush_at_ms = vk_mono_ms() + USAGE_FLUSH_MS;
		}
	}
}

int vk_serve_run(const struct vk_app_opts *opts)
{
	struct vk_error err = {0};
	struct vk_app *app = calloc(1, sizeof *app);
	if (!app) return 1;
	settle_process();
	int signals = block_signals(); /* before any thread is made */
	enum vk_status st = vk_app_open(app, opts, &err);
	if (st) {
		fprintf(stderr, "veckeep: %s\n", err.text);
		free(app);
		close(signals);
		return st == VK_E_BUSY ? VK_EXIT_AGAIN : st == VK_E_INVALID ? VK_EXIT_MISUSE : VK_EXIT_FAILED;
	}
	print_banner(app);
	look_after(app, signals);
	vk_log(VK_LOG_INFO, "signal received: draining");
	vk_app_close(app);
	free(app);
	close(signals);
	return 0;
}

struct serve_opts {
	const char *config, *data_dir, *listen, *model_dir;
	uint64_t lock_wait_ms;
	bool offline;
};

static const struct vk_opt options[] = {
	{"config", 'c', VK_OPT_STR, offsetof(struct serve_opts, config), "FILE",
	 "the config file (VECKEEP_CONFIG)"},
	{"data-dir", 'd', VK_OPT_STR, offsetof(struct serve_opts, data_dir), "DIR",
	 "where the data are (VECKEEP_DATA_DIR; default $XDG_DATA_HOME/veckeep)"},
	{"listen", 'l', VK_OPT_STR, offsetof(struct serve_opts, listen), "HOST:PORT[,...]",
	 "addresses to listen on (VECKEEP_LISTEN; default 127.0.0.1:8325)"},
	{"model-dir", 0, VK_OPT_STR, offsetof(struct serve_opts, model_dir), "DIR",
	 "the built-in encoder's model (VECKEEP_MODEL_DIR)"},
	{"lock-wait", 0, VK_OPT_DURATION, offsetof(struct serve_opts, lock_wait_ms), "TIME",
	 "how long to wait for another server on the same data (default 60s)"},
	{"offline", 0, VK_OPT_FLAG, offsetof(struct serve_opts, offline), NULL,
	 "answer from the cache alone: a miss is a 503"},
	{0},
};

static const struct vk_cli_help help = {
	.name = "veckeep serve",
	.synopsis = "[OPTION]...",
	.text = "Serves cached embeddings over HTTP until SIGTERM, then drains and exits 0.\n"
		"Without a config it serves the built-in encoder and every provider whose usual key\n"
		"variable (OPENAI_API_KEY, ...) is set. A changed config file is taken up while serving.\n",
	.examples = "  veckeep serve --data-dir ./veckeep-data\n"
		    "  veckeep serve --config veckeep.json --listen 127.0.0.1:8325\n",
};

int vk_serve_main(int argc, char **argv)
{
	struct serve_opts o = {.lock_wait_ms = 60000};
	struct vk_cli cli;
	int code = vk_cli_begin(&cli, &help, options, &o, argc, argv);
	if (code >= 0) return code;
	const struct vk_app_opts opts = {o.config, o.data_dir, o.listen, o.model_dir, o.lock_wait_ms,
					 o.offline};
	code = vk_serve_run(&opts);
	vk_cli_end(&cli);
	return code;
}
