/* Files of a model directory. */
#include "embed/encoder/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define JSON_ARENA_MAX ((size_t)512 << 20)

static enum vk_status read_all(int fd, const char *path, struct vk_model_file *f,
			       struct vk_error *err)
{
	struct stat sb;
	if (fstat(fd, &sb) || !S_ISREG(sb.st_mode))
		return vk_fail(err, VK_E_INVALID, "%.300s: not a file", path);
	if ((size_t)sb.st_size > VK_MODEL_FILE_MAX)
		return vk_fail(err, VK_E_INVALID, "%.300s: larger than %zu MiB", path,
			       VK_MODEL_FILE_MAX >> 20);
	size_t size = (size_t)sb.st_size;
	f->text = malloc(size + 1);
	if (!f->text) return vk_fail(err, VK_E_NOMEM, "%.300s: out of memory", path);
	while (f->n < size) {
		ssize_t got = read(fd, f->text + f->n, size - f->n);
		if (got < 0 && errno == EINTR) continue;
		if (got < 0) return vk_fail(err, VK_E_IO, "%.300s: %s", path, strerror(errno));
		if (got == 0) break;
		f->n += (size_t)got;
	}
	f->text[f->n] = 0;
	return VK_OK;
}

enum vk_status vk_model_file_read(const char *dir, const char *name, bool needed,
				  struct vk_model_file *f, struct vk_error *err)
{
	char path[4096];
	*f = (struct vk_model_file){0};
	vk_arena_init(&f->arena, JSON_ARENA_MAX);
	if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path)
		return vk_fail(err, VK_E_INVALID, "the model's path is too long");
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		if ((errno == ENOENT || errno == ENOTDIR) && !needed) return VK_OK;
		return vk_fail(err, errno == ENOENT || errno == ENOTDIR ? VK_E_NOT_FOUND : VK_E_IO,
			       "%.300s: %s", path, strerror(errno));
	}
	enum vk_status st = read_all(fd, path, f, err);
	close(fd);
	if (st) vk_model_file_free(f);
	return st;
}

enum vk_status vk_model_json_read(const char *dir, const char *name, bool needed,
				  struct vk_model_file *f, struct vk_error *err)
{
	enum vk_status st = vk_model_file_read(dir, name, needed, f, err);
	if (st || !f->text) return st;
	struct vk_error why = {0};
	st = vk_json_parse(&f->arena, (struct vk_bytes){f->text, f->n}, NULL, &f->doc, &why);
	if (!st && vk_jv_type(vk_json_root(f->doc)) == VK_J_NULL)
		st = vk_fail(&why, VK_E_INVALID, "is null");
	if (st) {
		vk_model_file_free(f);
		return vk_fail(err, st, "%.200s/%s: %.400s", dir, name, why.text);
	}
	return st;
}

const vk_jv *vk_model_json_root(const struct vk_model_file *f)
{
	return f->doc ? vk_json_root(f->doc) : NULL;
}

void vk_model_file_free(struct vk_model_file *f)
{
	vk_json_free(f->doc);
	vk_arena_free(&f->arena);
	free(f->text);
	f->text = NULL;
	f->doc = NULL;
	f->n = 0;
}
