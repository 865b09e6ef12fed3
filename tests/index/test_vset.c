/*
 * Goal: for every slot at most one row counts, and it is the last one put; whatever mix of batches, deletes,
 * sealing and reopening came before. Scans see every row once, with the right bytes, norm, codes and bits,
 * 64-byte aligned; counters are what a walk would count; a view does not move; damage is told and harmless;
 * hardly any disk is wasted. Method: seeded random work on several sets of one environment against a model
 * that keeps only a number for each slot, from which its row follows; conversions are done anew here, by the
 * plain definition.
 */
#include "tests/store/util.h"

#include "index/tables.h"
#include "index/vset.h"
#include "store/kv.h"
#include "store/record_vset.h"

static const char *const tables[VK_T_COUNT] = VK_TABLE_NAMES;

struct model {
	struct vk_set set;
	uint32_t slots;   /* 0 .. slots - 1 are used */
	uint32_t base;    /* added to each */
	uint64_t *number; /* 0: no row; else what the row follows from */
};

#define SETS 10
static const struct model kinds[SETS] = {
    {.set = {.id = 1, .dims = 1, .dtype = VK_DTYPE_F32}, .slots = 40000},
    {.set = {.id = 2, .dims = 3, .dtype = VK_DTYPE_F16}, .slots = 40000, .base = 1u << 20},
    {.set = {.id = 3, .dims = 100, .dtype = VK_DTYPE_U8}, .slots = 6000},
    {.set = {.id = 4, .dims = 384, .dtype = VK_DTYPE_F32, .quant = VK_QUANT_BINARY}, .slots = 700},
    {.set = {.id = 5, .dims = 1536, .dtype = VK_DTYPE_F32, .space = 9}, .slots = 300, .base = 0u - 300},
    {.set = {.id = 6, .dims = 65536, .dtype = VK_DTYPE_F32}, .slots = 7, .base = 0u - 7},
    {.set = {.id = 7, .dims = 384, .dtype = VK_DTYPE_I8}, .slots = 1500},
    {.set = {.id = 256, .dims = 200, .dtype = VK_DTYPE_BITS}, .slots = 9000},
    {.set = {.id = 257, .dims = 100, .dtype = VK_DTYPE_F16, .quant = VK_QUANT_BINARY}, .slots = 3000, .base = 77 << 10},
    {.set = {.id = UINT32_MAX, .dims = 4096, .dtype = VK_DTYPE_F32}, .slots = 100},
};

struct fix {
	struct temp dir;
	struct vk_kv_writers *writers;
	struct vk_kv *kv;
	struct model m[SETS];
	uint64_t rng, numbers;
};

static void reopen(struct fix *f)
{
	struct vk_error err = {0};
	struct vk_kv_opts o = {.map_bytes = (uint64_t)4 << 30, .tables = tables, .tables_n = VK_T_COUNT, .writers = f->writers};
	vk_kv_close(f->kv);
	if (vk_kv_open(f->dir.path, &o, &f->kv, &err)) fail_msg("%s", err.text);
}

static void fix_make(struct fix *f, const char *name)
{
	*f = (struct fix){.rng = test_seed(name)};
	temp_make(&f->dir);
	assert_int_equal(vk_kv_writers_new(1, &f->writers), VK_OK);
	reopen(f);
	memcpy(f->m, kinds, sizeof kinds);
	for (int i = 0; i < SETS; i++) f->m[i].number = calloc(f->m[i].slots, sizeof(uint64_t));
}

static void fix_free(struct fix *f)
{
	for (int i = 0; i < SETS; i++) free(f->m[i].number);
	vk_kv_close(f->kv);
	vk_kv_writers_free(f->writers);
	temp_free(&f->dir);
}

static uint32_t below(struct fix *f, uint32_t n) { return (uint32_t)(vk_rng(&f->rng) % n); }

/* --- rows --- */

static void make_row(const struct vk_set *s, uint64_t number, float *row)
{
	float scale = s->dtype == VK_DTYPE_U8 || s->dtype == VK_DTYPE_I8 ? 400.0f : number % 50 == 0 ? 1e5f : 1.0f;
	row_of(row, s->dims, number);
	for (uint32_t i = 0; i < s->dims; i++) row[i] *= scale;
	if (number % 41 == 0) memset(row, 0, s->dims * sizeof *row);
}

