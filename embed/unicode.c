/*
 * utf8proc's door. Categories and lower case are its tables; NFD is ours on top of its
 * decompositions, because its own whole-string function sorts combining marks by swapping
 * neighbours, which a stranger can make quadratic.
 */
#include "embed/unicode.h"

#include <stdlib.h>

#include <utf8proc.h>

#include "base/utf8.h"

_Static_assert((int)VK_U_CN == UTF8PROC_CATEGORY_CN && (int)VK_U_LO == UTF8PROC_CATEGORY_LO &&
		       (int)VK_U_NO == UTF8PROC_CATEGORY_NO &&
		       (int)VK_U_PO == UTF8PROC_CATEGORY_PO &&
		       (int)VK_U_ZP == UTF8PROC_CATEGORY_ZP && (int)VK_U_CO == UTF8PROC_CATEGORY_CO,
	       "our categories are utf8proc's numbers");

/* Letters and numbers of Unicode 15.1 and 16.0, which utf8proc 2.8 calls unassigned; found by
 * asking the published tokenizer (tiktoken 0.14) about every code point. A newer library
 * knows them itself and never comes here. */
static const struct {
	uint32_t first, last;
	enum vk_ucat cat;
} newer[] = {
	{0x1c89, 0x1c89, VK_U_LU}, {0x1c8a, 0x1c8a, VK_U_LL},
	{0xa7cb, 0xa7cc, VK_U_LU}, {0xa7cd, 0xa7cd, VK_U_LL},
	{0xa7da, 0xa7da, VK_U_LU}, {0xa7db, 0xa7db, VK_U_LL},
	{0xa7dc, 0xa7dc, VK_U_LU}, {0x105c0, 0x105f3, VK_U_LO},
	{0x10d40, 0x10d49, VK_U_ND}, {0x10d4a, 0x10d4d, VK_U_LO},
	{0x10d4e, 0x10d4e, VK_U_LM}, {0x10d4f, 0x10d4f, VK_U_LO},
	{0x10d50, 0x10d65, VK_U_LU}, {0x10d6f, 0x10d6f, VK_U_LM},
	{0x10d70, 0x10d85, VK_U_LL}, {0x10ec2, 0x10ec4, VK_U_LO},
	{0x11380, 0x11389, VK_U_LO}, {0x1138b, 0x1138b, VK_U_LO},
	{0x1138e, 0x1138e, VK_U_LO}, {0x11390, 0x113b5, VK_U_LO},
	{0x113b7, 0x113b7, VK_U_LO}, {0x113d1, 0x113d1, VK_U_LO},
	{0x113d3, 0x113d3, VK_U_LO}, {0x116d0, 0x116e3, VK_U_ND},
	{0x11bc0, 0x11be0, VK_U_LO}, {0x11bf0, 0x11bf9, VK_U_ND},
	{0x13460, 0x143fa, VK_U_LO}, {0x16100, 0x1611d, VK_U_LO},
	{0x16130, 0x16139, VK_U_ND}, {0x16d40, 0x16d42, VK_U_LM},
	{0x16d43, 0x16d6a, VK_U_LO}, {0x16d6b, 0x16d6c, VK_U_LM},
	{0x16d70, 0x16d79, VK_U_ND}, {0x18cff, 0x18cff, VK_U_LO},
	{0x1ccf0, 0x1ccf9, VK_U_ND}, {0x1e5d0, 0x1e5ed, VK_U_LO},
	{0x1e5f0, 0x1e5f0, VK_U_LO}, {0x1e5f1, 0x1e5fa, VK_U_ND},
	{0x2ebf0, 0x2ee5d, VK_U_LO},
};

static enum vk_ucat category_newer(uint32_t cp)
{
	size_t lo = 0, hi = sizeof newer / sizeof *newer;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (cp > newer[mid].last)
			lo = mid + 1;
		else if (cp < newer[mid].first)
			hi = mid;
		else
			return newer[mid].cat;
	}
	return VK_U_CN;
}

enum vk_ucat vk_u_category(uint32_t cp)
{
	if (cp > 0x10ffff) return VK_U_CN;
	enum vk_ucat cat = (enum vk_ucat)utf8proc_category((utf8proc_int32_t)cp);
	return cat == VK_U_CN ? category_newer(cp) : cat;
}

bool vk_u_is_letter(uint32_t cp)
{
	enum vk_ucat cat = vk_u_category(cp);
	return cat >= VK_U_LU && cat <= VK_U_LO;
}

bool vk_u_is_number(uint32_t cp)
{
	enum vk_ucat cat = vk_u_category(cp);
	return cat >= VK_U_ND && cat <= VK_U_NO;
}

