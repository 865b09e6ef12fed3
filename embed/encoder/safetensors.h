/*
 * A safetensors file: u64 little-endian header length, a JSON header {name: {dtype, shape,
 * data_offsets}}, then the tensors' bytes. Read straight from the map: nothing is copied
 * until a tensor is asked for as f32.
 *
 * Everything in the header is checked before the first tensor is handed out (sizes, ranges,
 * shape x width = bytes, overlaps), so a damaged or hostile file is VK_E_INVALID and no read
 * leaves the file. The file must not shrink while it is open (replace it by rename).
 * Ownership: tensors borrow from the file. Threads: immutable after open.
 */
#ifndef VK_EMBED_ENCODER_SAFETENSORS_H
#define VK_EMBED_ENCODER_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

#define VK_SAFETENSORS_HEADER_MAX ((size_t)16 << 20)
#define VK_SAFETENSORS_TENSORS_MAX 16384
#define VK_SAFETENSORS_RANK_MAX 8

enum vk_tensor_type { VK_TENSOR_F32, VK_TENSOR_F16, VK_TENSOR_BF16, VK_TENSOR_OTHER };

struct vk_tensor {
	const char *name; /* NUL-terminated */
	enum vk_tensor_type type;
	uint32_t rank;
	uint64_t shape[VK_SAFETENSORS_RANK_MAX];
	uint64_t count;	     /* elements */
	const uint8_t *data; /* little-endian, any alignment */
	uint64_t size;	     /* bytes */
};

struct vk_safetensors;

enum vk_status vk_safetensors_open(const char *path, struct vk_safetensors **out,
				   struct vk_error *err);
/* The same over bytes in memory, borrowed until close (tests, fuzzing). */
enum vk_status vk_safetensors_parse(struct vk_bytes file, struct vk_safetensors **out,
				    struct vk_error *err);
void vk_safetensors_close(struct vk_safetensors *s); /* NULL is fine */

/* All of the file, for hashing. */
struct vk_bytes vk_safetensors_bytes(const struct vk_safetensors *s);
/* NULL when there is no such tensor. */
const struct vk_tensor *vk_safetensors_find(const struct vk_safetensors *s, const char *name);

/* Elements [first, first + n) as f32. The tensor must be F32, F16 or BF16 and hold them (assert).
 */
void vk_tensor_read(const struct vk_tensor *t, uint64_t first, size_t n, float *dst);

#endif
