/*
 * Goal: every byte on disk decodes to what was encoded, old files stay readable, and no flipped
 * byte ever becomes another answer.
 * Method: seeded random records through encode and decode; every single byte of an encoded record
 * flipped; golden files of version 1 decoded, and encoded again to the same bytes.
 */
#include "tests/store/golden.h"

#include "store/record.h"

static void random_head(struct vk_row_head *h, uint8_t inline_bytes[VK_ROW_INLINE_MAX],
			uint64_t *rng)
{
	memset(h, 0, sizeof *h);
	h->meta = meta_of((uint32_t)(1 + vk_rng(rng) % VK_DIMS_MAX), vk_rng(rng) % 100000);
	h->meta.created_ms = (int64_t)vk_rng(rng);
	h->row_crc = (uint32_t)vk_rng(rng);
	h->pages = (uint32_t)(vk_rng(rng) % 66);
	h->page_id = h->pages ? vk_rng(rng) >> 16 : 0;
	for (int c = 0; c < VK_ROW_CLASSES; c++) {
		h->part_set[c] = vk_rng(rng) & 1;
		h->part_id[c] = h->part_set[c] ? vk_rng(rng) >> 16 : 0;
	}
	h->provenances = (uint32_t)(vk_rng(rng) % (VK_PROVENANCES_MAX + 1));
	for (uint32_t i = 0; i < h->provenances * VK_PROVENANCE_SIZE; i++)
		h->provenance[i / 16][i % 16] = (uint8_t)vk_rng(rng);
	h->inline_n = (uint32_t)(vk_rng(rng) % (VK_ROW_INLINE_MAX + 1));
	for (uint32_t i = 0; i < h->inline_n; i++) inline_bytes[i] = (uint8_t)vk_rng(rng);
	h->inline_p = inline_bytes;
}

static void same_head(const struct vk_row_head *a, const struct vk_row_head *b)
{
	same_meta(&a->meta, &b->meta);
	assert_int_equal(a->row_crc, b->row_crc);
	assert_int_equal(a->pages, b->pages);
	assert_int_equal(a->page_id, b->page_id);
	assert_memory_equal(a->part_set, b->part_set, sizeof a->part_set);
	assert_memory_equal(a->part_id, b->part_id, sizeof a->part_id);
	assert_int_equal(a->provenances, b->provenances);
	assert_memory_equal(a->provenance, b->provenance, a->provenances * 16);
	assert_int_equal(a->inline_n, b->inline_n);
	assert_memory_equal(a->inline_p, b->inline_p, a->inline_n);
}

static void test_row_head_decodes_to_what_was_encoded(void **state)
{
	(void)state;
	uint64_t rng = test_seed("row_head");
	for (int i = 0; i < 2000; i++) {
		uint8_t bytes[VK_ROW_HEAD_MAX], rest[VK_ROW_INLINE_MAX];
		struct vk_row_head h, got;
		struct vk_cache_key key, other;
		random_head(&h, rest, &rng);
		key_of(&key, 1, 2, vk_rng(&rng));
		size_t n = vk_row_head_encode(bytes, &key, &h, vk_cpu_best());
		assert_true(n <= sizeof bytes);
		assert_true(vk_row_head_decode(&got, &key, bytes, n, VK_CPU_SCALAR));
		same_head(&h, &got);
		/* Under another key, or cut, it is nothing. */
		other = key;
		other.b[vk_rng(&rng) % sizeof other.b] ^= 1;
		assert_false(vk_row_head_decode(&got, &other, bytes, n, vk_cpu_best()));
		assert_false(
		    vk_row_head_decode(&got, &key, bytes, vk_rng(&rng) % n, vk_cpu_best()));
	}
}

static void test_row_head_every_flipped_byte_is_caught(void **state)
{
	(void)state;
	uint64_t rng = test_seed("row_head_flips");
	for (int i = 0; i < 20; i++) {
		uint8_t bytes[VK_ROW_HEAD_MAX], rest[VK_ROW_INLINE_MAX];
		struct vk_row_head h, got;
		struct vk_cache_key key;
		random_head(&h, rest, &rng);
		key_of(&key, 1, 2, vk_rng(&rng));
		size_t n = vk_row_head_encode(bytes, &key, &h, vk_cpu_best());
		for (size_t at = 0; at < n; at++)
			for (unsigned mask = 1; mask < 256; mask = mask * 2 + (mask & 1)) {
				bytes[at] ^= (uint8_t)mask;
				assert_false(
				    vk_row_head_decode(&got, &key, bytes, n, vk_cpu_best()));
				bytes[at] ^= (uint8_t)mask;
			}
	}
}

static void make_pool(struct vk_rec_pool *r)
{
	*r = (struct vk_rec_pool){.id = 7, .created_ms = 1700000000123, .secrets = 2};
	for (int i = 0; i < 64; i++) r->secret[i / 32][i % 32] = (uint8_t)(i * 5);
}

