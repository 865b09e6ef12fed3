/*
 * Sparse vectors, texts and places of a drop out of arbitrary bytes: decoders must not read outside of them, and what they
 * accept must encode to the same bytes. First byte: what the rest is taken for; its top bit mends the check, so that the
 * fuzzer gets behind it.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "simd/crc32c.h"
#include "store/record_extra.h"
#include "store/record_point.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SLOT 70000
#define SET 3

static void mend(uint8_t *p, size_t n, const uint8_t *key, size_t key_n)
{
	if (n < 5) return;
	uint32_t crc = vk_crc32c(VK_CPU_SCALAR, 0, key, key_n);
	p[0] = 1;
	vk_put_u32le(p + n - 4, vk_crc32c(VK_CPU_SCALAR, crc, p, n - 4));
}

static void sparse(const uint8_t *p, size_t n)
{
	struct vk_rec_sparse r;
	if (!vk_rec_sparse_decode(&r, SLOT, SET, (struct vk_bytes){(const char *)p, n})) return;
	uint32_t *index = malloc(r.n * sizeof *index + 1);
	float *value = malloc(r.n * sizeof *value + 1);
	uint8_t *again = malloc(vk_rec_sparse_size(r.n));
	for (uint32_t i = 0; i < r.n; i++) {
		index[i] = vk_get_u32le(r.index + 4 * (size_t)i);
		memcpy(&value[i], r.value + 4 * (size_t)i, 4);
		assert(!i || index[i - 1] < index[i]);
	}
	vk_rec_sparse_encode(again, SLOT, SET, index, value, r.n);
	assert(vk_rec_sparse_size(r.n) == n && memcmp(again, p, n) == 0);
	free(index);
	free(value);
	free(again);
}

static void text(const uint8_t *p, size_t n)
{
	struct vk_rec_text r;
	if (!vk_rec_text_decode(&r, SLOT, SET, (struct vk_bytes){(const char *)p, n})) return;
	uint8_t *again = malloc(vk_rec_text_size(&r));
	vk_rec_text_encode(again, SLOT, SET, &r);
	assert(vk_rec_text_size(&r) == n && memcmp(again, p, n) == 0);
	free(again);
}

static void drop_at(const uint8_t *p, size_t n)
{
	uint64_t slot;
	uint8_t again[VK_REC_DROP_AT_SIZE];
	if (!vk_rec_drop_at_decode(SET, (struct vk_bytes){(const char *)p, n}, &slot) || !n) return;
	vk_rec_drop_at_encode(again, SET, slot);
	assert(n == sizeof again && memcmp(again, p, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t key[10];
	if (size < 1) return 0;
	int what = (data[0] & 0x7f) % 3;
	size_t key_n = what == 2 ? 10 : VK_REC_EXTRA_KEY_SIZE;
	uint8_t *p = malloc(size - 1 ? size - 1 : 1); /* of just this length: a read past it is caught */
	memcpy(p, data + 1, size - 1);
	if (what == 2) vk_rec_drop_set_key(key, SET);
	else vk_rec_extra_key(key, SLOT, what ? VK_EXTRA_TEXT : VK_EXTRA_SPARSE, SET);
	if (data[0] & 0x80) mend(p, size - 1, key, key_n);
	if (what == 0) sparse(p, size - 1);
	else if (what == 1) text(p, size - 1);
	else drop_at(p, size - 1);
	free(p);
	return 0;
}