/* What a row becomes: as kept, and widened again. */
static void expect_row(const struct vk_set *s, uint64_t number, uint8_t *kept, float *wide)
{
	make_row(s, number, wide);
	if (s->dtype == VK_DTYPE_BITS) memset(kept, 0, (s->dims + 7) / 8);
	for (uint32_t i = 0; i < s->dims; i++) {
		float x = wide[i];
		if (s->dtype == VK_DTYPE_F32) memcpy(kept + 4 * i, &x, 4);
		if (s->dtype == VK_DTYPE_F16) {
			float most = x > 65504 ? 65504 : x < -65504 ? -65504 : x;
			uint16_t half;
			vk_kernels(VK_CPU_SCALAR)->f32_to_f16(&half, &most, 1);
			vk_kernels(VK_CPU_SCALAR)->f16_to_f32(&wide[i], &half, 1);
			memcpy(kept + 2 * i, &half, 2);
		}
		if (s->dtype == VK_DTYPE_U8) wide[i] = kept[i] = (uint8_t)fminf(fmaxf(x, 0), 255);
		if (s->dtype == VK_DTYPE_I8) {
			kept[i] = (uint8_t)(int8_t)fminf(fmaxf(x, -128), 127);
			wide[i] = (float)(int8_t)kept[i];
		}
		if (s->dtype == VK_DTYPE_BITS) {
			wide[i] = x > 0;
			kept[i / 8] |= (uint8_t)((x > 0) << i % 8);
		}
	}
}

/* --- work --- */

struct work {
	const struct vk_set *set;
	struct vk_row_in *in;
	size_t n;
	const uint32_t *del;
	size_t del_n;
	enum vk_status del_want;
	bool seal, all;
	size_t budget;
	uint32_t *from;
};

static enum vk_status apply_work(void *arg, struct vk_kv_txn *t)
{
	struct work *w = arg;
	enum vk_status st = VK_OK;
	if (w->n) st = vk_vset_put(t, w->set, w->in, w->n);
	for (size_t i = 0; !st && i < w->del_n; i++) st = vk_vset_del(t, w->set, w->del[i]);
	if (!st && w->seal) st = vk_vset_seal_step(t, w->set, w->all, w->budget, w->from);
	return st;
}

static enum vk_status run(struct fix *f, struct work *w)
{
	struct vk_kv_job job = {.apply = apply_work, .arg = w, .background = w->seal};
	return vk_kv_run(f->kv, &job);
}

/* Puts rows of new numbers into slots (ascending, without base). */
static void put_slots(struct fix *f, struct model *m, const uint32_t *slot, size_t n)
{
	struct vk_row_in *in = calloc(n, sizeof *in);
	float *rows = malloc(n * m->set.dims * sizeof *rows);
	assert_true(in && rows);
	for (size_t i = 0; i < n; i++) {
		float *row = rows + i * m->set.dims;
		m->number[slot[i]] = ++f->numbers;
		make_row(&m->set, f->numbers, row);
		in[i] = (struct vk_row_in){.slot = slot[i] + m->base, .row = row};
	}
	struct work w = {.set = &m->set, .in = in, .n = n};
	assert_int_equal(run(f, &w), VK_OK);
	free(rows);
	free(in);
}

static void put_run(struct fix *f, struct model *m)
{
	uint32_t slots = vk_vset_rows(&m->set), from = below(f, m->slots), n = 1 + below(f, 2 * slots + 2);
	uint32_t *slot = malloc(m->slots * sizeof *slot);
	if (below(f, 2)) from -= from % slots;
	if (from + n > m->slots) n = m->slots - from;
	for (uint32_t i = 0; i < n; i++) slot[i] = from + i;
	put_slots(f, m, slot, n);
	free(slot);
}

static void put_some(struct fix *f, struct model *m)
{
	uint32_t *slot = malloc(m->slots * sizeof *slot), n = 0, every = 1 + below(f, m->slots / 3 + 1);
	for (uint32_t i = below(f, every); i < m->slots; i += 1 + below(f, every)) slot[n++] = i;
	if (n) put_slots(f, m, slot, n);
	free(slot);
}

static void del_some(struct fix *f, struct model *m)
{
	uint32_t *slot = malloc(m->slots * sizeof *slot), n = 0, every = 1 + below(f, 40), from = below(f, m->slots);
	uint32_t most = below(f, 4) ? 200 : m->slots;
	for (uint32_t i = from; i < m->slots && n < most; i += 1 + below(f, every)) {
		if (!m->number[i]) continue;
		m->number[i] = 0;
		slot[n++] = i + m->base;
	}
	struct work w = {.set = &m->set, .del = slot, .del_n = n};
	assert_int_equal(run(f, &w), VK_OK);
	/* Once more: there is none. */
	w.del_n = n ? 1 : 0;
	if (n) assert_int_equal(run(f, &w), VK_E_NOT_FOUND);
	free(slot);
}

