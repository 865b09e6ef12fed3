/* JSON log lines with a cap on repeats. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define LINE_MAX_BYTES 2048
#define WINDOW_MS 10000
#define WINDOW_LINES 10
#define FORMATS 64 /* remembered format strings; a newcomer takes the oldest one's place */

static _Atomic int level_now = VK_LOG_INFO;

static struct {
	pthread_mutex_t lock;
	struct {
		const char *fmt;
		uint64_t since_ms;
		unsigned lines, held;
	} seen[FORMATS];
} repeats = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const char *const names[] = {"debug", "info", "warn", "error", "off"};

void vk_log_set_level(enum vk_log_level level)
{
	atomic_store(&level_now, (int)level);
}

int vk_log_level_of(const char *name)
{
	for (int i = 0; i <= VK_LOG_OFF; i++)
		if (strcmp(names[i], name) == 0) return i;
	return -1;
}

/* True when the line may be written; *held says how many like it were not. */
static int admit(const char *fmt, uint64_t now_ms, unsigned *held)
{
	int ok = 1, slot = 0;
	*held = 0;
	pthread_mutex_lock(&repeats.lock);
	for (int i = 0; i < FORMATS; i++) {
		if (repeats.seen[i].fmt == fmt) {
			slot = i;
			break;
		}
		if (repeats.seen[i].since_ms < repeats.seen[slot].since_ms) slot = i;
	}
	if (repeats.seen[slot].fmt != fmt || now_ms - repeats.seen[slot].since_ms > WINDOW_MS) {
		*held = repeats.seen[slot].fmt == fmt ? repeats.seen[slot].held : 0;
		repeats.seen[slot].fmt = fmt;
		repeats.seen[slot].since_ms = now_ms;
		repeats.seen[slot].lines = 1;
		repeats.seen[slot].held = 0;
	} else if (repeats.seen[slot].lines++ >= WINDOW_LINES) {
		repeats.seen[slot].held++;
		ok = 0;
	}
	pthread_mutex_unlock(&repeats.lock);
	return ok;
}

static size_t escape(char *dst, size_t cap, const char *src)
{
	size_t n = 0;
	for (; *src && n + 7 < cap; src++) {
		unsigned char c = (unsigned char)*src;
		if (c == '"' || c == '\\') {
			dst[n++] = '\\';
			dst[n++] = (char)c;
		} else if (c < 0x20) {
			n += (size_t)snprintf(dst + n, 7, "\\u%04x", c);
		} else {
			dst[n++] = (char)c;
		}
	}
	dst[n] = 0;
	return n;
}

void vk_log(enum vk_log_level level, const char *fmt, ...)
{
	if ((int)level < atomic_load_explicit(&level_now, memory_order_relaxed)) return;
	unsigned held;
	if (!admit(fmt, vk_mono_ms(), &held)) return;

	char text[1024], safe[1536], line[LINE_MAX_BYTES];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	escape(safe, sizeof safe, text);

	int64_t wall = vk_wall_ms();
	time_t s = (time_t)(wall / 1000);
	struct tm tm;
	gmtime_r(&s, &tm);
	char ts[32];
	strftime(ts, sizeof ts, "%Y-%m-%dT%H:%M:%S", &tm);
	int n = snprintf(line, sizeof line, "{\"ts\":\"%s.%03dZ\",\"level\":\"%s\",\"msg\":\"%s\"", ts,
			 (int)(wall % 1000), names[level], safe);
	if (held) n += snprintf(line + n, sizeof line - (size_t)n, ",\"suppressed\":%u", held);
	n += snprintf(line + n, sizeof line - (size_t)n, "}\n");
	if (write(STDERR_FILENO, line, (size_t)n) < 0) return; /* nobody to tell */
}
