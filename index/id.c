/* Point ids: three kinds behind one key. */
#include "index/id.h"

enum { KIND_U64 = 1, KIND_UUID = 2, KIND_TEXT = 3 };

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9') return c - '0';
	if (c >= 'a' && c <= 'f') return c - 'a' + 10;
	if (c >= 'A' && c <= 'F') return c - 'A' + 10;
	return -1;
}

static bool starts(struct vk_bytes s, const char *with)
{
	size_t n = strlen(with);
	return s.n >= n && memcmp(s.p, with, n) == 0;
}

/* 32 digits, or 8-4-4-4-12. */
static bool read_digits(struct vk_bytes s, uint8_t out[16])
{
	bool hyphens = s.n == 36;
	if (!hyphens && s.n != 32) return false;
	size_t at = 0;
	for (size_t i = 0; i < s.n; i++) {
		if (hyphens && (i == 8 || i == 13 || i == 18 || i == 23)) {
			if (s.p[i] != '-') return false;
			continue;
		}
		int d = hex_digit(s.p[i]);
		if (d < 0) return false;
		out[at / 2] = (uint8_t)(at % 2 ? out[at / 2] | d : d << 4);
		at++;
	}
	return true;
}

bool vk_uuid_parse(struct vk_bytes s, uint8_t out[16])
{
	if (starts(s, "urn:uuid:"))
		s = (struct vk_bytes){s.p + 9, s.n - 9};
	else if (s.n == 38 && s.p[0] == '{' && s.p[37] == '}')
		s = (struct vk_bytes){s.p + 1, 36};
	else
		return read_digits(s, out);
	return s.n == 36 && read_digits(s, out);
}

void vk_uuid_print(char dst[37], const uint8_t uuid[16])
{
	static const uint8_t group[5] = {4, 2, 2, 2, 6};
	for (int g = 0; g < 5; g++) {
		vk_hex(dst, uuid, group[g]);
		dst += 2 * group[g];
		uuid += group[g];
		*dst++ = g < 4 ? '-' : 0;
	}
}

void vk_id_u64(uint8_t dst[9], uint64_t id)
{
	dst[0] = KIND_U64;
	vk_put_u64be(dst + 1, id);
}

static enum vk_status key_of(struct vk_arena *a, uint8_t kind, const void *p, size_t n, struct vk_bytes *key,
			     struct vk_error *err)
{
	char *k = vk_arena_alloc(a, 1 + n);
	if (!k) return vk_fail(err, VK_E_NOMEM, "out of memory");
	k[0] = (char)kind;
	memcpy(k + 1, p, n);
	*key = (struct vk_bytes){k, 1 + n};
	return VK_OK;
}

static enum vk_status key_of_u64(struct vk_arena *a, uint64_t id, struct vk_bytes *key, struct vk_error *err)
{
	uint8_t be[8];
	vk_put_u64be(be, id);
	return key_of(a, KIND_U64, be, 8, key, err);
}

static enum vk_status key_of_string(struct vk_arena *a, struct vk_bytes s, struct vk_bytes *key,
				    struct vk_error *err)
{
	uint8_t uuid[16];
	if (vk_uuid_parse(s, uuid)) return key_of(a, KIND_UUID, uuid, 16, key, err);
	if (s.n < 1 || s.n > VK_ID_TEXT_MAX)
		return vk_fail(err, VK_E_INVALID, "a point ID in words has 1 to %d bytes, this one has %zu",
			       VK_ID_TEXT_MAX, s.n);
	return key_of(a, KIND_TEXT, s.p, s.n, key, err);
}

enum vk_status vk_id_read(struct vk_arena *a, const vk_jv *v, struct vk_bytes *key, struct vk_error *err)
{
	uint64_t id;
	struct vk_bytes s;
	if (vk_jv_u64(v, &id)) return key_of_u64(a, id, key, err);
	if (vk_jv_str(v, &s)) return key_of_string(a, s, key, err);
	bool shown = vk_jv_type(v) == VK_J_NUMBER && vk_jv_text(v, &s) && s.n < 64;
	return vk_fail(err, VK_E_INVALID,
		       "value %.*s is not a valid point ID, valid values are either an unsigned integer, a "
		       "UUID or a string",
		       shown ? (int)s.n : 0, shown ? s.p : "");
}

enum vk_status vk_id_from_text(struct vk_arena *a, struct vk_bytes text, struct vk_bytes *key,
			       struct vk_error *err)
{
	uint64_t id = 0;
	bool number = text.n > 0;
	for (size_t i = 0; i < text.n && number; i++) {
		unsigned d = (unsigned char)(text.p[i] - '0');
		number = d <= 9 && id <= (UINT64_MAX - d) / 10;
		if (number) id = id * 10 + d;
	}
	return number ? key_of_u64(a, id, key, err) : key_of_string(a, text, key, err);
}

void vk_id_write(struct vk_jw *w, struct vk_bytes key)
{
	const uint8_t *p = (const uint8_t *)key.p;
	char uuid[37];
	if (key.n == 9 && p[0] == KIND_U64) {
		vk_jw_u64(w, vk_get_u64be(p + 1));
	} else if (key.n == 17 && p[0] == KIND_UUID) {
		vk_uuid_print(uuid, p + 1);
		vk_jw_cstr(w, uuid);
	} else if (key.n > 1 && p[0] == KIND_TEXT) {
		vk_jw_str(w, (struct vk_bytes){key.p + 1, key.n - 1});
	} else {
		vk_jw_null(w);
	}
}

bool vk_id_valid(struct vk_bytes key)
{
	if (!key.n) return false;
	if (key.p[0] == KIND_U64) return key.n == 9;
	if (key.p[0] == KIND_UUID) return key.n == 17;
	return key.p[0] == KIND_TEXT && key.n >= 2 && key.n <= VK_ID_KEY_MAX;
}

int vk_id_compare(struct vk_bytes a, struct vk_bytes b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n ? memcmp(a.p, b.p, n) : 0;
	return c ? c : (a.n > b.n) - (a.n < b.n);
}