static void seal(struct fix *f, struct model *m, bool all)
{
	uint32_t from = 0;
	struct work w = {.set = &m->set, .seal = true, .all = all, .from = &from, .budget = 1 + below(f, 1 << 20)};
	assert_int_equal(run(f, &w), VK_OK); /* step by step until there is no more */
	assert_int_equal(from, 0);
}

/* --- checks --- */

struct check {
	struct vk_kv_txn *t;
	const struct model *m;
	uint8_t *kept, *code;
	float *wide, *got;
	uint8_t *seen;
};

static void check_row(struct check *c, uint32_t slot, const void *row, float inv_norm)
{
	const struct vk_set *s = &c->m->set;
	uint32_t i = slot - c->m->base;
	assert_true(i < c->m->slots);
	assert_true(c->m->number[i] != 0);
	expect_row(s, c->m->number[i], c->kept, c->wide);
	float want = vk_inverse_norm(c->wide, s->dims);
	assert_memory_equal(row, c->kept, vk_row_bytes(s->dtype, s->dims));
	assert_memory_equal(&inv_norm, &want, sizeof want);
}

/* c->wide holds the row. */
static void check_codes(struct check *c, const struct vk_part *p, uint32_t rank)
{
	const struct vk_set *s = &c->m->set;
	bool codes = s->dims >= VK_CODE_DIMS_MIN && (s->dtype == VK_DTYPE_F32 || s->dtype == VK_DTYPE_F16);
	assert_int_equal(p->code_head != NULL, codes);
	assert_int_equal(p->bits != NULL, s->quant == VK_QUANT_BINARY);
	if (codes) {
		struct vk_code_head head;
		vk_code_row(vk_kernels(VK_CPU_SCALAR), &head, c->code, p->code_stride, c->wide, s->dims);
		assert_memory_equal(&p->code_head[rank], &head, sizeof head);
		assert_memory_equal(p->code + (size_t)rank * p->code_stride, c->code, p->code_stride);
		assert_int_equal((uintptr_t)p->code % 64, 0);
	}
	for (uint32_t i = 0; p->bits && i < p->bits_stride * 8; i++) {
		bool bit = p->bits[(size_t)rank * p->bits_stride + i / 8] >> i % 8 & 1;
		assert_int_equal(bit, i < s->dims && c->wide[i] > 0);
	}
}

static bool bit_of(const uint64_t *words, uint32_t i) { return words[i / 64] >> i % 64 & 1; }

/* Every row of the parts once; how many. want: every part and tail row holds a wanted slot. */
static uint64_t check_parts(struct check *c, const struct vk_parts *ps, const struct vk_bitmap *want)
{
	const struct vk_set *s = &c->m->set;
	uint64_t n = 0;
	memset(c->seen, 0, c->m->slots);
	for (size_t k = 0; k < ps->part_n; k++) {
		const struct vk_part *p = &ps->part[k];
		uint32_t rank = 0, wanted = 0;
		assert_true(k == 0 || p->first > p[-1].first);
		assert_int_equal(p->slots, vk_vset_rows(s));
		assert_int_equal((uintptr_t)p->row % 64, 0);
		for (uint32_t i = 0; i < p->slots; i++) {
			if (!bit_of(p->present, i)) continue;
			if (!p->dead || !bit_of(p->dead, i)) {
				uint32_t slot = p->first + i;
				check_row(c, slot, p->row + (size_t)rank * p->stride, p->inv_norm[rank]);
				check_codes(c, p, rank);
				assert_int_equal(c->seen[slot - c->m->base]++, 0);
				wanted += !want || vk_bitmap_has(want, slot);
				n++;
			}
			rank++;
		}
		assert_int_equal(rank, p->rows);
		assert_true(wanted || !want);
	}
	for (size_t k = 0; k < ps->tail_n; k++) {
		const struct vk_tail_row *r = &ps->tail[k];
		assert_true(k == 0 || r->slot > r[-1].slot);
		check_row(c, r->slot, r->row, r->inv_norm);
		assert_int_equal(c->seen[r->slot - c->m->base]++, 0);
		assert_true(!want || vk_bitmap_has(want, r->slot));
		n++;
	}
	return n;
}

static void check_want(struct fix *f, struct check *c)
{
	struct vk_bitmap *want = vk_bitmap_new();
	struct vk_arena a;
	struct vk_parts ps;
	uint32_t every = 1 + below(f, c->m->slots);
	for (uint32_t i = below(f, every); i < c->m->slots; i += 1 + below(f, every)) vk_bitmap_add(want, i + c->m->base);
	vk_arena_init(&a, 64 << 20);
	assert_int_equal(vk_vset_parts(c->t, &c->m->set, want, &a, &ps), VK_OK);
	check_parts(c, &ps, want);
	for (uint32_t i = 0; i < c->m->slots; i++)
		if (c->m->number[i] && vk_bitmap_has(want, i + c->m->base)) assert_int_equal(c->seen[i], 1);
	vk_arena_free(&a);
	vk_bitmap_free(want);
}

