/* CRC-32C (Castagnoli, reflected 0x82F63B78, as in RFC 3720 B.4), for every record on disk.
 * vk_crc32c(level, 0, "123456789", 9) == 0xE3069283. Feed the result back in to go on. */
#ifndef VK_SIMD_CRC32C_H
#define VK_SIMD_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#include "simd/cpu.h"

uint32_t vk_crc32c(enum vk_cpu_level level, uint32_t crc, const void *p, size_t n);

#endif
