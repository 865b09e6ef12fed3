/*
 * Goal: a point's small records decode to what was encoded, version 1 stays readable, and no flipped byte becomes another
 * answer, nor a record under another key.
 * Method: seeded random records through encode and decode; every single bit of each flipped; a golden file of all of them,
 * encoded again to the same bytes.
 */
#include "tests/store/golden.h"

#include "store/record_point.h"

struct all { /* one of each */
	uint8_t id[VK_REC_ID_KEY_MAX];
	size_t id_n;
	uint32_t slot;
	uint64_t sequence;
	struct vk_rec_change change;
	struct vk_rec_state state;
	struct vk_rec_cursor cursor;
	uint16_t field;
	uint64_t next_slot;
};

static struct vk_bytes id_of(const struct all *a) { return (struct vk_bytes){(const char *)a->id, a->id_n}; }

static void random_all(struct all *a, uint64_t *rng)
{
	memset(a, 0, sizeof *a);
	a->id_n = 1 + vk_rng(rng) % VK_REC_ID_KEY_MAX;
	for (size_t i = 0; i < a->id_n; i++) a->id[i] = (uint8_t)vk_rng(rng);
	a->slot = (uint32_t)vk_rng(rng);
	a->sequence = vk_rng(rng);
	a->change = (struct vk_rec_change){.op = 1 + vk_rng(rng) % 2, .slot = a->slot, .mask = vk_rng(rng)};
	a->state = (struct vk_rec_state){.next_slot = (uint64_t)a->slot + 1, .sequence = a->sequence,
					 .points = a->slot / 2, .config_epoch = vk_rng(rng)};
	a->cursor = (struct vk_rec_cursor){.sequence = vk_rng(rng), .expires_ms = (int64_t)vk_rng(rng)};
	a->field = (uint16_t)vk_rng(rng);
	a->next_slot = vk_rng(rng);
}

enum kind { SLOT, POINT, CHANGE, STATE, CURSOR, BUILD, KINDS };
#define RECORD_MAX VK_REC_CHANGE_MAX
#define CURSOR_KEY VK_LIT("cursor:job-7")

static size_t encode(enum kind k, const struct all *a, uint8_t dst[RECORD_MAX])
{
	struct vk_rec_point p = {.sequence = a->sequence, .id = id_of(a)};
	struct vk_rec_change c = a->change;
	c.id = id_of(a);
	switch (k) {
	case SLOT: vk_rec_slot_encode(dst, id_of(a), a->slot); return VK_REC_SLOT_SIZE;
	case POINT: return vk_rec_point_encode(dst, a->slot, &p);
	case CHANGE: return vk_rec_change_encode(dst, a->sequence, &c);
	case STATE: vk_rec_state_encode(dst, &a->state); return VK_REC_STATE_SIZE;
	case CURSOR: vk_rec_cursor_encode(dst, CURSOR_KEY, &a->cursor); return VK_REC_CURSOR_SIZE;
	default: vk_rec_build_encode(dst, a->field, a->next_slot); return VK_REC_BUILD_SIZE;
	}
}

/* Decodes under a's keys; *same: is it what a holds? */
static bool decode(enum kind k, const struct all *a, struct vk_bytes b, bool *same)
{
	struct vk_rec_point p = {0};
	struct vk_rec_change c = {0};
	struct vk_rec_state s;
	struct vk_rec_cursor cursor;
	uint32_t slot = 0;
	uint64_t next = 0;
	bool ok = false;
	switch (k) {
	case SLOT:
		ok = vk_rec_slot_decode(id_of(a), b, &slot);
		*same = slot == a->slot;
		break;
	case POINT:
		ok = vk_rec_point_decode(&p, a->slot, b);
		*same = ok && p.sequence == a->sequence && vk_bytes_eq(p.id, id_of(a));
		break;
	case CHANGE:
		ok = vk_rec_change_decode(&c, a->sequence, b);
		*same = ok && c.op == a->change.op && c.slot == a->change.slot && c.mask == a->change.mask &&
			vk_bytes_eq(c.id, id_of(a));
		break;
	case STATE:
		ok = vk_rec_state_decode(&s, b);
		*same = ok && memcmp(&s, &a->state, sizeof s) == 0;
		break;
	case CURSOR:
		ok = vk_rec_cursor_decode(&cursor, CURSOR_KEY, b);
		*same = ok && memcmp(&cursor, &a->cursor, sizeof cursor) == 0;
		break;
	default:
		ok = vk_rec_build_decode(a->field, b, &next);
		*same = next == a->next_slot;
	}
	return ok;
}