/* Counters against a walk of the tables. */
static void check_stats(struct check *c, uint64_t rows)
{
	static const enum vk_table table[] = {VK_T_BLOCK, VK_T_CODE, VK_T_BITS, VK_T_TAIL};
	uint64_t n[4] = {0}, bytes = 0, dead = 0;
	struct vk_vset_stats st;
	struct vk_kv_cursor *cur;
	struct vk_bytes k, v;
	uint8_t key[8];
	uint32_t set, no;
	uint64_t words[VK_REC_BLOCK_WORDS_MAX];
	vk_rec_vset_key(key, c->m->set.id, 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(vk_kv_cursor_open(c->t, i < 4 ? table[i] : VK_T_DEAD, &cur), VK_OK);
		enum vk_status s = vk_kv_seek(cur, (struct vk_bytes){(char *)key, 8}, &k, &v);
		for (; !s && vk_rec_vset_key_read(k, &set, &no) && set == c->m->set.id; s = vk_kv_next(cur, &k, &v)) {
			if (i < 4) {
				n[i]++;
				bytes += v.n;
				continue;
			}
			assert_true(vk_rec_dead_decode(words, set, no, vk_vset_rows(&c->m->set), v));
			for (uint32_t j = 0; j < vk_rec_words(vk_vset_rows(&c->m->set)); j++)
				dead += (uint64_t)__builtin_popcountll(words[j]);
		}
		vk_kv_cursor_close(cur);
	}
	assert_int_equal(vk_vset_stats(c->t, &c->m->set, &st), VK_OK);
	assert_int_equal(st.rows, rows);
	assert_int_equal(st.blocks, n[0]);
	assert_int_equal(st.tail_rows, n[3]);
	assert_int_equal(st.dead_rows, dead);
	assert_int_equal(st.bytes, bytes);
}

static void check_points(struct fix *f, struct check *c)
{
	struct vk_bitmap *slots = vk_bitmap_new();
	uint64_t n = 0;
	assert_int_equal(vk_vset_slots(c->t, &c->m->set, slots), VK_OK);
	for (uint32_t i = 0; i < c->m->slots; i++) {
		assert_int_equal(vk_bitmap_has(slots, i + c->m->base), c->m->number[i] != 0);
		n += c->m->number[i] != 0;
	}
	assert_int_equal(vk_bitmap_count(slots), n);
	vk_bitmap_free(slots);
	for (int k = 0; k < 30; k++) {
		uint32_t i = below(f, c->m->slots), slot = i + c->m->base;
		struct vk_row row;
		enum vk_status st = vk_vset_row(c->t, &c->m->set, slot, &row);
		assert_int_equal(st, c->m->number[i] ? VK_OK : VK_E_NOT_FOUND);
		assert_int_equal(vk_vset_has(c->t, &c->m->set, slot), !st);
		if (st) continue;
		check_row(c, slot, row.p, row.inv_norm);
		vk_row_f32(&c->m->set, &row, false, c->got);
		assert_memory_equal(c->got, c->wide, c->m->set.dims * sizeof(float));
		vk_row_f32(&c->m->set, &row, true, c->got);
		for (uint32_t d = 0; d < c->m->set.dims; d++) assert_true(c->got[d] == c->wide[d] * row.inv_norm);
	}
}

/* Some slots upwards, by strides that skip tails and blocks, or none. */
static void check_ascent(struct fix *f, struct check *c)
{
	for (uint32_t stride = 1; stride < 2000; stride = stride * 6 + 1) {
		struct vk_vset_ascent a;
		uint32_t i = below(f, c->m->slots < 50 ? 1 : 50);
		assert_int_equal(vk_vset_ascend_begin(&a, c->t, &c->m->set, i + c->m->base), VK_OK);
		for (uint32_t last = 0; i < c->m->slots; last = i, i += 1 + below(f, stride)) {
			struct vk_row row, one;
			enum vk_status st = vk_vset_ascend(&a, i + c->m->base, &row);
			assert_int_equal(st, c->m->number[i] ? VK_OK : VK_E_NOT_FOUND);
			if (!st) {
				assert_int_equal(vk_vset_row(c->t, &c->m->set, i + c->m->base, &one), VK_OK);
				assert_true(one.p == row.p && one.inv_norm == row.inv_norm);
			}
			if (last < i) assert_int_equal(vk_vset_ascend(&a, last + c->m->base, &row), VK_E_INVALID);
		}
		vk_vset_ascend_end(&a);
	}
}

