/* Tables: cells gather in one buffer, widths are known at the end, then all is printed. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "server/cli.h"

#define TABLE_BYTES_MAX ((size_t)64 << 20)
#define COLUMNS_MAX 16

struct vk_table {
	const char *const *heads;
	size_t columns, cells;
	size_t width[COLUMNS_MAX]; /* in characters */
	struct vk_buf text;        /* cells, each ended by a NUL */
};

/* Code points, which is what a terminal's column nearly is. */
static size_t characters(const char *s)
{
	size_t n = 0;
	for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static const char *head_of(const struct vk_table *t, size_t column)
{
	const char *h = t->heads[column];
	return *h == '>' ? h + 1 : h;
}

struct vk_table *vk_table_new(const char *const *heads)
{
	struct vk_table *t = calloc(1, sizeof *t);
	if (!t) return NULL;
	t->heads = heads;
	vk_buf_init(&t->text, TABLE_BYTES_MAX);
	while (t->columns < COLUMNS_MAX && heads[t->columns]) {
		t->width[t->columns] = characters(head_of(t, t->columns));
		t->columns++;
	}
	return t;
}

/* What a terminal would obey does not belong in a table: names come from elsewhere. */
static void disarm(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
}

void vk_table_cell(struct vk_table *t, const char *fmt, ...)
{
	char cell[1024];
	va_list ap;
	if (!t) return;
	va_start(ap, fmt);
	vsnprintf(cell, sizeof cell, fmt, ap);
	va_end(ap);
	disarm(cell);
	size_t column = t->cells++ % t->columns, n = characters(cell);
	if (n > t->width[column]) t->width[column] = n;
	vk_buf_put(&t->text, cell, strlen(cell) + 1);
}

static void print_cell(const struct vk_table *t, size_t column, const char *s)
{
	size_t pad = t->width[column] - characters(s);
	bool right = t->heads[column][0] == '>', last = column + 1 == t->columns;
	if (right) printf("%*s", (int)pad, "");
	fputs(s, stdout);
	if (!right && !last) printf("%*s", (int)pad, "");
	fputs(last ? "\n" : "  ", stdout);
}

void vk_table_end(struct vk_table *t)
{
	if (!t) return;
	for (size_t c = 0; c < t->columns; c++) print_cell(t, c, head_of(t, c));
	const char *cell = t->text.p;
	for (size_t i = 0; i < t->cells && !t->text.failed; i++) {
		print_cell(t, i % t->columns, cell);
		cell += strlen(cell) + 1;
	}
	vk_buf_free(&t->text);
	free(t);
}

const char *vk_show_bytes(char dst[VK_CELL_MAX], uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double v = (double)bytes;
	size_t u = 0;
	for (; v >= 1024 && u + 1 < sizeof units / sizeof *units; u++) v /= 1024;
	snprintf(dst, VK_CELL_MAX, u ? "%.1f %s" : "%.0f %s", v, units[u]);
	return dst;
}

const char *vk_show_count(char dst[VK_CELL_MAX], uint64_t n)
{
	char plain[24];
	int digits = snprintf(plain, sizeof plain, "%llu", (unsigned long long)n), at = 0;
	for (int i = 0; i < digits; i++) {
		if (i && (digits - i) % 3 == 0) dst[at++] = ',';
		dst[at++] = plain[i];
	}
	dst[at] = 0;
	return dst;
}

const char *vk_show_time(char dst[VK_CELL_MAX], int64_t unix_ms)
{
	time_t t = (time_t)(unix_ms / 1000);
	struct tm tm;
	if (unix_ms <= 0 || !gmtime_r(&t, &tm)) snprintf(dst, VK_CELL_MAX, "-");
	else strftime(dst, VK_CELL_MAX, "%Y-%m-%d %H:%M:%SZ", &tm);
	return dst;
}
