/* f(): SHA-256 of everything that names the vector seeds a SplitMix64 stream; 24 bits of each
 * draw are one component, so every component is exact in f32 and in short decimal text. */
#include "vector.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

uint64_t fake_splitmix(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static uint64_t seed_of(const char *space, const char *role, uint32_t dims, const void *input, size_t n)
{
	static EVP_MD_CTX *ctx; /* one thread; a new context a call costs more than the hash */
	static EVP_MD *sha;
	if (!ctx) {
		ctx = EVP_MD_CTX_new();
		sha = EVP_MD_fetch(NULL, "SHA256", NULL);
	}
	unsigned char digest[EVP_MAX_MD_SIZE];
	char number[16];
	int number_n = snprintf(number, sizeof number, "%u", dims) + 1;
	EVP_DigestInit_ex2(ctx, sha, NULL);
	EVP_DigestUpdate(ctx, "veckeep-fake", sizeof "veckeep-fake");
	EVP_DigestUpdate(ctx, space, strlen(space) + 1);
	EVP_DigestUpdate(ctx, role, strlen(role) + 1);
	EVP_DigestUpdate(ctx, number, (size_t)number_n);
	EVP_DigestUpdate(ctx, input, n);
	EVP_DigestFinal_ex(ctx, digest, NULL);
	uint64_t seed = 0;
	for (int i = 0; i < 8; i++)
		seed |= (uint64_t)digest[i] << (8 * i);
	return seed;
}

void fake_vector(float *row, const char *space, const char *role, uint32_t dims, const void *input,
	size_t input_n)
{
	uint64_t state = seed_of(space, role, dims, input, input_n);
	for (uint32_t i = 0; i < dims; i++)
		row[i] = (float)((int32_t)(fake_splitmix(&state) >> 40) - (1 << 23)) / (float)(1 << 23);
}

void fake_normalize(float *row, uint32_t dims)
{
	double sum = 0;
	for (uint32_t i = 0; i < dims; i++)
		sum += (double)row[i] * (double)row[i];
	float scale = sum > 0 ? (float)(1.0 / sqrt(sum)) : 0;
	for (uint32_t i = 0; i < dims; i++)
		row[i] *= scale;
}

static char *put_digits(char *to, uint32_t v)
{
	for (int i = 7; i >= 0; i--, v /= 10)
		to[i] = (char)('0' + v % 10);
	return to + 8;
}

/* k / 2^23 to 16 decimals: the error, 5e-17, is far below half an f32 step at every such value. */
static char *put_grid(char *to, int32_t k)
{
	if (k < 0)
		*to++ = '-';
	uint64_t m = (uint64_t)(k < 0 ? -(int64_t)k : k);
	*to++ = (char)('0' + (m >> 23));
	*to++ = '.';
	uint64_t high = (m & 0x7fffff) * 100000000u, low = (high & 0x7fffff) * 100000000u;
	to = put_digits(to, (uint32_t)(high >> 23));
	return put_digits(to, (uint32_t)(low >> 23));
}

static char *put_float(char *to, float v)
{
	float grid = v * (float)(1 << 23);
	if (grid >= -8388608.0f && grid <= 8388608.0f && (float)(int32_t)grid == grid
		&& !(v == 0 && signbit(v)))
		return put_grid(to, (int32_t)grid);
	if (isnan(v))
		return to + sprintf(to, "NaN");
	if (isinf(v))
		return to + sprintf(to, v > 0 ? "1e999" : "-1e999");
	return to + sprintf(to, "%.9g", (double)v);
}

void fake_vector_json(struct fake_buf *out, const float *row, uint32_t dims)
{
	char *first = fake_buf_room(out, (size_t)dims * 24 + 2), *to = first;
	*to++ = '[';
	for (uint32_t i = 0; i < dims; i++) {
		if (i)
			*to++ = ',';
		to = put_float(to, row[i]);
	}
	*to++ = ']';
	out->len += (size_t)(to - first);
}

void fake_vector_base64(struct fake_buf *out, const float *row, uint32_t dims)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *in = (const unsigned char *)row; /* x86-64 and arm64: little-endian */
	size_t n = (size_t)dims * 4, i = 0;
	char *first = fake_buf_room(out, n / 3 * 4 + 8), *to = first;
	*to++ = '"';
	for (; i + 2 < n; i += 3) {
		uint32_t v = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | in[i + 2];
		*to++ = digits[v >> 18];
		*to++ = digits[v >> 12 & 63];
		*to++ = digits[v >> 6 & 63];
		*to++ = digits[v & 63];
	}
	if (i < n) {
		uint32_t v = (uint32_t)in[i] << 16 | (i + 1 < n ? (uint32_t)in[i + 1] << 8 : 0);
		*to++ = digits[v >> 18];
		*to++ = digits[v >> 12 & 63];
		*to++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
		*to++ = '=';
	}
	*to++ = '"';
	out->len += (size_t)(to - first);
}