static void make_usage(struct vk_rec_usage *r)
{
	uint64_t v[sizeof *r / 8];
	for (size_t i = 0; i < sizeof *r / 8; i++) v[i] = (uint64_t)1 << (i * 5);
	memcpy(r, v, sizeof *r);
}

static const float canary_rows[6] = {1, -2.5f, 3e-20f, 4e20f, -0.0f, 6};

static void make_canary(struct vk_rec_canary *r)
{
	*r = (struct vk_rec_canary){.when_ms = -5,
				    .cosine_min = 0.9998f,
				    .verdict = 2,
				    .dims = 3,
				    .n = 2,
				    .rows = (const uint8_t *)canary_rows};
}

static bool decodes(int kind, struct vk_bytes b)
{
	struct vk_rec_pool pool;
	struct vk_rec_usage usage;
	struct vk_rec_canary canary;
	return kind == 0   ? vk_rec_pool_decode(&pool, b)
	       : kind == 1 ? vk_rec_usage_decode(&usage, b)
			   : vk_rec_canary_decode(&canary, b);
}

static void encode_kind(int kind, struct vk_buf *b)
{
	struct vk_rec_pool pool;
	struct vk_rec_usage usage;
	struct vk_rec_canary canary;
	make_pool(&pool);
	make_usage(&usage);
	make_canary(&canary);
	vk_buf_init(b, 4096);
	if (kind == 0) vk_rec_pool_encode(b, &pool);
	else if (kind == 1) vk_rec_usage_encode(b, &usage);
	else vk_rec_canary_encode(b, &canary);
	assert_false(b->failed);
}

static void test_catalog_records_cut_or_flipped_are_refused(void **state)
{
	(void)state;
	for (int kind = 0; kind < 3; kind++) {
		struct vk_buf b;
		encode_kind(kind, &b);
		assert_true(decodes(kind, vk_buf_bytes(&b)));
		for (size_t n = 0; n < b.n; n++)
			assert_false(decodes(kind, (struct vk_bytes){b.p, n}));
		for (size_t at = 0; at < b.n; at++) {
			b.p[at] ^= 0x21;
			assert_false(decodes(kind, vk_buf_bytes(&b)));
			b.p[at] ^= 0x21;
		}
		vk_buf_free(&b);
	}
}

/* Golden files. Each case makes its bytes; the file must hold the same ones, and decode. */

static size_t golden_row_head(uint8_t *dst)
{
	struct vk_cache_key key;
	struct vk_row_head h = {.meta = meta_of(1536, 42),
				.row_crc = 0xdeadbeef,
				.pages = 1,
				.page_id = 0x123456789abc,
				.part_set = {true, false, true, false},
				.part_id = {5, 0, 6, 0},
				.provenances = 2,
				.inline_p = (const uint8_t *)"inline bytes",
				.inline_n = 12};
	key_of(&key, 1, 2, 42);
	memset(h.provenance[0], 0xaa, 16);
	memset(h.provenance[1], 0xbb, 16);
	return vk_row_head_encode(dst, &key, &h, VK_CPU_SCALAR);
}

static size_t golden_journal(uint8_t *dst)
{
	struct vk_segment_head head = {.salt = 0x1122334455667788, .first_seq = 9};
	float row[2][5];
	struct vk_cache_put put[2];
	memset(put, 0, sizeof put);
	for (uint64_t i = 0; i < 2; i++) {
		put[i].meta = meta_of(5, i + 3);
		put[i].row = row[i];
		put[i].has_provenance = i == 1;
		memset(put[i].provenance, 0xcc, 16);
		key_of(&put[i].key, 1, 2, i);
		row_of(row[i], 5, i);
	}
	size_t n = vk_entry_size(put, 2);
	vk_segment_head_encode(dst, &head, VK_CPU_SCALAR);
	uint8_t *e = dst + VK_SEGMENT_HEAD_SIZE;
	vk_entry_encode(e, put, 2);
	vk_entry_seal(e, n, vk_entry_payload_crc(e, n, VK_CPU_SCALAR), head.salt, 9, VK_CPU_SCALAR);
	return VK_SEGMENT_HEAD_SIZE + n;
}

static size_t golden_totals(uint8_t *dst)
{
	struct vk_totals t = {.row_bytes = 123456789012, .journal_seq = 77};
	vk_totals_encode(dst, &t, VK_CPU_SCALAR);
	return VK_TOTALS_SIZE;
}