static enum vk_status scrub(struct vk_kv_txn *t, const struct vk_set *s, int *bad)
{
	struct vk_error err = {0};
	uint32_t block = 0;
	enum vk_status st;
	*bad = 0;
	while ((st = vk_vset_scrub_step(t, s, 100000, &block, &err)) != VK_OK) {
		if (st == VK_E_BUSY) continue;
		assert_int_equal(st, VK_E_CORRUPT);
		assert_int_equal(err.st, VK_E_CORRUPT);
		assert_non_null(strstr(err.text, "does not check"));
		assert_true(++*bad < 1000);
	}
	return st;
}

static void check_set(struct fix *f, struct vk_kv_txn *t, const struct model *m)
{
	struct check c = {.t = t, .m = m};
	struct vk_arena a;
	struct vk_parts ps;
	int bad;
	c.kept = malloc(m->set.dims * 4);
	c.wide = malloc(m->set.dims * 4);
	c.got = malloc(m->set.dims * 4);
	c.code = malloc(m->set.dims + 64);
	c.seen = malloc(m->slots);
	vk_arena_init(&a, 64 << 20);
	assert_int_equal(vk_vset_parts(t, &m->set, NULL, &a, &ps), VK_OK);
	uint64_t n = check_parts(&c, &ps, NULL), rows = 0;
	for (uint32_t i = 0; i < m->slots; i++) rows += m->number[i] != 0;
	assert_int_equal(n, rows);
	assert_int_equal(ps.rows, rows);
	check_stats(&c, rows);
	check_points(f, &c);
	check_ascent(f, &c);
	check_want(f, &c);
	assert_int_equal(scrub(t, &m->set, &bad), VK_OK);
	assert_int_equal(bad, 0);
	vk_arena_free(&a);
	free(c.kept);
	free(c.wide);
	free(c.got);
	free(c.code);
	free(c.seen);
}

static void check_now(struct fix *f, const struct model *m)
{
	struct vk_kv_txn *t;
	assert_int_equal(vk_kv_view_begin(f->kv, &t), VK_OK);
	check_set(f, t, m);
	vk_kv_view_end(t);
}

static void do_something(struct fix *f, struct model *m)
{
	switch (below(f, 8)) {
	case 0: case 1: put_run(f, m); break;
	case 2: case 3: put_some(f, m); break;
	case 4: del_some(f, m); break;
	case 5: seal(f, m, false); break;
	case 6: seal(f, m, true); break;
	default: put_run(f, m); seal(f, m, true);
	}
}

static void test_vset_random_work_matches_the_model(void **state)
{
	(void)state;
	struct fix f;
	const char *rounds = getenv("VK_TEST_ROUNDS");
	fix_make(&f, "vset_random");
	for (int round = 0; round < (rounds ? atoi(rounds) : 25); round++) {
		for (int i = 0; i < SETS; i++) {
			do_something(&f, &f.m[i]);
			check_now(&f, &f.m[i]);
		}
		if (round % 7 == 3) reopen(&f);
	}
	for (int i = 0; i < SETS; i++) check_now(&f, &f.m[i]);
	fix_free(&f);
}

static void test_vset_view_taken_before_keeps_its_state(void **state)
{
	(void)state;
	struct fix f;
	fix_make(&f, "vset_view");
	for (int round = 0; round < 4; round++) {
		struct model *m = &f.m[round % 2 ? 4 : 8], was = *m;
		struct vk_kv_txn *t;
		put_run(&f, m);
		put_some(&f, m);
		was.number = malloc(m->slots * sizeof *was.number);
		memcpy(was.number, m->number, m->slots * sizeof *was.number);
		assert_int_equal(vk_kv_view_begin(f.kv, &t), VK_OK);
		for (int i = 0; i < 8; i++) do_something(&f, m);
		check_set(&f, t, &was);
		check_now(&f, m);
		vk_kv_view_end(t);
		free(was.number);
	}
	fix_free(&f);
}

static void fill(struct fix *f, struct model *m)
{
	uint32_t *slot = malloc(m->slots * sizeof *slot);
	for (uint32_t i = 0; i < m->slots; i++) slot[i] = i;
	put_slots(f, m, slot, m->slots);
	free(slot);
}

static void stats_of(struct fix *f, const struct vk_set *s, struct vk_vset_stats *st)
{
	struct vk_kv_txn *t;
	assert_int_equal(vk_kv_view_begin(f->kv, &t), VK_OK);
	assert_int_equal(vk_vset_stats(t, s, st), VK_OK);
	vk_kv_view_end(t);
}

