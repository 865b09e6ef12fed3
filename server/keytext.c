/* A key's text: vkeep_<id 12>_<secret 43><crc 6>, base62. And the words for scopes, and loopback. */
#include <arpa/inet.h>
#include <stdio.h>
#include <strings.h>

#include "server/keys_internal.h"
#include "simd/crc32c.h"

static const char base62[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#define PREFIX_LEN (sizeof VK_KEY_PREFIX - 1)
#define CRC_AT (PREFIX_LEN + VK_KEY_ID_LEN + 1 + VK_KEY_SECRET_LEN)
#define TEXT_LEN (CRC_AT + VK_KEY_CRC_LEN)
_Static_assert(TEXT_LEN < VK_KEY_TEXT_MAX, "a key's text fits its buffer");

/* Random characters without bias: bytes from 248 up would favour the first eight. */
static void random_base62(char *dst, size_t n)
{
	for (size_t i = 0; i < n;) {
		uint8_t bytes[64];
		vk_random(bytes, sizeof bytes);
		for (size_t j = 0; j < sizeof bytes && i < n; j++)
			if (bytes[j] < 248) dst[i++] = base62[bytes[j] % 62];
		vk_wipe(bytes, sizeof bytes);
	}
}

static void print_crc(char dst[VK_KEY_CRC_LEN], const char *text)
{
	uint32_t crc = vk_crc32c(VK_CPU_SCALAR, 0, text, CRC_AT);
	for (int i = VK_KEY_CRC_LEN - 1; i >= 0; i--) {
		dst[i] = base62[crc % 62];
		crc /= 62;
	}
}

void vk_keytext_make(char text[VK_KEY_TEXT_MAX], char id[64])
{
	random_base62(id, VK_KEY_ID_LEN);
	id[VK_KEY_ID_LEN] = 0;
	int n = snprintf(text, VK_KEY_TEXT_MAX, VK_KEY_PREFIX "%s_", id);
	random_base62(text + n, VK_KEY_SECRET_LEN);
	print_crc(text + CRC_AT, text);
	text[TEXT_LEN] = 0;
}

static bool is_base62(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!s[i] || !strchr(base62, s[i])) return false;
	return true;
}

enum vk_key_form vk_key_form_of(struct vk_bytes t)
{
	if (t.n < PREFIX_LEN || memcmp(t.p, VK_KEY_PREFIX, PREFIX_LEN)) return VK_KEY_FOREIGN;
	if (t.n != TEXT_LEN) return VK_KEY_DAMAGED;
	const char *id = t.p + PREFIX_LEN, *secret = id + VK_KEY_ID_LEN + 1;
	if (!is_base62(id, VK_KEY_ID_LEN) || id[VK_KEY_ID_LEN] != '_') return VK_KEY_DAMAGED;
	if (!is_base62(secret, VK_KEY_SECRET_LEN + VK_KEY_CRC_LEN)) return VK_KEY_DAMAGED;
	char crc[VK_KEY_CRC_LEN];
	print_crc(crc, t.p);
	return memcmp(crc, t.p + CRC_AT, sizeof crc) ? VK_KEY_DAMAGED : VK_KEY_GOOD;
}

/* ---- scopes ---- */

static const struct {
	const char *word;
	uint32_t bit;
} scope_words[] = {{"read", VK_SCOPE_READ},
		   {"write", VK_SCOPE_WRITE},
		   {"embed", VK_SCOPE_EMBED},
		   {"admin", VK_SCOPE_ADMIN},
		   {"metrics", VK_SCOPE_METRICS}};
#define SCOPE_WORDS (sizeof scope_words / sizeof *scope_words)

static uint32_t scope_of(struct vk_bytes word)
{
	for (size_t i = 0; i < SCOPE_WORDS; i++)
		if (vk_bytes_is(word, scope_words[i].word)) return scope_words[i].bit;
	return 0;
}

bool vk_scopes_parse(struct vk_bytes list, uint32_t *scopes)
{
	*scopes = 0;
	for (size_t at = 0; at <= list.n;) {
		const char *comma = at < list.n ? memchr(list.p + at, ',', list.n - at) : NULL;
		size_t end = comma ? (size_t)(comma - list.p) : list.n;
		struct vk_bytes word = {list.p + at, end - at};
		while (word.n && word.p[0] == ' ') word.p++, word.n--;
		while (word.n && word.p[word.n - 1] == ' ') word.n--;
		uint32_t bit = scope_of(word);
		if (!bit) return false;
		*scopes |= bit;
		at = end + 1;
	}
	return true;
}

void vk_scopes_print(char *dst, size_t cap, uint32_t scopes)
{
	size_t n = 0;
	if (cap) dst[0] = 0;
	for (size_t i = 0; i < SCOPE_WORDS; i++) {
		if (!(scopes & scope_words[i].bit) || n >= cap) continue;
		int more = snprintf(dst + n, cap - n, "%s%s", n ? "," : "", scope_words[i].word);
		n += (size_t)more;
	}
}

/* ---- the safe bind rule ---- */

bool vk_listen_is_loopback(const char *listen)
{
	const char *colon = strrchr(listen, ':');
	size_t n = colon ? (size_t)(colon - listen) : strlen(listen);
	char host[64];
	if (n >= 2 && listen[0] == '[' && listen[n - 1] == ']') listen++, n -= 2;
	if (n >= sizeof host) return false;
	memcpy(host, listen, n);
	host[n] = 0;
	struct in_addr v4;
	struct in6_addr v6;
	if (inet_pton(AF_INET, host, &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, host, &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
	return strcasecmp(host, "localhost") == 0;
}
