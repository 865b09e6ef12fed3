/*
 * Goal: a generation's pointer decodes to what was encoded, version 1 stays readable, and no flipped byte and no other key
 * gives another answer. Method: seeded random records through encode and decode, every bit flipped, a golden file.
 */
#include "tests/store/golden.h"

#include "store/record_gen.h"

static struct vk_bytes gen_key(uint8_t key[VK_REC_GEN_KEY_SIZE], uint32_t set, bool building)
{
	vk_rec_gen_key(key, set, building);
	return (struct vk_bytes){(const char *)key, VK_REC_GEN_KEY_SIZE};
}

static struct vk_rec_gen random_record(uint64_t *rng)
{
	struct vk_rec_gen r = {.engine = (uint8_t)vk_rng(rng), .number = (uint32_t)vk_rng(rng), .sequence = vk_rng(rng), .bytes = vk_rng(rng)};
	for (size_t i = 0; i < sizeof r.tag; i++) r.tag[i] = (uint8_t)vk_rng(rng);
	return r;
}

static bool same(const struct vk_rec_gen *a, const struct vk_rec_gen *b)
{
	return a->engine == b->engine && a->number == b->number && a->sequence == b->sequence && a->bytes == b->bytes &&
	       !memcmp(a->tag, b->tag, sizeof a->tag);
}

static void test_gen_random_records_come_back_and_flips_do_not(void **state)
{
	uint64_t rng = test_seed("gen_records");
	(void)state;
	for (int round = 0; round < 200; round++) {
		uint8_t at[VK_REC_GEN_KEY_SIZE], elsewhere[VK_REC_GEN_KEY_SIZE], rec[VK_REC_GEN_SIZE];
		uint32_t set = (uint32_t)vk_rng(&rng), read;
		bool building = vk_rng(&rng) & 1, was;
		struct vk_rec_gen r = random_record(&rng), back = {0};
		struct vk_bytes key = gen_key(at, set, building), value = {(char *)rec, sizeof rec};
		assert_true(vk_rec_gen_key_read(key, &read, &was) && read == set && was == building);
		vk_rec_gen_encode(rec, key, &r);
		assert_true(vk_rec_gen_decode(&back, key, value) && same(&r, &back));
		assert_false(vk_rec_gen_decode(&back, gen_key(elsewhere, set, !building), value));
		assert_false(vk_rec_gen_decode(&back, gen_key(elsewhere, set ^ 1, building), value));
		assert_false(vk_rec_gen_decode(&back, key, (struct vk_bytes){(char *)rec, sizeof rec - 1}));
		for (size_t bit = 0; bit < 8 * sizeof rec; bit++) {
			rec[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_false(vk_rec_gen_decode(&back, key, value));
			rec[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
}

static void test_gen_other_keys_are_refused(void **state)
{
	uint32_t set;
	bool building;
	(void)state;
	assert_false(vk_rec_gen_key_read(VK_LIT("gen:"), &set, &building));
	assert_false(vk_rec_gen_key_read(VK_LIT("gex:1234"), &set, &building));
	assert_false(vk_rec_gen_key_read(VK_LIT("gen:12345"), &set, &building));
}

static void test_gen_golden_file_stays_readable(void **state)
{
	uint64_t rng = 7;
	uint8_t at[VK_REC_GEN_KEY_SIZE], rec[VK_REC_GEN_SIZE];
	struct vk_rec_gen r = random_record(&rng), back = {0};
	(void)state;
	struct vk_bytes key = gen_key(at, 3, false);
	vk_rec_gen_encode(rec, key, &r);
	golden_check("generation.bin", rec, sizeof rec);
	assert_true(vk_rec_gen_decode(&back, key, (struct vk_bytes){(char *)rec, sizeof rec}) && same(&r, &back));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_gen_random_records_come_back_and_flips_do_not),
	    cmocka_unit_test(test_gen_other_keys_are_refused),
	    cmocka_unit_test(test_gen_golden_file_stays_readable),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
