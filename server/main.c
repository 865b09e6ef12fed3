/* The program: a table of subcommands. */
#include <stdio.h>
#include <string.h>

#include "server/cli.h"
#include "server/cmd.h"

static const struct vk_cli_sub commands[] = {
	{"serve", "run the server", vk_serve_main},
	{"embed", "embed texts from arguments, a file or standard input", vk_embed_main},
	{"import", "put a file of texts into a collection", vk_import_main},
	{"search", "ask a collection a question", vk_search_main},
	{"collections", "what collections there are; dropping one", vk_collections_main},
	{"faiss", "FAISS index files into collections and out of them", vk_faiss_main},
	{"cache", "what the cache holds, why a text hits or misses, purging", vk_cache_main},
	{"spaces", "the vector spaces, their models and routes", vk_spaces_main},
	{"providers", "the providers and how they are doing", vk_providers_main},
	{"usage", "tokens bought and saved, by day and space", vk_usage_main},
	{"keys", "API keys: list, create, revoke", vk_keys_main},
	{"backup", "copy catalog, cache and collections while the server runs", vk_backup_main},
	{"restore", "lay a backup into an empty data directory", vk_restore_main},
	{"doctor", "check machine, data directory, config, providers and server", vk_doctor_main},
	{"version", "the versions of veckeep and its libraries", vk_version_main},
};

static const char intro[] =
	"veckeep keeps a team's vectors: an embedding cache in front of any provider that pays\n"
	"for each text once, with an encoder of its own, and a vector search server behind the\n"
	"Qdrant REST API.\n\n"
	"  veckeep serve                      listen on 127.0.0.1:8325\n"
	"  veckeep embed \"some text\"          one vector, by the built-in encoder\n"
	"  veckeep import docs.jsonl -c docs  texts into a collection\n"
	"  veckeep search docs \"a question\"  its nearest points\n";

int main(int argc, char **argv)
{
	static char version[] = "version";
	char *version_argv[] = {version, NULL};
	if (argc == 2 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")))
		return vk_version_main(1, version_argv);
	int rc = vk_cli_dispatch("veckeep", intro, commands, sizeof commands / sizeof *commands, argc, argv);
	/* Output that could not be written (a full disk) is a failure that nobody else sees. */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		perror("veckeep: standard output");
		if (rc == VK_EXIT_OK) rc = VK_EXIT_FAILED;
	}
	return rc;
}