static void test_vset_batch_of_whole_blocks_leaves_no_tail(void **state)
{
	(void)state;
	struct fix f;
	struct vk_vset_stats st;
	fix_make(&f, "vset_whole");
	struct model *m = &f.m[4]; /* blocks of 32; its last slot is the very last one */
	fill(&f, m);
	stats_of(&f, &m->set, &st);
	assert_int_equal(vk_vset_rows(&m->set), 32);
	assert_int_equal(st.rows, 300);
	assert_int_equal(st.blocks, 300 / 32);
	assert_int_equal(st.tail_rows, 300 % 32);
	check_now(&f, m);
	seal(&f, m, false); /* 12 of 32 wait: worth it */
	stats_of(&f, &m->set, &st);
	assert_int_equal(st.tail_rows, 0);
	check_now(&f, m);
	fix_free(&f);
}

static void test_vset_seal_makes_the_sign_bits_that_old_blocks_lack(void **state)
{
	(void)state;
	struct fix f;
	fix_make(&f, "vset_bits");
	struct model *m = &f.m[3];
	m->set.quant = VK_QUANT_NONE;
	fill(&f, m);
	seal(&f, m, true);
	check_now(&f, m); /* none has bits */
	m->set.quant = VK_QUANT_BINARY;
	seal(&f, m, false);
	check_now(&f, m); /* all have */
	seal(&f, m, false);
	check_now(&f, m);
	fix_free(&f);
}

static enum vk_status apply_drop(void *arg, struct vk_kv_txn *t)
{
	return vk_vset_drop_step(t, *(uint32_t *)arg, 300000);
}

static void test_vset_drop_takes_one_set_and_leaves_its_neighbours(void **state)
{
	(void)state;
	struct fix f;
	struct vk_vset_stats st;
	uint32_t id = 256;
	fix_make(&f, "vset_drop");
	for (int i = 6; i < 9; i++) {
		fill(&f, &f.m[i]);
		seal(&f, &f.m[i], true);
		put_some(&f, &f.m[i]);
		del_some(&f, &f.m[i]);
	}
	struct vk_kv_job job = {.apply = apply_drop, .arg = &id, .background = true};
	assert_int_equal(vk_kv_run(f.kv, &job), VK_OK);
	stats_of(&f, &f.m[7].set, &st);
	assert_int_equal(st.rows + st.blocks + st.bytes + st.tail_rows + st.dead_rows, 0);
	memset(f.m[7].number, 0, f.m[7].slots * sizeof(uint64_t));
	for (int i = 6; i < 9; i++) check_now(&f, &f.m[i]);
	fix_free(&f);
}

/* --- space --- */

static void space_of(uint32_t dims)
{
	enum { ROWS = 20000, BATCH = 500 };
	struct fix f;
	struct vk_kv_stats before, after;
	struct vk_set set = {.id = 1, .dims = dims, .dtype = VK_DTYPE_F32};
	struct model m = {.set = set, .slots = ROWS};
	uint32_t slot[BATCH];
	fix_make(&f, "vset_space");
	m.number = calloc(ROWS, sizeof *m.number);
	vk_kv_stats(f.kv, &before);
	for (uint32_t i = 0; i < ROWS; i += BATCH) {
		for (uint32_t j = 0; j < BATCH; j++) slot[j] = i + j;
		put_slots(&f, &m, slot, BATCH);
	}
	seal(&f, &m, true);
	struct vk_vset_stats st;
	stats_of(&f, &set, &st);
	vk_kv_stats(f.kv, &after);
	/* What must be kept of a row: itself and its norm, its codes and their head. */
	double payload = (double)ROWS * (4.0 * dims + 4 + dims + 24), used = (double)(after.used_bytes - before.used_bytes);
	print_message("%u d: %.0f bytes used, payload %.0f: %.4f\n", dims, used, payload, used / payload);
	assert_int_equal(st.rows, ROWS);
	assert_int_equal(st.tail_rows, 0);
	assert_true(used < 1.05 * payload);
	assert_true(used >= payload);
	free(m.number);
	fix_free(&f);
}

static void test_vset_sealed_rows_waste_at_most_five_percent(void **state)
{
	(void)state;
	space_of(1536);
	space_of(1024);
}

/* --- damage --- */

struct flip {
	enum vk_table table;
	uint32_t set, n;
	uint64_t *rng;
	size_t at;   /* SIZE_MAX: anywhere */
	bool cut;
};

