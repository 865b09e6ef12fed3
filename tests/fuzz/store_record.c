/*
 * Records and journal segments out of arbitrary bytes: decoders must not read outside of them, and
 * what they accept must be within its limits. First byte: what the rest is taken for; its top bit
 * mends the CRCs, so that the fuzzer gets behind them.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "simd/crc32c.h"
#include "store/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void seal(uint8_t *p, size_t n, uint32_t crc)
{
	if (n >= 4) vk_put_u32le(p + n - 4, vk_crc32c(VK_CPU_SCALAR, crc, p, n - 4));
}

static void row_head(uint8_t *p, size_t n, int mend)
{
	static const struct vk_cache_key key;
	struct vk_row_head h;
	uint8_t again[VK_ROW_HEAD_MAX];
	if (mend) seal(p, n, vk_crc32c(VK_CPU_SCALAR, 0, key.b, sizeof key.b));
	if (!vk_row_head_decode(&h, &key, p, n, VK_CPU_SCALAR)) return;
	assert(h.meta.dims >= 1 && h.meta.dims <= VK_DIMS_MAX);
	assert(h.inline_p >= p && h.inline_p + h.inline_n <= p + n);
	if (h.meta.flags & VK_CACHE_ENCRYPTED) return;
	/* The two bytes of zero are the only ones that a reader ignores. */
	size_t m = vk_row_head_encode(again, &key, &h, VK_CPU_SCALAR);
	assert(m == n && memcmp(again + 44, p + 44, n - 48) == 0);
}

static void journal(uint8_t *p, size_t n, int mend)
{
	struct vk_segment_head head;
	if (mend && n >= VK_SEGMENT_HEAD_SIZE) {
		memcpy(p, "vkjrnl\1\0", 8);
		vk_put_u32le(p + 24, vk_crc32c(VK_CPU_SCALAR, 0, p, 24));
	}
	if (!vk_segment_head_decode(&head, p, n, VK_CPU_SCALAR)) return;
	size_t at = VK_SEGMENT_HEAD_SIZE;
	for (uint64_t seq = head.first_seq;; seq++) {
		size_t left = n - at;
		if (mend && left > VK_ENTRY_HEAD_SIZE + 4) {
			size_t entry_n =
			    VK_ENTRY_HEAD_SIZE + vk_get_u32le(p + at) % (left - VK_ENTRY_HEAD_SIZE);
			if (entry_n < VK_ENTRY_HEAD_SIZE + 4) break;
			vk_entry_seal(p + at, entry_n,
				      vk_entry_payload_crc(p + at, entry_n, VK_CPU_SCALAR),
				      head.salt, seq, VK_CPU_SCALAR);
		}
		size_t entry_n = vk_entry_check(p + at, left, head.salt, seq, VK_CPU_SCALAR);
		if (entry_n == 0) break;
		struct vk_entry_walk w;
		struct vk_entry_put put;
		volatile uint8_t sum = 0;
		assert(vk_entry_walk_start(&w, p + at, entry_n));
		while (vk_entry_walk_next(&w, &put)) {
			for (size_t i = 0; i < (size_t)put.meta.dims * 4; i++) sum ^= put.row[i];
			assert(put.row + (size_t)put.meta.dims * 4 <= p + at + entry_n);
		}
		(void)sum; /* every byte was read: that is the test */
		at += entry_n;
	}
}

static void catalog_record(uint8_t *p, size_t n, int mend)
{
	struct vk_rec_pool pool;
	struct vk_rec_usage usage;
	struct vk_rec_canary canary;
	struct vk_totals totals;
	struct vk_cache_key key;
	struct vk_bytes b = {(const char *)p, n};
	volatile uint8_t sum = 0;
	if (mend) seal(p, n, 0);
	if (vk_rec_pool_decode(&pool, b))
		assert(pool.secrets >= 1 && pool.secrets <= VK_POOL_SECRETS_MAX);
	if (vk_rec_canary_decode(&canary, b))
		for (size_t i = 0; i < (size_t)canary.n * canary.dims * 4; i++)
			sum ^= canary.rows[i];
	(void)sum;
	vk_rec_usage_decode(&usage, b);
	vk_totals_decode(&totals, p, n, VK_CPU_SCALAR);
	vk_provenance_decode(&key, 1, p, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0) return 0;
	/* A copy of the exact size: the sanitizer sees one byte too many. */
	uint8_t *p = malloc(size - 1 ? size - 1 : 1);
	if (!p) return 0;
	memcpy(p, data + 1, size - 1);
	int mend = data[0] >> 7;
	switch (data[0] & 3) {
	case 0:
		row_head(p, size - 1, mend);
		break;
	case 1:
		journal(p, size - 1, mend);
		break;
	default:
		catalog_record(p, size - 1, mend);
		break;
	}
	free(p);
	return 0;
}
