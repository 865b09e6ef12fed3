/*
 * A progress line on standard error, drawn only on a terminal and at most ten times a second:
 *   embedding [#########...........]  45%  4,500  1,234/s  ETA 0:04
 * Time comes in as an argument (monotonic us). One thread.
 */
#ifndef VK_SERVER_PROGRESS_H
#define VK_SERVER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct vk_progress {
	FILE *to;
	bool on;
	const char *what;
	uint64_t start_us, drawn_us;
};

/* quiet: never draws. */
void vk_progress_begin(struct vk_progress *p, FILE *to, bool quiet, const char *what, uint64_t now_us);
/* count: what is counted for people; part of whole: how far (whole 0: not known). */
void vk_progress_show(struct vk_progress *p, uint64_t count, double part, double whole, uint64_t now_us);
/* Takes the line away. */
void vk_progress_end(struct vk_progress *p);

/* The line's text, as drawn (for tests, too). Returns dst. */
const char *vk_progress_line(char *dst, size_t cap, const char *what, uint64_t count, double part,
			     double whole, uint64_t elapsed_us);

#endif
