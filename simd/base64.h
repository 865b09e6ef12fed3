/*
 * Base64 (RFC 4648 section 4, padded) at memory speed: a 1536-d row is 6144 bytes in and
 * 8192 out. Twins: scalar, AVX2, AVX-512 VBMI, same bytes at every level.
 */
#ifndef VK_SIMD_BASE64_H
#define VK_SIMD_BASE64_H

#include <stddef.h>
#include <stdint.h>

#include "simd/cpu.h"

#define VK_BASE64_LEN(n) (((n) + 2) / 3 * 4)

/* Writes exactly VK_BASE64_LEN(n) bytes, no NUL; returns that. */
size_t vk_base64_encode(enum vk_cpu_level level, char *dst, const void *src, size_t n);

/* Strict: alphabet, padding, no white space, zero bits in the last quantum's rest. dst has
 * room for n/4*3 bytes. Returns the length, or (size_t)-1. */
size_t vk_base64_decode(enum vk_cpu_level level, void *dst, const char *src, size_t n);

#endif