bool vk_u_is_space(uint32_t cp)
{
	if (cp < 0x80) return cp == ' ' || (cp >= '\t' && cp <= '\r');
	if (cp == 0x85) return true; /* a control character with White_Space */
	enum vk_ucat cat = vk_u_category(cp);
	return cat >= VK_U_ZS && cat <= VK_U_ZP;
}

bool vk_u_is_punct(uint32_t cp)
{
	enum vk_ucat cat = vk_u_category(cp);
	return cat >= VK_U_PC && cat <= VK_U_PO;
}

uint32_t vk_u_lower(uint32_t cp)
{
	if (cp < 0x80) return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
	if (cp > 0x10ffff) return cp;
	return (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
}

/* Decomposed code points since the last starter, waiting to be put in canonical order. */
struct marks {
	struct mark {
		uint32_t cp;
		uint8_t ccc;
	} *v;
	size_t n, cap;
	struct mark few[32]; /* ordinary text never needs more */
};

static bool marks_add(struct marks *m, uint32_t cp, uint8_t ccc)
{
	if (m->n == m->cap) {
		size_t cap = m->cap * 2;
		struct mark *v = malloc(cap * sizeof *v);
		if (!v) return false;
		memcpy(v, m->v, m->n * sizeof *v);
		if (m->v != m->few) free(m->v);
		m->v = v;
		m->cap = cap;
	}
	m->v[m->n++] = (struct mark){cp, ccc};
	return true;
}

static void put_cp(struct vk_buf *out, uint32_t cp)
{
	char utf8[4];
	vk_buf_put(out, utf8, vk_utf8_put(utf8, cp));
}

/* Writes the marks by combining class, arrivals of one class in their order. */
static void marks_flush(struct marks *m, struct vk_buf *out)
{
	if (m->n <= sizeof m->few / sizeof *m->few) {
		for (size_t i = 1; i < m->n; i++) {
			struct mark x = m->v[i];
			size_t j = i;
			for (; j && m->v[j - 1].ccc > x.ccc; j--) m->v[j] = m->v[j - 1];
			m->v[j] = x;
		}
		for (size_t i = 0; i < m->n; i++) put_cp(out, m->v[i].cp);
	} else {
		/* 255 passes at most, over classes that occur: linear, and nobody means it. */
		bool used[256] = {false};
		for (size_t i = 0; i < m->n; i++) used[m->v[i].ccc] = true;
		for (int ccc = 0; ccc < 256; ccc++) {
			for (size_t i = 0; used[ccc] && i < m->n; i++) {
				if (m->v[i].ccc == ccc) put_cp(out, m->v[i].cp);
			}
		}
	}
	m->n = 0;
}

size_t vk_u_decompose(uint32_t cp, uint32_t out[VK_U_DECOMPOSED_MAX])
{
	utf8proc_int32_t parts[VK_U_DECOMPOSED_MAX];
	int last_boundclass = 0;
	utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, parts, VK_U_DECOMPOSED_MAX,
						     UTF8PROC_DECOMPOSE, &last_boundclass);
	out[0] = cp;
	if (n < 1 || n > VK_U_DECOMPOSED_MAX) return 1;
	for (utf8proc_ssize_t i = 0; i < n; i++) out[i] = (uint32_t)parts[i];
	return (size_t)n;
}

uint8_t vk_u_combining(uint32_t cp)
{
	return (uint8_t)utf8proc_get_property((utf8proc_int32_t)cp)->combining_class;
}

/* Decomposes one code point and files what comes out. */
static bool decompose(uint32_t cp, struct marks *m, struct vk_buf *out)
{
	uint32_t parts[VK_U_DECOMPOSED_MAX];
	size_t n = vk_u_decompose(cp, parts);
	for (size_t i = 0; i < n; i++) {
		uint8_t ccc = vk_u_combining(parts[i]);
		if (ccc) {
			if (!marks_add(m, parts[i], ccc)) return false;
			continue;
		}
		marks_flush(m, out);
		put_cp(out, parts[i]);
	}
	return true;
}

enum vk_status vk_u_nfd(struct vk_bytes utf8, struct vk_buf *out)
{
	if (vk_utf8_valid(utf8.p, utf8.n) != utf8.n) return VK_E_INVALID;
	struct marks m = {.cap = sizeof m.few / sizeof *m.few};
	m.v = m.few;
	bool ok = true;
	for (const char *p = utf8.p, *end = p + utf8.n; ok && p < end;) {
		uint32_t cp;
		if ((unsigned char)*p < 0x80 && m.n == 0) {
			vk_buf_putc(out, *p++);
			continue;
		}
		p = vk_utf8_next(p, end, &cp);
		ok = decompose(cp, &m, out);
	}
	if (ok) marks_flush(&m, out);
	if (m.v != m.few) free(m.v);
	if (!ok) return VK_E_NOMEM;
	if (!out->failed) return VK_OK;
	return out->n + 4 > out->max ? VK_E_TOO_LARGE : VK_E_NOMEM;
}
