/* Safetensors: the header's claims are checked once, then tensors are spans of the map. */
#include "embed/encoder/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/json.h"

#define LENGTH_SIZE 8

struct vk_safetensors {
	struct vk_bytes file;
	bool mapped; /* munmap on close */
	struct vk_arena arena;
	struct vk_tensor *tensors; /* sorted by name */
	size_t count;
};

static const struct dtype {
	const char *name;
	uint32_t bits;
	enum vk_tensor_type type;
} dtypes[] = {
	{"F32", 32, VK_TENSOR_F32},	  {"F16", 16, VK_TENSOR_F16},	   {"BF16", 16, VK_TENSOR_BF16},
	{"F64", 64, VK_TENSOR_OTHER}, {"I64", 64, VK_TENSOR_OTHER},	   {"I32", 32, VK_TENSOR_OTHER},
	{"I16", 16, VK_TENSOR_OTHER}, {"I8", 8, VK_TENSOR_OTHER},	   {"U64", 64, VK_TENSOR_OTHER},
	{"U32", 32, VK_TENSOR_OTHER}, {"U16", 16, VK_TENSOR_OTHER},	   {"U8", 8, VK_TENSOR_OTHER},
	{"BOOL", 8, VK_TENSOR_OTHER}, {"F8_E5M2", 8, VK_TENSOR_OTHER}, {"F8_E4M3", 8, VK_TENSOR_OTHER},
};

static const struct dtype *dtype_of(struct vk_bytes name)
{
	for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
		if (vk_bytes_is(name, dtypes[i].name)) return &dtypes[i];
	return NULL;
}

/* Numbers of an array that may be empty (a scalar's shape): false when it is no such array
 * or has more than max, or one past 2^32: no encoder that runs on a CPU has weights past 4 GiB. */
static bool read_sizes(const vk_jv *v, uint64_t *dst, size_t max, size_t *n)
{
	*n = vk_jv_len(v);
	if (*n > max) return false;
	if (vk_jv_type(v) == VK_J_ARRAY) return *n == 0;
	if (vk_jv_type(v) != VK_J_NUMBERS) return false;
	uint32_t u[VK_SAFETENSORS_RANK_MAX];
	if (!vk_jv_u32s(v, u)) return false;
	for (size_t i = 0; i < *n; i++) dst[i] = u[i];
	return true;
}

static enum vk_status bad(struct vk_error *err, const struct vk_tensor *t, const char *what)
{
	return vk_fail(err, VK_E_INVALID, "safetensors: tensor '%.100s': %s", t->name, what);
}

static enum vk_status read_tensor(const vk_jv *v, struct vk_bytes data, struct vk_tensor *t,
				  struct vk_error *err)
{
	struct vk_bytes type_name;
	uint64_t range[VK_SAFETENSORS_RANK_MAX];
	size_t n;
	if (!vk_jv_str(vk_jv_get(v, "dtype"), &type_name)) return bad(err, t, "has no dtype");
	const struct dtype *type = dtype_of(type_name);
	if (!type) return bad(err, t, "unknown dtype");
	t->type = type->type;
	if (!read_sizes(vk_jv_get(v, "shape"), t->shape, VK_SAFETENSORS_RANK_MAX, &n))
		return bad(err, t, "bad shape");
	t->rank = (uint32_t)n;
	t->count = 1;
	for (size_t i = 0; i < n; i++)
		if (__builtin_mul_overflow(t->count, t->shape[i], &t->count))
			return bad(err, t, "shape is too large");
	if (!read_sizes(vk_jv_get(v, "data_offsets"), range, 2, &n) || n != 2)
		return bad(err, t, "bad data_offsets");
	if (range[0] > range[1] || range[1] > data.n) return bad(err, t, "lies outside the file");
	t->data = (const uint8_t *)data.p + range[0];
	t->size = range[1] - range[0];
	uint64_t bytes;
	if (__builtin_mul_overflow(t->count, type->bits / 8, &bytes) || bytes != t->size)
		return bad(err, t, "shape and size disagree");
	return VK_OK;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct vk_tensor *)a)->name, ((const struct vk_tensor *)b)->name);
}

static int by_place(const void *a, const void *b)
{
	const struct vk_tensor *x = a, *y = b;
	if (x->data != y->data) return x->data < y->data ? -1 : 1;
	return x->size < y->size ? -1 : x->size > y->size;
}

static enum vk_status check_overlaps(struct vk_safetensors *s, struct vk_error *err)
{
	qsort(s->tensors, s->count, sizeof s->tensors[0], by_place);
	for (size_t i = 1; i < s->count; i++)
		if (s->tensors[i - 1].data + s->tensors[i - 1].size > s->tensors[i].data)
			return bad(err, &s->tensors[i], "overlaps another tensor");
	return VK_OK;
}