/* Writes the value again with one bit turned over, or cut short. */
static enum vk_status apply_flip(void *arg, struct vk_kv_txn *t)
{
	struct flip *x = arg;
	uint8_t key[8];
	struct vk_bytes v;
	vk_rec_vset_key(key, x->set, x->n);
	struct vk_bytes k = {(char *)key, 8};
	enum vk_status st = vk_kv_get(t, x->table, k, &v);
	if (st) return st;
	size_t n = x->cut ? v.n - 1 - vk_rng(x->rng) % (v.n - 1) : v.n;
	char *copy = malloc(n);
	memcpy(copy, v.p, n);
	size_t at = (x->at == SIZE_MAX ? vk_rng(x->rng) : x->at) % n;
	copy[at] = (char)(copy[at] ^ 1 << vk_rng(x->rng) % 8);
	st = vk_kv_put(t, x->table, k, (struct vk_bytes){copy, n});
	free(copy);
	return st;
}

/* Reads everything that there is: any answer, no crash. */
static void read_all(struct fix *f, const struct model *m)
{
	struct vk_kv_txn *t;
	struct vk_arena a;
	struct vk_parts ps;
	struct vk_row row;
	volatile uint8_t sum = 0;
	struct vk_bitmap *slots = vk_bitmap_new();
	size_t row_n = vk_row_bytes(m->set.dtype, m->set.dims);
	assert_int_equal(vk_kv_view_begin(f->kv, &t), VK_OK);
	vk_arena_init(&a, 16 << 20);
	enum vk_status st = vk_vset_parts(t, &m->set, NULL, &a, &ps);
	assert_true(st == VK_OK || st == VK_E_CORRUPT);
	for (size_t k = 0; !st && k < ps.part_n; k++) {
		const struct vk_part *p = &ps.part[k];
		for (uint32_t i = 0; i < p->rows; i++) sum ^= p->row[(size_t)i * p->stride + p->stride - 1];
		if (p->code_head) sum ^= p->code[(size_t)(p->rows - 1) * p->code_stride + m->set.dims - 1];
	}
	st = vk_vset_slots(t, &m->set, slots);
	assert_true(st == VK_OK || st == VK_E_CORRUPT);
	for (uint32_t i = 0; i < m->slots; i++) {
		st = vk_vset_row(t, &m->set, i + m->base, &row);
		assert_true(st == VK_OK || st == VK_E_CORRUPT || st == VK_E_NOT_FOUND);
		if (!st) sum ^= ((const uint8_t *)row.p)[row_n - 1];
	}
	(void)sum;
	vk_arena_free(&a);
	vk_bitmap_free(slots);
	vk_kv_view_end(t);
}

static int scrub_now(struct fix *f, const struct vk_set *s)
{
	struct vk_kv_txn *t;
	int bad;
	assert_int_equal(vk_kv_view_begin(f->kv, &t), VK_OK);
	assert_int_equal(scrub(t, s, &bad), VK_OK);
	vk_kv_view_end(t);
	return bad;
}

static void test_vset_damage_is_noticed_by_scrubbing_and_reads_survive(void **state)
{
	(void)state;
	static const enum vk_table table[] = {VK_T_BLOCK, VK_T_CODE, VK_T_BITS, VK_T_DEAD, VK_T_TAIL};
	struct fix f;
	fix_make(&f, "vset_damage");
	vk_log_set_level(VK_LOG_OFF);
	struct model *m = &f.m[3];
	uint32_t slots = vk_vset_rows(&m->set), some[2] = {3, slots + 5};
	for (int i = 0; i < 120; i++) {
		memset(m->number, 0, m->slots * sizeof(uint64_t));
		fill(&f, m);
		seal(&f, m, true);
		put_slots(&f, m, some, 2); /* two in the tail, and dead at home */
		assert_int_equal(scrub_now(&f, &m->set), 0);
		struct flip x = {.table = table[i % 5], .set = m->set.id, .rng = &f.rng, .cut = i % 11 == 0};
		x.n = x.table == VK_T_TAIL ? 3 : 0;
		x.at = i % 3 ? SIZE_MAX : below(&f, 64); /* headers are hit often enough */
		struct vk_kv_job job = {.apply = apply_flip, .arg = &x};
		assert_int_equal(vk_kv_run(f.kv, &job), VK_OK);
		assert_int_equal(scrub_now(&f, &m->set), 1);
		read_all(&f, m);
		/* Sealing passes it over and does the rest. */
		uint32_t from = 0;
		struct work w = {.set = &m->set, .seal = true, .all = true, .from = &from, .budget = SIZE_MAX};
		assert_int_equal(run(&f, &w), VK_OK);
		read_all(&f, m);
		/* Codes and bits are made anew by a seal; the rest stays damaged, and told. */
		bool derived = x.table == VK_T_CODE || x.table == VK_T_BITS;
		assert_int_equal(scrub_now(&f, &m->set), derived ? 0 : 1);
		uint32_t id = m->set.id;
		struct vk_kv_job drop = {.apply = apply_drop, .arg = &id, .background = true};
		assert_int_equal(vk_kv_run(f.kv, &drop), VK_OK);
	}
	vk_log_set_level(VK_LOG_INFO);
	fix_free(&f);
}

