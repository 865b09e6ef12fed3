/* A provider of embeddings for tests and benches: every vector is a function of what was sent (see
 * README.md), every dialect answers by its own path, and it can fail in any way that it is told to. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"

static volatile int stopped;

static void on_signal(int signal_number)
{
	(void)signal_number;
	stopped = 1;
}

static void on_request(void *ctx, const struct fake_request *req, struct fake_reply *reply)
{
	struct fake *f = ctx;
	const char *deployment;
	fake_arena_reset(&f->arena);
	const struct fake_dialect *dialect = fake_route(f, req, &deployment);
	if (dialect)
		fake_call_answer(f, dialect, deployment, req, reply);
	else
		fake_admin_answer(f, req, reply);
}

static void on_finished(void *ctx, bool sent)
{
	struct fake *f = ctx;
	f->stats.in_flight--;
	f->stats.gone += !sent;
}

static void on_connected(void *ctx)
{
	struct fake *f = ctx;
	f->stats.connections++;
}

enum { OPT_PORT = 256, OPT_HOST, OPT_DIMS, OPT_DIMS_PER_MODEL, OPT_SPACE, OPT_MODELS, OPT_KEY, OPT_DELAY,
	OPT_ITEMS, OPT_TOKENS, OPT_BYTES, OPT_INPUT_TOKENS, OPT_STRICT, OPT_ROLE_FIELD, OPT_NORMALIZE,
	OPT_REJECT_EMPTY, OPT_NO_TEXTS, OPT_SEED, OPT_HELP };

static const struct { struct option opt; const char *help; } options[] = {
	{{"port", 1, NULL, OPT_PORT}, "N             0: any; \"listening N\" is printed"},
	{{"host", 1, NULL, OPT_HOST}, "ADDRESS       127.0.0.1"},
	{{"dims", 1, NULL, OPT_DIMS}, "N             8"},
	{{"dims-per-model", 1, NULL, OPT_DIMS_PER_MODEL}, "LIST \"m=1536,n=8\"; others --dims"},
	{{"space", 1, NULL, OPT_SPACE}, "NAME          in place of the model's name in f()"},
	{{"models", 1, NULL, OPT_MODELS}, "LIST         \"a,b\": others are 404; any by default"},
	{{"api-key", 1, NULL, OPT_KEY}, "KEY         401 without it"},
	{{"delay-ms", 1, NULL, OPT_DELAY}, "N          before every embeddings answer"},
	{{"caps-items", 1, NULL, OPT_ITEMS}, "N        inputs a request"},
	{{"caps-tokens", 1, NULL, OPT_TOKENS}, "N       tokens a request"},
	{{"caps-bytes", 1, NULL, OPT_BYTES}, "N        bytes a request"},
	{{"caps-input-tokens", 1, NULL, OPT_INPUT_TOKENS}, "N tokens an input"},
	{{"strict", 0, NULL, OPT_STRICT}, "             unknown keys and nulls are 400"},
	{{"role-field", 1, NULL, OPT_ROLE_FIELD}, "NAME     with --strict: the role field that is known"},
	{{"normalize", 0, NULL, OPT_NORMALIZE}, "          unit vectors"},
	{{"reject-empty", 0, NULL, OPT_REJECT_EMPTY}, "       a lone empty text is 400, too"},
	{{"no-texts", 0, NULL, OPT_NO_TEXTS}, "           do not count texts one by one (long benches)"},
	{{"seed", 1, NULL, OPT_SEED}, "N              of the faults' draws"},
	{{"help", 0, NULL, OPT_HELP}, ""},
};
enum { OPTIONS = sizeof options / sizeof *options };

static void usage(FILE *to)
{
	fputs("fake_provider [options]\n", to);
	for (int i = 0; i < OPTIONS; i++)
		fprintf(to, "  --%s %s\n", options[i].opt.name, options[i].help);
}

static void options_read(int argc, char **argv, struct fake_options *o, const char **host, int *port)
{
	struct option table[OPTIONS + 1] = {0};
	for (int i = 0; i < OPTIONS; i++)
		table[i] = options[i].opt;
	for (int c; (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
		switch (c) {
		case OPT_PORT: *port = atoi(optarg); break;
		case OPT_HOST: *host = optarg; break;
		case OPT_DIMS: o->dims = (uint32_t)atoi(optarg); break;
		case OPT_DIMS_PER_MODEL: o->dims_per_model = optarg; break;
		case OPT_SPACE: o->space = optarg; break;
		case OPT_MODELS: o->models = optarg; break;
		case OPT_KEY: free(o->api_key); o->api_key = strdup(optarg); break;
		case OPT_DELAY: o->delay_ms = atol(optarg); break;
		case OPT_ITEMS: o->caps_items = strtoull(optarg, NULL, 10); break;
		case OPT_TOKENS: o->caps_tokens = strtoull(optarg, NULL, 10); break;
		case OPT_BYTES: o->caps_bytes = strtoull(optarg, NULL, 10); break;
		case OPT_INPUT_TOKENS: o->caps_input_tokens = strtoull(optarg, NULL, 10); break;
		case OPT_STRICT: o->strict = true; break;
		case OPT_ROLE_FIELD: o->role_field = optarg; break;
		case OPT_NORMALIZE: o->normalize = true; break;
		case OPT_REJECT_EMPTY: o->reject_empty = true; break;
		case OPT_NO_TEXTS: o->count_texts = false; break;
		case OPT_SEED: o->seed = strtoull(optarg, NULL, 0); break;
		case OPT_HELP: usage(stdout); exit(0);
		default: usage(stderr); exit(2);
		}
	}
	if (optind < argc || !o->dims || o->dims > FAKE_DIMS_MAX) {
		usage(stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct fake f = {.opt = {.dims = 8, .seed = 1, .count_texts = true}};
	const char *host = "127.0.0.1";
	int port = 0;
	options_read(argc, argv, &f.opt, &host, &port);
	f.rng = f.opt.seed;
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	int fd = fake_http_listen(host, &port);
	if (fd < 0)
		return 1;
	printf("listening %d\nseed %llu\n", port, (unsigned long long)f.opt.seed);
	fflush(stdout);
	struct fake_http server = {.handle = on_request, .finished = on_finished, .connected = on_connected,
		.ctx = &f, .body_max = (size_t)64 << 20};
	fake_http_run(&server, fd, &stopped);
	close(fd);
	fake_stats_reset(&f);
	fake_faults_clear(&f);
	fake_arena_free(&f.arena);
	free(f.opt.api_key);
	return 0;
}
