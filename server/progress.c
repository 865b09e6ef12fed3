/* The line is rewritten in place; \033[K clears what a longer one left. */
#include "server/progress.h"

#include <string.h>
#include <unistd.h>

#include "server/cli.h"

#define BAR 24
#define EVERY_US 100000

void vk_progress_begin(struct vk_progress *p, FILE *to, bool quiet, const char *what, uint64_t now_us)
{
	*p = (struct vk_progress){.to = to, .what = what, .start_us = now_us};
	p->on = !quiet && isatty(fileno(to));
}

const char *vk_progress_line(char *dst, size_t cap, const char *what, uint64_t count, double part,
			     double whole, uint64_t elapsed_us)
{
	char counted[VK_CELL_MAX], rate[VK_CELL_MAX], bar[BAR + 1], eta[32] = "";
	double seconds = (double)elapsed_us / 1e6, share = whole > 0 ? part / whole : 0;
	if (share > 1) share = 1;
	vk_show_count(counted, count);
	vk_show_count(rate, seconds > 0 ? (uint64_t)((double)count / seconds) : 0);
	if (share > 0 && seconds >= 1) {
		unsigned long left = (unsigned long)(seconds * (1 - share) / share + 0.5);
		if (left < 360000) snprintf(eta, sizeof eta, "  ETA %lu:%02lu", left / 60, left % 60);
	}
	memset(bar, '.', BAR);
	memset(bar, '#', (size_t)(share * BAR));
	bar[BAR] = 0;
	if (whole > 0)
		snprintf(dst, cap, "%s [%s] %3d%%  %s  %s/s%s", what, bar, (int)(share * 100), counted, rate, eta);
	else
		snprintf(dst, cap, "%s  %s  %s/s", what, counted, rate);
	return dst;
}

void vk_progress_show(struct vk_progress *p, uint64_t count, double part, double whole, uint64_t now_us)
{
	char line[160];
	if (!p->on || (p->drawn_us && now_us - p->drawn_us < EVERY_US)) return;
	p->drawn_us = now_us;
	vk_progress_line(line, sizeof line, p->what, count, part, whole, now_us - p->start_us);
	fprintf(p->to, "\r%s\033[K", line);
	fflush(p->to);
}

void vk_progress_end(struct vk_progress *p)
{
	if (p->on && p->drawn_us) fputs("\r\033[K", p->to);
	p->on = false;
}