static void test_point_records_decode_to_what_was_encoded(void **state)
{
	(void)state;
	uint64_t rng = test_seed("point_records");
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
			/* cut short it is nothing */
			assert_false(decode(k, &a, (struct vk_bytes){(char *)bytes, vk_rng(&rng) % n}, &same));
		}
	}
}

static void test_point_records_under_another_key_are_refused(void **state)
{
	(void)state;
	uint64_t rng = test_seed("point_keys");
	uint8_t bytes[RECORD_MAX];
	struct all a;
	bool same;
	for (int i = 0; i < 500; i++) {
		random_all(&a, &rng);
		for (enum kind k = 0; k < KINDS; k++) {
			if (k == STATE || k == CURSOR) continue; /* their key is a word */
			size_t n = encode(k, &a, bytes);
			struct all other = a;
			other.id[vk_rng(&rng) % a.id_n] ^= 4;
			other.slot ^= 1u << vk_rng(&rng) % 32;
			other.sequence ^= 1;
			other.field ^= 1;
			assert_false(decode(k, &other, (struct vk_bytes){(char *)bytes, n}, &same));
		}
	}
}

static void test_point_records_every_flipped_bit_is_caught(void **state)
{
	(void)state;
	uint64_t rng = test_seed("point_flips");
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

static void test_point_keys_read_back_and_sort_as_numbers(void **state)
{
	(void)state;
	uint8_t a[12], b[12];
	uint64_t sequence;
	uint32_t slot, set;
	uint16_t field;
	vk_rec_free_key(a, 255, 9);
	vk_rec_free_key(b, 256, 8);
	assert_true(memcmp(a, b, 12) < 0);
	assert_true(vk_rec_free_key_read((struct vk_bytes){(char *)b, 12}, &sequence, &slot));
	assert_true(sequence == 256 && slot == 8);
	vk_rec_slot_key(a, 255);
	vk_rec_slot_key(b, 256);
	assert_true(memcmp(a, b, 4) < 0);
	assert_true(vk_rec_slot_key_read((struct vk_bytes){(char *)b, 4}, &slot));
	assert_int_equal(slot, 256);
	vk_rec_drop_set_key(a, 0x01020304);
	assert_true(vk_rec_drop_set_read((struct vk_bytes){(char *)a, 10}, &set));
	assert_int_equal(set, 0x01020304);
	vk_rec_drop_field_key(b, 0x0102);
	assert_true(vk_rec_drop_field_read((struct vk_bytes){(char *)b, 8}, &field));
	assert_int_equal(field, 0x0102);
	assert_false(vk_rec_drop_field_read((struct vk_bytes){(char *)a, 10}, &field));
	assert_false(vk_rec_drop_set_read((struct vk_bytes){(char *)b, 8}, &set));
}

/* All records of one fixed point, each with its length before it. */
static size_t golden(uint8_t dst[4096])
{
	struct all a = {.id = {3, 'd', 'o', 'c', '-', '1'}, .id_n = 6, .slot = 70000, .sequence = 1234567890123,
			.field = 7, .next_slot = 4242};
	a.change = (struct vk_rec_change){.op = VK_CHANGE_DELETED, .slot = 70000, .mask = 0x8000000000000003};
	a.state = (struct vk_rec_state){.next_slot = 70001, .sequence = 1234567890123, .points = 69000, .config_epoch = 3};
	a.cursor = (struct vk_rec_cursor){.sequence = 99, .expires_ms = 1700000000123};
	size_t at = 0;
	for (enum kind k = 0; k < KINDS; k++) {
		size_t n = encode(k, &a, dst + at + 1);
		dst[at] = (uint8_t)n;
		at += 1 + n;
	}
	return at;
}

static void test_point_records_of_version_1_stay_as_they_are(void **state)
{
	(void)state;
	uint8_t made[4096];
	golden_check("points.bin", made, golden(made));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_point_records_decode_to_what_was_encoded),
	    cmocka_unit_test(test_point_records_under_another_key_are_refused),
	    cmocka_unit_test(test_point_records_every_flipped_bit_is_caught),
	    cmocka_unit_test(test_point_keys_read_back_and_sort_as_numbers),
	    cmocka_unit_test(test_point_records_of_version_1_stay_as_they_are),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
