/*
 * Any bytes as a weights file: refused, or every tensor that it names can be read to its last
 * element. Seeds: tests/fuzz/corpus/embed_safetensors.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "embed/encoder/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"a", "b", "s", "i", "x"};
	struct vk_safetensors *s;
	struct vk_error err = {0};
	if (vk_safetensors_parse((struct vk_bytes){(const char *)data, size}, &s, &err)) {
		if (s || !err.text[0]) abort();
		return 0;
	}
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		const struct vk_tensor *t = vk_safetensors_find(s, names[i]);
		float first, last;
		if (!t) continue;
		if (strcmp(t->name, names[i]) != 0 || t->rank > VK_SAFETENSORS_RANK_MAX) abort();
		if (t->data < data || t->data + t->size > data + size) abort();
		if (t->type == VK_TENSOR_OTHER || !t->count) continue;
		vk_tensor_read(t, 0, 1, &first);
		vk_tensor_read(t, t->count - 1, 1, &last);
	}
	vk_safetensors_close(s);
	return 0;
}
