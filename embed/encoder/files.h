/* A model directory's files: read whole, each with a maximum, and parsed as JSON. */
#ifndef VK_EMBED_ENCODER_FILES_H
#define VK_EMBED_ENCODER_FILES_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/json.h"

#define VK_MODEL_FILE_MAX ((size_t)64 << 20) /* tokenizer.json of the largest vocabularies */

struct vk_model_file {
	char *text; /* owned; NULL: the file is absent */
	size_t n;
	struct vk_arena arena;
	struct vk_json *doc; /* NULL unless read as JSON */
};

/* dir/name into *f. Absent is VK_OK with f->text NULL, unless needed: then VK_E_NOT_FOUND. */
enum vk_status vk_model_file_read(const char *dir, const char *name, bool needed,
				  struct vk_model_file *f, struct vk_error *err);
/* The same, parsed; errors name the file. */
enum vk_status vk_model_json_read(const char *dir, const char *name, bool needed,
				  struct vk_model_file *f, struct vk_error *err);
/* The root value, or NULL when the file is absent (vk_jv_* take NULL). */
const vk_jv *vk_model_json_root(const struct vk_model_file *f);
void vk_model_file_free(struct vk_model_file *f);

#endif