struct swap { /* takes a code block out (value: NULL), or puts it back */
	uint32_t set, n;
	char *value;
	size_t size;
};

static enum vk_status apply_swap(void *arg, struct vk_kv_txn *t)
{
	struct swap *x = arg;
	uint8_t key[8];
	struct vk_bytes v;
	vk_rec_vset_key(key, x->set, x->n);
	struct vk_bytes k = {(char *)key, 8};
	if (x->value) return vk_kv_put(t, VK_T_CODE, k, (struct vk_bytes){x->value, x->size});
	enum vk_status st = vk_kv_get(t, VK_T_CODE, k, &v);
	if (st) return st;
	x->value = malloc(v.n);
	memcpy(x->value, v.p, x->size = v.n);
	return VK_OK;
}

static void test_vset_codes_of_other_rows_are_not_used(void **state)
{
	(void)state;
	struct fix f;
	struct vk_kv_txn *t;
	struct vk_arena a;
	struct vk_parts ps;
	fix_make(&f, "vset_swap");
	vk_log_set_level(VK_LOG_OFF);
	struct model *m = &f.m[4];
	struct swap x = {.set = m->set.id, .n = (m->base + 31) / 32 + 1};
	struct vk_kv_job job = {.apply = apply_swap, .arg = &x};
	fill(&f, m);
	assert_int_equal(vk_kv_run(f.kv, &job), VK_OK);
	fill(&f, m); /* other rows */
	check_now(&f, m);
	assert_int_equal(vk_kv_run(f.kv, &job), VK_OK); /* and the codes of the old ones */
	assert_int_equal(scrub_now(&f, &m->set), 1);
	assert_int_equal(vk_kv_view_begin(f.kv, &t), VK_OK);
	vk_arena_init(&a, 1 << 20);
	assert_int_equal(vk_vset_parts(t, &m->set, NULL, &a, &ps), VK_OK);
	for (size_t i = 0; i < ps.part_n; i++) assert_int_equal(ps.part[i].code_head != NULL, ps.part[i].first / 32 != x.n);
	vk_arena_free(&a);
	vk_kv_view_end(t);
	free(x.value);
	vk_log_set_level(VK_LOG_INFO);
	fix_free(&f);
}

/* Lines on standard error while fn runs. */
static int lines_logged(void (*fn)(struct fix *f, const struct model *m), struct fix *f, const struct model *m)
{
	char path[300], line[1000];
	int lines = 0, kept = dup(2);
	snprintf(path, sizeof path, "%s.log", f->dir.path);
	FILE *log = fopen(path, "w+");
	assert_non_null(log);
	dup2(fileno(log), 2);
	fn(f, m);
	dup2(kept, 2);
	close(kept);
	rewind(log);
	while (fgets(line, sizeof line, log)) lines += strstr(line, "does not check") != NULL;
	fclose(log);
	unlink(path);
	return lines;
}

static void test_vset_damaged_block_is_logged_once(void **state)
{
	(void)state;
	struct fix f;
	fix_make(&f, "vset_logged");
	struct model *m = &f.m[3];
	fill(&f, m);
	struct flip x = {.table = VK_T_BLOCK, .set = m->set.id, .n = 2, .rng = &f.rng, .at = 20};
	struct vk_kv_job job = {.apply = apply_flip, .arg = &x};
	assert_int_equal(vk_kv_run(f.kv, &job), VK_OK);
	assert_int_equal(lines_logged(read_all, &f, m), 1);
	assert_int_equal(lines_logged(read_all, &f, m), 0);
	fix_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_vset_random_work_matches_the_model),
	    cmocka_unit_test(test_vset_view_taken_before_keeps_its_state),
	    cmocka_unit_test(test_vset_batch_of_whole_blocks_leaves_no_tail),
	    cmocka_unit_test(test_vset_seal_makes_the_sign_bits_that_old_blocks_lack),
	    cmocka_unit_test(test_vset_drop_takes_one_set_and_leaves_its_neighbours),
	    cmocka_unit_test(test_vset_sealed_rows_waste_at_most_five_percent),
	    cmocka_unit_test(test_vset_damage_is_noticed_by_scrubbing_and_reads_survive),
	    cmocka_unit_test(test_vset_damaged_block_is_logged_once),
	    cmocka_unit_test(test_vset_codes_of_other_rows_are_not_used),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
