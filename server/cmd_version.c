/* veckeep version: ours, and those of the libraries behind the doors. */
#include <stdio.h>

#include "embed/upstream.h"
#include "server/cli.h"
#include "server/cmd.h"
#include "server/http.h"
#include "store/datadir.h"

static const struct vk_cli_help help = {
	.name = "veckeep version",
	.synopsis = "[OPTION]...",
	.text = "Prints the versions of veckeep and of the libraries that it runs with.\n",
	.examples = "  veckeep version\n  veckeep version --json\n",
};

int vk_version_main(int argc, char **argv)
{
	struct vk_cli cli;
	int rc = vk_cli_begin(&cli, &help, NULL, NULL, argc, argv);
	if (rc >= 0) return rc;
	const struct {
		const char *name, *version;
	} libraries[] = {
		{"storage", vk_store_library()},
		{"http", vk_http_library()},
		{"upstream", vk_upstream_library()},
	};
	size_t n = sizeof libraries / sizeof *libraries;
	if (cli.json) {
		struct vk_buf out;
		struct vk_jw w;
		vk_buf_init(&out, 65536);
		vk_jw_init(&w, &out);
		vk_jw_object(&w);
		vk_jw_kv(&w, "veckeep", VK_VERSION);
		for (size_t i = 0; i < n; i++) vk_jw_kv(&w, libraries[i].name, libraries[i].version);
		vk_jw_object_end(&w);
		puts(vk_buf_cstr(&out));
		vk_buf_free(&out);
	} else {
		printf("veckeep   " VK_VERSION "\n");
		for (size_t i = 0; i < n; i++) printf("%-9s %s\n", libraries[i].name, libraries[i].version);
	}
	vk_cli_end(&cli);
	return VK_EXIT_OK;
}
