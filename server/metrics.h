/*
 * Counters, gauges and histograms in Prometheus text form. Names and help are a const table in
 * metrics.c; labels are bounded (a route, a status class, a provider, a space), never a text, a
 * client's string or an id. A counter is one atomic per thread shard: adding is a few ns.
 */
#ifndef VK_SERVER_METRICS_H
#define VK_SERVER_METRICS_H

#include <stdint.h>

#include "base/bytes.h"

struct vk_metrics;
struct vk_series; /* one time series: a name with one set of label values; lives as long as the registry */

struct vk_metrics *vk_metrics_new(void);
void vk_metrics_free(struct vk_metrics *m);

/* The series of a family with the given label values (as many as the family's label names), made at
 * first use; past the family's cap everything goes to the series whose labels are all "other".
 * Look it up once where the label set is known beforehand; the look-up takes a lock. */
enum vk_metric_id {
	VK_M_HTTP_REQUESTS,  /* counter   veckeep_http_requests_total{route,method,code} */
	VK_M_HTTP_SECONDS,   /* histogram veckeep_http_request_duration_seconds{route} */
	VK_M_EMBED_INPUTS,   /* counter   veckeep_embed_inputs_total{space,result} hit|miss|coalesced|error */
	VK_M_EMBED_TOKENS,   /* counter   veckeep_embed_tokens_total{space,kind} logical|billed|saved */
	VK_M_PROVIDER_REQUESTS, /* counter veckeep_provider_requests_total{provider,code} */
	VK_M_PROVIDER_SECONDS,  /* histogram veckeep_provider_request_duration_seconds{provider} */
	VK_M_PROVIDER_RETRIES,  /* counter veckeep_provider_retries_total{provider} */
	VK_M_COUNT
};
struct vk_series *vk_metric(struct vk_metrics *m, enum vk_metric_id id, ...); /* const char * labels */
void vk_metric_add(struct vk_series *c, uint64_t n);          /* counters */
void vk_metric_observe_us(struct vk_series *h, uint64_t us);  /* histograms; buckets in metrics.c */
uint64_t vk_metric_value(const struct vk_series *c);

/* Appends every series; then the caller appends its gauges with vk_metrics_gauge. */
void vk_metrics_write(struct vk_metrics *m, struct vk_buf *out);
/* "# HELP", "# TYPE" and one sample; labels is "" or `a="b",c="d"` already escaped. help NULL: only the sample. */
void vk_metrics_gauge(struct vk_buf *out, const char *name, const char *help, const char *labels,
		      double value);
/* Escapes a label value into dst (cap bytes, NUL-terminated). */
void vk_metrics_escape(char *dst, size_t cap, const char *value);

#endif