static size_t golden_kind(int kind, uint8_t *dst)
{
	struct vk_buf b;
	encode_kind(kind, &b);
	size_t n = b.n;
	memcpy(dst, b.p, n);
	vk_buf_free(&b);
	return n;
}
static size_t golden_pool(uint8_t *dst) { return golden_kind(0, dst); }
static size_t golden_usage(uint8_t *dst) { return golden_kind(1, dst); }
static size_t golden_canary(uint8_t *dst) { return golden_kind(2, dst); }

static const struct {
	const char *name;
	size_t (*make)(uint8_t *dst);
} goldens[] = {
    {"row_head.bin", golden_row_head}, {"journal.bin", golden_journal}, {"totals.bin", golden_totals},
    {"pool.bin", golden_pool},	       {"usage.bin", golden_usage},	{"canary.bin", golden_canary},
};

static void test_golden_files_are_what_is_written_today(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
		uint8_t made[4096] = {0};
		golden_check(goldens[i].name, made, goldens[i].make(made));
	}
}

static void test_golden_files_decode(void **state)
{
	(void)state;
	uint8_t b[4096];
	struct vk_cache_key key;
	struct vk_row_head h;
	struct vk_totals totals;
	struct vk_rec_pool pool, want_pool;
	struct vk_rec_usage usage, want_usage;
	struct vk_rec_canary canary;
	struct vk_cache_meta want_meta = meta_of(1536, 42);

	size_t n = golden_read("row_head.bin", b, sizeof b);
	key_of(&key, 1, 2, 42);
	assert_true(vk_row_head_decode(&h, &key, b, n, vk_cpu_best()));
	same_meta(&h.meta, &want_meta);
	assert_int_equal(h.page_id, 0x123456789abc);
	assert_int_equal(h.part_id[2], 6);
	assert_int_equal(h.provenance[1][15], 0xbb);
	assert_memory_equal(h.inline_p, "inline bytes", 12);

	n = golden_read("totals.bin", b, sizeof b);
	assert_true(vk_totals_decode(&totals, b, n, vk_cpu_best()));
	assert_int_equal(totals.row_bytes, 123456789012);
	assert_int_equal(totals.journal_seq, 77);

	n = golden_read("pool.bin", b, sizeof b);
	make_pool(&want_pool);
	assert_true(vk_rec_pool_decode(&pool, (struct vk_bytes){(char *)b, n}));
	assert_int_equal(pool.id, 7);
	assert_int_equal(pool.created_ms, want_pool.created_ms);
	assert_memory_equal(pool.secret, want_pool.secret, 64);

	n = golden_read("usage.bin", b, sizeof b);
	make_usage(&want_usage);
	assert_true(vk_rec_usage_decode(&usage, (struct vk_bytes){(char *)b, n}));
	assert_memory_equal(&usage, &want_usage, sizeof usage);

	n = golden_read("canary.bin", b, sizeof b);
	assert_true(vk_rec_canary_decode(&canary, (struct vk_bytes){(char *)b, n}));
	assert_int_equal(canary.verdict, 2);
	assert_int_equal(canary.when_ms, -5);
	assert_memory_equal(canary.rows, canary_rows, sizeof canary_rows);
}

static void test_golden_journal_decodes(void **state)
{
	(void)state;
	uint8_t b[4096];
	struct vk_segment_head head;
	struct vk_entry_walk w;
	struct vk_entry_put put;
	float row[5];
	size_t n = golden_read("journal.bin", b, sizeof b);
	assert_true(vk_segment_head_decode(&head, b, n, vk_cpu_best()));
	assert_int_equal(head.first_seq, 9);
	const uint8_t *e = b + VK_SEGMENT_HEAD_SIZE;
	n -= VK_SEGMENT_HEAD_SIZE;
	assert_int_equal(vk_entry_check(e, n, head.salt, 9, vk_cpu_best()), n);
	assert_int_equal(vk_entry_check(e, n, head.salt, 10, vk_cpu_best()), 0);
	assert_int_equal(vk_entry_check(e, n, head.salt + 1, 9, vk_cpu_best()), 0);
	assert_true(vk_entry_walk_start(&w, e, n));
	for (uint64_t i = 0; i < 2; i++) {
		struct vk_cache_meta want = meta_of(5, i + 3);
		assert_true(vk_entry_walk_next(&w, &put));
		same_meta(&put.meta, &want);
		row_of(row, 5, i);
		assert_memory_equal(put.row, row, sizeof row);
		assert_int_equal(put.provenance != NULL, i == 1);
	}
	assert_false(vk_entry_walk_next(&w, &put));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_row_head_decodes_to_what_was_encoded),
	    cmocka_unit_test(test_row_head_every_flipped_byte_is_caught),
	    cmocka_unit_test(test_catalog_records_cut_or_flipped_are_refused),
	    cmocka_unit_test(test_golden_files_are_what_is_written_today),
	    cmocka_unit_test(test_golden_files_decode),
	    cmocka_unit_test(test_golden_journal_decodes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
