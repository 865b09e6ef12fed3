/*
 * What the room asks of the Unicode tables, and the only door to utf8proc. Tokenizers are
 * defined by properties (\p{L}, \p{N}, \s, general category, NFD, lower case); everything
 * they need is here, by code point, without locale.
 *
 * The tables are utf8proc's (2.8: Unicode 15.0) plus the letters and numbers of Unicode
 * 15.1 and 16.0, so that a distribution's older library still cuts text as the published
 * tokenizers do.
 *
 * Threads: pure functions, any thread. Code points are scalar values (valid UTF-8 decodes to
 * nothing else); anything past U+10FFFF has category Cn.
 */
#ifndef VK_EMBED_UNICODE_H
#define VK_EMBED_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

/* General category, Unicode 4.5. The order keeps the groups together: use the tests below. */
enum vk_ucat {
	VK_U_CN, /* not assigned */
	VK_U_LU,
	VK_U_LL,
	VK_U_LT,
	VK_U_LM,
	VK_U_LO,
	VK_U_MN, /* what strip-accents takes out after NFD */
	VK_U_MC,
	VK_U_ME,
	VK_U_ND,
	VK_U_NL,
	VK_U_NO,
	VK_U_PC,
	VK_U_PD,
	VK_U_PS,
	VK_U_PE,
	VK_U_PI,
	VK_U_PF,
	VK_U_PO,
	VK_U_SM,
	VK_U_SC,
	VK_U_SK,
	VK_U_SO,
	VK_U_ZS,
	VK_U_ZL,
	VK_U_ZP,
	VK_U_CC,
	VK_U_CF,
	VK_U_CS,
	VK_U_CO
};

enum vk_ucat vk_u_category(uint32_t cp);

bool vk_u_is_letter(uint32_t cp); /* \p{L} */
bool vk_u_is_number(uint32_t cp); /* \p{N}: Nd, Nl and No */
bool vk_u_is_space(uint32_t cp);  /* \s: the White_Space property, so U+0085 and U+00A0 too */
bool vk_u_is_punct(uint32_t cp);  /* \p{P} */

/* Simple lower case: one code point to one. U+0130 gives "i" (after NFD nothing is lost). */
uint32_t vk_u_lower(uint32_t cp);

/* The whole canonical decomposition of one code point, in its own order: how many (1 at least;
 * what has none is itself), and the combining class that marks are put in order by (0: a starter). */
#define VK_U_DECOMPOSED_MAX 8 /* none has more than 4 */
size_t vk_u_decompose(uint32_t cp, uint32_t out[VK_U_DECOMPOSED_MAX]);
uint8_t vk_u_combining(uint32_t cp);

/* Appends the canonical decomposition (NFD, combining marks in canonical order) of valid
 * UTF-8. Linear in the text also where a stranger sends nothing but combining marks.
 * VK_E_INVALID: not UTF-8; VK_E_TOO_LARGE: `out` met its maximum; VK_E_NOMEM. */
enum vk_status vk_u_nfd(struct vk_bytes utf8, struct vk_buf *out);

#endif
