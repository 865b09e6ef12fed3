/* The layout: name 0+100, mode 100+8, uid 108+8, gid 116+8, size 124+12, mtime 136+12, checksum 148+8, type 156, magic 257+6,
 * version 263+2; numbers are octal text. The checksum is the sum of all bytes, its own field counted as blanks. */
#include "store/tar.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SIZE_OCTAL_MAX 077777777777ull

static uint32_t checksum(const uint8_t b[VK_TAR_BLOCK])
{
	uint32_t sum = 0;
	for (unsigned i = 0; i < VK_TAR_BLOCK; i++) sum += i >= 148 && i < 156 ? ' ' : b[i];
	return sum;
}

static void put_octal(uint8_t *dst, size_t width, uint64_t v)
{
	dst[--width] = 0;
	while (width-- > 0) {
		dst[width] = (uint8_t)('0' + (v & 7));
		v >>= 3;
	}
}

static void put_size(uint8_t *dst, uint64_t bytes)
{
	if (bytes <= SIZE_OCTAL_MAX) {
		put_octal(dst, 12, bytes);
		return;
	}
	memset(dst, 0, 12);
	dst[0] = 0x80;
	for (int i = 11; i > 3; i--, bytes >>= 8) dst[i] = (uint8_t)bytes;
}

void vk_tar_header(uint8_t b[VK_TAR_BLOCK], const char *name, uint64_t bytes, int64_t mtime_s)
{
	memset(b, 0, VK_TAR_BLOCK);
	snprintf((char *)b, 100, "%s", name);
	put_octal(b + 100, 8, 0600);
	put_octal(b + 108, 8, 0);
	put_octal(b + 116, 8, 0);
	put_size(b + 124, bytes);
	put_octal(b + 136, 12, mtime_s > 0 ? (uint64_t)mtime_s : 0);
	b[156] = '0';
	memcpy(b + 257, "ustar", 6);
	memcpy(b + 263, "00", 2);
	put_octal(b + 148, 7, checksum(b));
	b[155] = ' ';
}

static bool get_octal(const uint8_t *p, size_t width, uint64_t *v)
{
	size_t i = 0, digits = 0;
	*v = 0;
	while (i < width && p[i] == ' ') i++;
	for (; i < width && p[i] >= '0' && p[i] <= '7'; i++, digits++) *v = *v << 3 | (uint64_t)(p[i] - '0');
	return digits > 0 && (i == width || p[i] == 0 || p[i] == ' ');
}

static bool get_size(const uint8_t *p, uint64_t *v)
{
	if (p[0] != 0x80) return get_octal(p, 12, v);
	*v = 0;
	for (int i = 1; i < 12; i++) {
		if (i < 4 && p[i]) return false;
		*v = *v << 8 | p[i];
	}
	return true;
}

static bool plain_name(const char *name)
{
	return name[0] && !strchr(name, '/') && !strchr(name, '\\') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool read_block(int fd, uint64_t at, uint8_t b[VK_TAR_BLOCK])
{
	size_t n = 0;
	while (n < VK_TAR_BLOCK) {
		ssize_t got = pread(fd, b + n, VK_TAR_BLOCK - n, (off_t)(at + n));
		if (got <= 0) return false;
		n += (size_t)got;
	}
	return true;
}

static bool is_empty(const uint8_t b[VK_TAR_BLOCK])
{
	for (unsigned i = 0; i < VK_TAR_BLOCK; i++)
		if (b[i]) return false;
	return true;
}

enum vk_status vk_tar_next(int fd, uint64_t file_bytes, uint64_t *at, struct vk_tar_member *m, struct vk_error *err)
{
	uint8_t b[VK_TAR_BLOCK];
	uint64_t sum, bytes;
	if (!read_block(fd, *at, b)) return vk_fail(err, VK_E_CORRUPT, "the archive is cut short");
	if (is_empty(b)) return VK_E_END;
	if (!get_octal(b + 148, 8, &sum) || sum != checksum(b) || memcmp(b + 257, "ustar", 5) != 0)
		return vk_fail(err, VK_E_CORRUPT, "it is no tar archive, or damaged at byte %llu", (unsigned long long)*at);
	memcpy(m->name, b, 100);
	m->name[100] = 0;
	if ((b[156] != '0' && b[156] != 0) || b[345] || !plain_name(m->name))
		return vk_fail(err, VK_E_CORRUPT, "the archive holds something else than plain files");
	m->at = *at + VK_TAR_BLOCK;
	if (!get_size(b + 124, &bytes) || bytes > file_bytes || m->at > file_bytes - bytes)
		return vk_fail(err, VK_E_CORRUPT, "the archive is cut short");
	m->bytes = bytes;
	*at = m->at + (bytes + VK_TAR_BLOCK - 1) / VK_TAR_BLOCK * VK_TAR_BLOCK;
	return VK_OK;
}
