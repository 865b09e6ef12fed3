/*
 * Goal: sparse vectors and texts decode to what was encoded, version 1 stays readable, and no flipped byte becomes another
 * answer, nor a record under another key. Method: as test_record_point.c: seeded random records through encode and decode,
 * every bit flipped, a golden file encoded again.
 */
#include "tests/store/golden.h"

#include "store/record_extra.h"

#define ENTRIES 40
#define TEXT 100
#define RECORD_MAX 512

struct all { /* one of each */
	uint32_t slot, set, n, index[ENTRIES];
	float value[ENTRIES];
	char text[TEXT], key[TEXT];
	size_t text_n, key_n;
	uint64_t at;
};

enum kind { SPARSE, OWN_TEXT, NOTED_TEXT, DROP_AT, KINDS };

static void random_all(struct all *a, uint64_t *rng)
{
	memset(a, 0, sizeof *a);
	a->slot = (uint32_t)vk_rng(rng);
	a->set = (uint32_t)vk_rng(rng);
	a->n = (uint32_t)(vk_rng(rng) % (ENTRIES + 1));
	for (uint32_t i = 0; i < a->n; i++) {
		uint32_t bits = (uint32_t)vk_rng(rng);
		a->index[i] = (i ? a->index[i - 1] + 1 : 0) + (uint32_t)(vk_rng(rng) % 100000000);
		memcpy(&a->value[i], &bits, sizeof bits); /* any bits: NaNs, too, must come back */
	}
	a->text_n = vk_rng(rng) % TEXT;
	a->key_n = 1 + vk_rng(rng) % (TEXT - 1);
	for (size_t i = 0; i < TEXT; i++) a->text[i] = (char)vk_rng(rng), a->key[i] = (char)vk_rng(rng);
	a->at = vk_rng(rng) % ((uint64_t)1 << 32);
}

static struct vk_rec_text text_of(enum kind k, const struct all *a)
{
	if (k == NOTED_TEXT) return (struct vk_rec_text){.key = {a->key, a->key_n}};
	return (struct vk_rec_text){.text = {a->text, a->text_n}};
}

static size_t encode(enum kind k, const struct all *a, uint8_t dst[RECORD_MAX])
{
	struct vk_rec_text t = text_of(k, a);
	switch (k) {
	case SPARSE:
		vk_rec_sparse_encode(dst, a->slot, a->set, a->index, a->value, a->n);
		return vk_rec_sparse_size(a->n);
	case DROP_AT: vk_rec_drop_at_encode(dst, a->set, a->at); return VK_REC_DROP_AT_SIZE;
	default: vk_rec_text_encode(dst, a->slot, a->set, &t); return vk_rec_text_size(&t);
	}
}

/* Decodes under a's keys; *same: is it what a holds? */
static bool decode(enum kind k, const struct all *a, struct vk_bytes b, bool *same)
{
	struct vk_rec_sparse s = {0};
	struct vk_rec_text t = {0}, want = text_of(k, a);
	uint64_t at = 0;
	bool ok;
	switch (k) {
	case SPARSE:
		ok = vk_rec_sparse_decode(&s, a->slot, a->set, b);
		*same = ok && s.n == a->n;
		for (uint32_t i = 0; *same && i < s.n; i++)
			*same = vk_get_u32le(s.index + 4 * (size_t)i) == a->index[i] && !memcmp(s.value + 4 * (size_t)i, &a->value[i], 4);
		return ok;
	case DROP_AT:
		ok = vk_rec_drop_at_decode(a->set, b, &at);
		*same = ok && at == a->at;
		return ok;
	default:
		ok = vk_rec_text_decode(&t, a->slot, a->set, b);
		*same = ok && vk_bytes_eq(t.text, want.text) && vk_bytes_eq(t.key, want.key);
		return ok;
	}
}

static void test_extra_records_decode_to_what_was_encoded(void **state)
{
	(void)state;
	uint64_t rng = test_seed("extra_records");
	uint8_t bytes[RECORD_MAX];
	struct all a;
	bool same;
	for (int i = 0; i < 2000; i++) {
		random_all(&a, &rng);
		for (enum kind k = 0; k < KINDS; k++) {
			size_t n = encode(k, &a, bytes);
			assert_true(n <= sizeof bytes);
			assert_true(decode(k, &a, (struct vk_bytes){(char *)bytes, n}, &same));
			assert_true(same);
			/* cut short it is nothing, but an empty place to go on from is the start */
			size_t less = 1 + vk_rng(&rng) % (n - 1);
			assert_false(decode(k, &a, (struct vk_bytes){(char *)bytes, less}, &same));
		}
	}
	assert_true(vk_rec_drop_at_decode(7, (struct vk_bytes){0}, &a.at));
	assert_int_equal(a.at, 0);
}