static enum vk_status read_header(struct vk_safetensors *s, const vk_jv *root, struct vk_bytes data,
				  struct vk_error *err)
{
	if (vk_jv_type(root) != VK_J_OBJECT)
		return vk_fail(err, VK_E_INVALID, "safetensors: the header is no JSON object");
	size_t count = vk_jv_len(root);
	if (count > VK_SAFETENSORS_TENSORS_MAX)
		return vk_fail(err, VK_E_INVALID, "safetensors: %zu tensors, at most %d are read",
			       count, VK_SAFETENSORS_TENSORS_MAX);
	s->tensors = vk_arena_calloc(&s->arena, count + 1, sizeof s->tensors[0]);
	if (!s->tensors) return vk_fail(err, VK_E_NOMEM, "safetensors: out of memory");
	for (const vk_jv *v = vk_jv_first(root); v; v = vk_jv_next(v)) {
		struct vk_bytes key = vk_jv_key(v);
		if (vk_bytes_is(key, "__metadata__")) continue;
		struct vk_tensor *t = &s->tensors[s->count];
		t->name = vk_arena_strndup(&s->arena, key.p, key.n);
		if (!t->name) return vk_fail(err, VK_E_NOMEM, "safetensors: out of memory");
		enum vk_status st = read_tensor(v, data, t, err);
		if (st) return st;
		s->count++;
	}
	enum vk_status st = check_overlaps(s, err);
	if (!st) qsort(s->tensors, s->count, sizeof s->tensors[0], by_name);
	return st;
}

static enum vk_status parse(struct vk_safetensors *s, struct vk_error *err)
{
	struct vk_bytes file = s->file;
	if (file.n < LENGTH_SIZE)
		return vk_fail(err, VK_E_INVALID,
			       "safetensors: the file is shorter than its length field");
	uint64_t header_size = vk_get_u64le((const uint8_t *)file.p);
	if (header_size > VK_SAFETENSORS_HEADER_MAX || header_size > file.n - LENGTH_SIZE)
		return vk_fail(err, VK_E_INVALID,
			       "safetensors: a header of %llu bytes does not fit",
			       (unsigned long long)header_size);
	struct vk_bytes header = {file.p + LENGTH_SIZE, (size_t)header_size};
	struct vk_bytes data = {header.p + header.n, file.n - LENGTH_SIZE - header.n};
	struct vk_arena scratch;
	vk_arena_init(&scratch, 8 * VK_SAFETENSORS_HEADER_MAX);
	struct vk_json *doc = NULL;
	enum vk_status st = vk_json_parse(&scratch, header, NULL, &doc, err);
	if (!st) st = read_header(s, vk_json_root(doc), data, err);
	vk_json_free(doc);
	vk_arena_free(&scratch);
	return st;
}

static enum vk_status finish(struct vk_safetensors *s, struct vk_safetensors **out,
			     struct vk_error *err)
{
	enum vk_status st = parse(s, err);
	if (st) vk_safetensors_close(s);
	else *out = s;
	return st;
}

static struct vk_safetensors *create(void)
{
	struct vk_safetensors *s = calloc(1, sizeof *s);
	if (s) vk_arena_init(&s->arena, 4 * VK_SAFETENSORS_HEADER_MAX);
	return s;
}

enum vk_status vk_safetensors_parse(struct vk_bytes file, struct vk_safetensors **out,
				    struct vk_error *err)
{
	*out = NULL;
	struct vk_safetensors *s = create();
	if (!s) return vk_fail(err, VK_E_NOMEM, "safetensors: out of memory");
	s->file = file;
	return finish(s, out, err);
}

enum vk_status vk_safetensors_open(const char *path, struct vk_safetensors **out,
				   struct vk_error *err)
{
	*out = NULL;
	enum vk_status st = VK_OK;
	struct stat sb;
	struct vk_safetensors *s = NULL;
	void *map = MAP_FAILED;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return vk_fail(err, errno == ENOENT ? VK_E_NOT_FOUND : VK_E_IO, "%.300s: %s", path,
			       strerror(errno));
	if (fstat(fd, &sb) || !S_ISREG(sb.st_mode) || sb.st_size == 0) {
		st = vk_fail(err, VK_E_INVALID, "%.300s: not a file with content", path);
		goto out;
	}
	s = create();
	if (!s) {
		st = vk_fail(err, VK_E_NOMEM, "safetensors: out of memory");
		goto out;
	}
	map = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED) {
		st = vk_fail(err, VK_E_IO, "%.300s: cannot map: %s", path, strerror(errno));
		free(s);
		goto out;
	}
	s->file = (struct vk_bytes){map, (size_t)sb.st_size};
	s->mapped = true;
	st = finish(s, out, err);
out:
	close(fd);
	return st;
}

void vk_safetensors_close(struct vk_safetensors *s)
{
	if (!s) return;
	if (s->mapped) munmap((void *)s->file.p, s->file.n);
	vk_arena_free(&s->arena);
	free(s);
}

struct vk_bytes vk_safetensors_bytes(const struct vk_safetensors *s) { return s->file; }

const struct vk_tensor *vk_safetensors_find(const struct vk_safetensors *s, const char *name)
{
	struct vk_tensor key = {.name = name};
	return bsearch(&key, s->tensors, s->count, sizeof s->tensors[0], by_name);
}

static float f32_of_bits(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static float f32_of_f16(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
	if (exponent == 31) return f32_of_bits(sign | 0x7f800000 | fraction << 13);
	if (exponent) return f32_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
	float tiny = (float)fraction * 0x1p-24f;
	return sign ? -tiny : tiny;
}

void vk_tensor_read(const struct vk_tensor *t, uint64_t first, size_t n, float *dst)
{
	assert(t->type != VK_TENSOR_OTHER && n <= t->count && first <= t->count - n);
	if (t->type == VK_TENSOR_F32) {
		memcpy(dst, t->data + first * 4, n * 4);
		return;
	}
	const uint8_t *p = t->data + first * 2;
	for (size_t i = 0; i < n; i++, p += 2) {
		uint16_t h = (uint16_t)(p[0] | p[1] << 8);
		dst[i] = t->type == VK_TENSOR_F16 ? f32_of_f16(h) : f32_of_bits((uint32_t)h << 16);
	}
}
