/*
 * Goal: the budget holds at every moment, rows that are asked for outlive those that are not, and
 * provenance goes with evicted rows.
 * Method: a budget of some megabytes, several times that put; a hot set read all the time.
 */
#include "tests/store/util.h"

#define BUDGET ((uint64_t)16 << 20)
#define DIMS 1024
#define HOT 200

static void test_evict_keeps_the_budget_and_the_hot_rows(void **state)
{
	(void)state;
	struct temp t;
	temp_make(&t);
	struct vk_cachedb *db =
	    must_open(t.path, &(struct vk_cachedb_opts){.budget_bytes = BUDGET});
	struct vk_cachedb_stats s;
	for (uint64_t n = 0; n < HOT; n++)
		assert_int_equal(put_one(db, 1, 1, n, DIMS, NULL, NULL), VK_OK);
	assert_int_equal(vk_cachedb_flush(db), VK_OK);
	uint64_t most = 0, hot_left = 0, cold_left = 0, cold = 20000;
	for (uint64_t n = 0; n < cold; n++) {
		assert_int_equal(put_one(db, 1, 2, n, DIMS, NULL, NULL), VK_OK);
		get_one(db, 1, 1, n % HOT, DIMS);
		if (n % 64) continue;
		/* Else the puts (and our reads) run ahead of the writer by all that the queue
		 * holds. */
		assert_int_equal(vk_cachedb_flush(db), VK_OK);
		vk_cachedb_stats(db, &s);
		if (s.used_bytes > most) most = s.used_bytes;
		assert_true(s.used_bytes <= BUDGET);
	}
	assert_int_equal(vk_cachedb_flush(db), VK_OK);
	for (uint64_t n = 0; n < HOT; n++) hot_left += get_one(db, 1, 1, n, DIMS) == VK_OK;
	for (uint64_t n = 0; n < cold; n++) cold_left += get_one(db, 1, 2, n, DIMS) == VK_OK;
	vk_cachedb_stats(db, &s);
	print_message("hot %llu of %d, cold %llu of %llu, used at most %llu of %llu\n",
		      (unsigned long long)hot_left, HOT, (unsigned long long)cold_left,
		      (unsigned long long)cold, (unsigned long long)most,
		      (unsigned long long)BUDGET);
	assert_int_equal(s.rows, hot_left + cold_left);
	assert_int_equal(s.evicted, HOT + cold - s.rows);
	/* 5 of 6 cold rows had to go; of the hot ones nearly none (the first lap finds bits unset).
	 */
	assert_true(hot_left >= HOT * 95 / 100);
	assert_true(cold_left < cold / 4);
	/* And what fits is kept: most of the budget is in use. */
	assert_true(s.used_bytes > BUDGET * 9 / 10);
	vk_cachedb_close(db);
	temp_free(&t);
}

static void test_evict_takes_provenance_along(void **state)
{
	(void)state;
	struct temp t;
	float row[DIMS];
	temp_make(&t);
	struct vk_cachedb *db =
	    must_open(t.path, &(struct vk_cachedb_opts){.budget_bytes = (uint64_t)4 << 20});
	for (uint64_t n = 0; n < 4000; n++) {
		struct vk_cache_put put = {
		    .meta = meta_of(DIMS, n), .row = row, .has_provenance = true};
		key_of(&put.key, 1, 1, n);
		row_of(row, DIMS, n);
		memcpy(put.provenance, vk_cache_key_id(&put.key), 16);
		assert_int_equal(vk_cachedb_put(db, &put, 1, NULL, NULL), VK_OK);
	}
	assert_int_equal(vk_cachedb_flush(db), VK_OK);
	uint64_t gone = 0;
	for (uint64_t n = 0; n < 4000; n++) {
		struct vk_cache_key key, named;
		struct vk_cache_read *r;
		key_of(&key, 1, 1, n);
		enum vk_status there = get_one(db, 1, 1, n, DIMS);
		assert_int_equal(vk_cachedb_read_begin(db, &r), VK_OK);
		assert_int_equal(vk_cachedb_get_provenance(r, 1, vk_cache_key_id(&key), &named),
				 there);
		vk_cachedb_read_end(r);
		gone += there != VK_OK;
	}
	assert_true(gone > 2000);
	vk_cachedb_close(db);
	temp_free(&t);
}

static void test_evict_smaller_budget_at_open_is_reached_while_idle(void **state)
{
	(void)state;
	struct temp t;
	struct vk_cachedb_stats s;
	temp_make(&t);
	struct vk_cachedb *db = must_open(t.path, NULL);
	for (uint64_t n = 0; n < 3000; n++)
		assert_int_equal(put_one(db, 1, 1, n, DIMS, NULL, NULL), VK_OK);
	vk_cachedb_close(db);
	db = must_open(t.path, &(struct vk_cachedb_opts){.budget_bytes = (uint64_t)5 << 20});
	for (int i = 0; i < 500; i++) {
		vk_cachedb_stats(db, &s);
		if (s.used_bytes <= (uint64_t)5 << 20) break;
		usleep(10000);
	}
	assert_true(s.used_bytes <= (uint64_t)5 << 20);
	assert_true(s.rows > 500);
	vk_cachedb_close(db);
	temp_free(&t);
}

int main(void)
{
	vk_log_set_level(VK_LOG_ERROR);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_evict_keeps_the_budget_and_the_hot_rows),
	    cmocka_unit_test(test_evict_takes_provenance_along),
	    cmocka_unit_test(test_evict_smaller_budget_at_open_is_reached_while_idle),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