static void test_extra_records_under_another_key_are_refused(void **state)
{
	(void)state;
	uint64_t rng = test_seed("extra_keys");
	uint8_t bytes[RECORD_MAX];
	struct all a;
	bool same;
	for (int i = 0; i < 500; i++) {
		random_all(&a, &rng);
		for (enum kind k = 0; k < KINDS; k++) {
			size_t n = encode(k, &a, bytes);
			struct all other = a;
			if (k == DROP_AT || i % 2) other.set ^= 1u << vk_rng(&rng) % 32;
			else other.slot ^= 1u << vk_rng(&rng) % 32;
			assert_false(decode(k, &other, (struct vk_bytes){(char *)bytes, n}, &same));
			/* a text is no sparse vector, nor the other way round */
			if (k != DROP_AT) assert_false(decode(k == SPARSE ? OWN_TEXT : SPARSE, &a, (struct vk_bytes){(char *)bytes, n}, &same));
		}
	}
}

static void test_extra_records_every_flipped_bit_is_caught(void **state)
{
	(void)state;
	uint64_t rng = test_seed("extra_flips");
	uint8_t bytes[RECORD_MAX];
	struct all a;
	bool same;
	for (int i = 0; i < 10; i++) {
		random_all(&a, &rng);
		for (enum kind k = 0; k < KINDS; k++) {
			size_t n = encode(k, &a, bytes);
			for (size_t bit = 0; bit < 8 * n; bit++) {
				bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
				assert_false(decode(k, &a, (struct vk_bytes){(char *)bytes, n}, &same));
				bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
			}
		}
	}
}

/* A record whose CRC is right and whose content is not: written by nothing of ours, and refused all the same. */
static void test_extra_records_that_check_and_make_no_sense_are_refused(void **state)
{
	(void)state;
	static const uint32_t twice[2] = {7, 7}, down[2] = {8, 7};
	static const float value[2] = {1, 2};
	uint8_t bytes[RECORD_MAX];
	struct vk_rec_sparse s;
	struct vk_rec_text t, both = {.key = VK_LIT("text"), .text = VK_LIT("x")};
	vk_rec_sparse_encode(bytes, 1, 2, twice, value, 2);
	assert_false(vk_rec_sparse_decode(&s, 1, 2, (struct vk_bytes){(char *)bytes, vk_rec_sparse_size(2)}));
	vk_rec_sparse_encode(bytes, 1, 2, down, value, 2);
	assert_false(vk_rec_sparse_decode(&s, 1, 2, (struct vk_bytes){(char *)bytes, vk_rec_sparse_size(2)}));
	vk_rec_text_encode(bytes, 1, 2, &both);
	assert_false(vk_rec_text_decode(&t, 1, 2, (struct vk_bytes){(char *)bytes, vk_rec_text_size(&both)}));
}

static void test_extra_keys_read_back_and_sort_by_slot(void **state)
{
	(void)state;
	uint8_t a[VK_REC_EXTRA_KEY_SIZE], b[VK_REC_EXTRA_KEY_SIZE], kind;
	uint32_t slot, set;
	vk_rec_extra_key(a, 255, VK_EXTRA_TEXT, 9);
	vk_rec_extra_key(b, 256, VK_EXTRA_SPARSE, 8);
	assert_true(memcmp(a, b, sizeof a) < 0);
	assert_true(vk_rec_extra_key_read((struct vk_bytes){(char *)b, sizeof b}, &slot, &kind, &set));
	assert_true(slot == 256 && kind == VK_EXTRA_SPARSE && set == 8);
	assert_false(vk_rec_extra_key_read((struct vk_bytes){(char *)b, sizeof b - 1}, &slot, &kind, &set));
	b[4] = 3;
	assert_false(vk_rec_extra_key_read((struct vk_bytes){(char *)b, sizeof b}, &slot, &kind, &set));
}

/* All records of one fixed point, each with its length before it. */
static size_t golden(uint8_t dst[4096])
{
	struct all a = {.slot = 70000, .set = 3, .n = 3, .index = {0, 10, 4294967295}, .value = {0.5f, -0.0f, 1e-40f},
			.text = "Wie geht es?", .text_n = 12, .key = "page_content", .key_n = 12, .at = 4242};
	size_t at = 0;
	for (enum kind k = 0; k < KINDS; k++) {
		size_t n = encode(k, &a, dst + at + 1);
		dst[at] = (uint8_t)n;
		at += 1 + n;
	}
	return at;
}

static void test_extra_records_of_version_1_stay_as_they_are(void **state)
{
	(void)state;
	uint8_t made[4096];
	golden_check("extra.bin", made, golden(made));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_extra_records_decode_to_what_was_encoded),
	    cmocka_unit_test(test_extra_records_under_another_key_are_refused),
	    cmocka_unit_test(test_extra_records_every_flipped_bit_is_caught),
	    cmocka_unit_test(test_extra_records_that_check_and_make_no_sense_are_refused),
	    cmocka_unit_test(test_extra_keys_read_back_and_sort_by_slot),
	    cmocka_unit_test(test_extra_records_of_version_1_stay_as_they_are),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
