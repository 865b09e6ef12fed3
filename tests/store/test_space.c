/*
 * Goal: a row costs at most 1.2 times its bytes on disk at 1024 and 1536 dims (DESIGN section 5),
 * all tables counted, and still does after rows have come and gone.
 * Method: rows with random keys are put into an empty environment; pages in use at the end,
 * divided by the bytes of the vectors. Then an eviction in steady state, and the same again.
 */
#include "tests/store/util.h"

#include "store/record.h"

#define ROWS 20000

static double cost_of(struct vk_cachedb *db)
{
	struct vk_cachedb_stats s;
	assert_int_equal(vk_cachedb_flush(db), VK_OK);
	vk_cachedb_stats(db, &s);
	assert_true(s.row_bytes > 0);
	return (double)s.used_bytes / (double)s.row_bytes;
}

static void put_rows(struct vk_cachedb *db, uint64_t from, uint64_t rows, uint32_t dims)
{
	float *row = calloc(dims, sizeof *row);
	for (uint64_t n = from; n < from + rows; n++) {
		struct vk_cache_put put = {
		    .meta = meta_of(dims, n), .row = row, .has_provenance = true};
		key_of(&put.key, 1, 1, n);
		memcpy(put.provenance, vk_cache_key_id(&put.key), 16);
		row[0] = (float)n;
		assert_int_equal(vk_cachedb_put(db, &put, 1, NULL, NULL), VK_OK);
	}
	free(row);
}

static void test_space_row_costs_little_more_than_its_bytes(void **state)
{
	(void)state;
	static const struct {
		uint32_t dims;
		double most;
	} cases[] = {{128, 2},	  {256, 1.5},  {384, 1.4},  {512, 1.3},	 {768, 1.25},
		     {1024, 1.2}, {1536, 1.2}, {2048, 1.2}, {3072, 1.2}, {4096, 1.2}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct temp t;
		struct vk_row_split s;
		uint32_t dims = cases[i].dims;
		temp_make(&t);
		struct vk_cachedb *db = must_open(t.path, NULL);
		put_rows(db, 0, (uint64_t)ROWS * 1536 / (dims > 1536 ? dims : 1536), dims);
		double cost = cost_of(db);
		vk_row_split_choose(&s, dims * 4, 4096);
		print_message(
		    "%4u dims: %.3f x (with provenance; %u pages, parts %u %u %u %u, %u inline)\n",
		    dims, cost, s.pages, s.part_n[0], s.part_n[1], s.part_n[2], s.part_n[3],
		    s.inline_n);
		assert_true(cost <= cases[i].most);
		vk_cachedb_close(db);
		temp_free(&t);
	}
}

static void test_space_churn_leaves_no_holes(void **state)
{
	(void)state;
	struct temp t;
	temp_make(&t);
	struct vk_cachedb *db =
	    must_open(t.path, &(struct vk_cachedb_opts){.budget_bytes = (uint64_t)32 << 20});
	put_rows(db, 0, 25000, 1536); /* five times what fits */
	struct vk_cachedb_stats s;
	double cost = cost_of(db);
	vk_cachedb_stats(db, &s);
	print_message("1536 dims after churn: %.3f x, %llu rows, %llu evicted, %llu free bytes\n",
		      cost, (unsigned long long)s.rows, (unsigned long long)s.evicted,
		      (unsigned long long)s.free_bytes);
	assert_true(s.evicted > 15000);
	assert_true(cost <= 1.2);
	/* The file, free pages and all, does not run away from what is in use. */
	assert_true(s.used_bytes + s.free_bytes <= ((uint64_t)32 << 20) * 13 / 10);
	vk_cachedb_close(db);
	temp_free(&t);
}

static void test_space_split_accounts_for_every_byte(void **state)
{
	(void)state;
	for (uint32_t page = 4096; page <= 65536; page *= 4)
		for (uint32_t dims = 1; dims <= VK_DIMS_MAX; dims += dims < 5000 ? 1 : 997) {
			struct vk_row_split s;
			vk_row_split_choose(&s, dims * 4, page);
			uint64_t n = s.inline_n;
			if (s.pages) n += (uint64_t)(s.pages - 1) * s.page_n + s.last_page_n;
			for (int c = 0; c < VK_ROW_CLASSES; c++) n += s.part_n[c];
			assert_int_equal(n, dims * 4);
			assert_true(s.inline_n <= VK_ROW_INLINE_MAX && s.pages <= 255);
		}
}

int main(void)
{
	vk_log_set_level(VK_LOG_ERROR);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_space_split_accounts_for_every_byte),
	    cmocka_unit_test(test_space_row_costs_little_more_than_its_bytes),
	    cmocka_unit_test(test_space_churn_leaves_no_holes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
