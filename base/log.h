/*
 * The log: one JSON object a line on standard error, written with one write(2) so that
 * lines of several threads do not mix. No texts, vectors, secrets or upstream bodies,
 * ever: log ids, counts, names and codes.
 *
 * The level is the one process-wide variable of the house (a logger that must be passed
 * to every leaf is not called from where it matters). Any thread; nothing allocates.
 * A message that repeats (same format string) is written at most 10 times a 10 s window
 * a format; what was held back is counted in the next one written ("suppressed": n).
 */
#ifndef VK_BASE_LOG_H
#define VK_BASE_LOG_H

enum vk_log_level { VK_LOG_DEBUG, VK_LOG_INFO, VK_LOG_WARN, VK_LOG_ERROR, VK_LOG_OFF };

void vk_log_set_level(enum vk_log_level level);
/* "debug", "info", "warn", "error", "off"; -1 for anything else. */
int vk_log_level_of(const char *name);

void vk_log(enum vk_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
