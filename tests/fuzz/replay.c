/*
 * Replays a fuzz target's corpus as an ordinary test, without libFuzzer: every file below the
 * given directories goes through LLVMFuzzerTestOneInput once, in the order of their names. A
 * crash names the file that was last begun.
 *
 *   fuzz_<room>_<thing> DIRECTORY_OR_FILE...
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX ((size_t)16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static size_t replayed;

static void fail(const char *path)
{
	perror(path);
	exit(2);
}

/* The input is copied to memory of exactly its size, so that a sanitizer sees one byte past it. */
static void replay_file(const char *path, size_t size)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(size ? size : 1);
	if (!f || !data || fread(data, 1, size, f) != size) fail(path);
	fclose(f);
	fprintf(stderr, "%s\n", path);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	replayed++;
}

static void replay(const char *path)
{
	struct stat st;
	if (stat(path, &st)) fail(path);
	if (S_ISREG(st.st_mode) && (size_t)st.st_size <= FILE_MAX) replay_file(path, (size_t)st.st_size);
	if (!S_ISDIR(st.st_mode)) return;
	struct dirent **list;
	int n = scandir(path, &list, NULL, alphasort);
	if (n < 0) fail(path);
	for (int i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.') {
			char below[4096];
			snprintf(below, sizeof below, "%s/%s", path, list[i]->d_name);
			replay(below);
		}
		free(list[i]);
	}
	free(list);
}

int main(int argc, char **argv)
{
	if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++) replay(argv[i]);
	if (replayed == 0) {
		fprintf(stderr, "nothing was replayed: an empty corpus tests nothing\n");
		return 1;
	}
	printf("%zu inputs replayed\n", replayed);
	return 0;
}
