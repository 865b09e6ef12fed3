/*
 * Time. Only the edges read a clock (threads' loops, the HTTP door); everything below
 * takes `now` as an argument, so tests own it. Monotonic time for deadlines and ages
 * inside the process, wall time (Unix ms) for what is stored or shown.
 */
#ifndef VK_BASE_CLOCK_H
#define VK_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t vk_mono_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static inline uint64_t vk_mono_ms(void)
{
	return vk_mono_us() / 1000u;
}

static inline int64_t vk_wall_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

#endif
