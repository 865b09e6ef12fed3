/* Faults: a const table of kinds, each of which acts at one of three places, and the list of those
 * that are active. A fault fires by probability (seeded), a number of times, a text that the call
 * must hold, a least number of inputs; several may fire in one call. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

struct fake_fault {
	const struct fault_kind *kind;
	double p;
	long times;         /* left; -1: for ever */
	long after;         /* calls to let pass first */
	long fired;
	int status;
	long ms;
	size_t bytes, min_inputs;
	double value;
	bool has_value, clean;
	char *match, *body, *headers, *location, *dialect;
};

struct fault_kind {
	const char *mode;
	/* At most one is set. instead: writes the reply; true when it has. */
	bool (*instead)(struct fake *, struct fake_fault *, struct fake_call *, struct fake_reply *);
	void (*rows)(struct fake *, struct fake_fault *, struct fake_call *);
	void (*wire)(struct fake *, struct fake_fault *, struct fake_call *, struct fake_reply *);
};

/* ---- in place of the answer ---- */

static bool do_status(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	int status = x->status ? x->status : 500;
	fake_refuse(r, call->dialect, status, status == 429 ? "requests" : "server_error",
		status == 429 ? "rate_limit_exceeded" : NULL, "The fake was asked to fail.");
	if (x->body) {
		r->body.len = 0;
		fake_buf_str(&r->body, x->body);
	}
	return true;
}

static bool do_html200(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	(void)call;
	r->type = "text/html; charset=utf-8";
	fake_buf_str(&r->body, x->body ? x->body : "<!doctype html><html><body>Please log in</body></html>\n");
	return true;
}

static bool do_error200(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	fake_refuse(r, call->dialect, 200, "server_error", "server_error", "The fake failed inside a 200.");
	if (x->body) {
		r->body.len = 0;
		fake_buf_str(&r->body, x->body);
	}
	return true;
}

static bool do_poison(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	int status = x->status ? x->status : call->dialect == &fake_tei ? 422 : 400;
	fake_refuse(r, call->dialect, status, "invalid_request_error", NULL, "'$.input' is invalid: poisoned.");
	return true;
}

static bool do_redirect(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	(void)call;
	r->status = x->status ? x->status : 307;
	fake_buf_fmt(&r->headers, "location: %s\r\n", x->location ? x->location : "/v1/embeddings");
	return true;
}

/* ---- in the rows ---- */

static size_t pick(struct fake *f, size_t n)
{
	return (size_t)(fake_splitmix(&f->rng) % n);
}

/* Never the order that was asked for. Without an index on the wire an order cannot be told. */
static void do_shuffle(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)x;
	size_t n = call->item_count;
	if (n < 2 || call->dialect->positional)
		return;
	for (size_t i = n - 1; i; i--) { /* Sattolo: one cycle, no fixed point */
		size_t j = pick(f, i);
		struct fake_item t = call->items[i];
		call->items[i] = call->items[j];
		call->items[j] = t;
	}
}

static void do_drop(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)x;
	if (!call->item_count)
		return;
	size_t at = pick(f, call->item_count--);
	memmove(&call->items[at], &call->items[at + 1], (call->item_count - at) * sizeof *call->items);
}

/* One item comes twice and its neighbour not at all; where that cannot be told, once too often. */
static void do_duplicate(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)x;
	size_t n = call->item_count;
	if (!n)
		return;
	if (n < 2 || call->dialect->positional) {
		call->items[call->item_count++] = call->items[0];
		return;
	}
	size_t from = pick(f, n);
	call->items[(from + 1) % n] = call->items[from];
}

static void do_no_index(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)f;
	(void)x;
	for (size_t i = 0; i < call->item_count; i++)
		call->items[i].no_index = true;
}

static void do_bad_index(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	if (!call->item_count)
		return;
	struct fake_item *item = &call->items[pick(f, call->item_count)];
	item->index_raw = x->body;
	item->index = x->has_value ? (long)x->value : (long)call->item_count + 5;
}

static void do_wrong_count(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)f;
	(void)x;
	if (!call->item_count)
		return;
	call->items[call->item_count] = call->items[0];
	call->items[call->item_count].index = (long)call->item_count;
	call->item_count++;
}

/* -1 or +1 in all items; rows have room for one component more. */
static void do_wrong_dims(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)f;
	for (size_t i = 0; i < call->item_count; i++)
		call->items[i].dims += x->value < 0 ? (uint32_t)-1 : 1;
}

static void do_mixed_dims(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)x;
	if (call->item_count)
		call->items[pick(f, call->item_count)].dims--;
}

static void put_component(struct fake *f, struct fake_call *call, float v)
{
	if (call->item_count)
		call->items[pick(f, call->item_count)].row[pick(f, call->dims)] = v;
}

static void do_nan(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)x;
	put_component(f, call, NAN);
}

static void do_inf(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)x;
	put_component(f, call, INFINITY);
}

static void do_zero(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)x;
	if (call->item_count)
		memset(call->items[pick(f, call->item_count)].row, 0, call->dims * sizeof(float));
}

static void do_null(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)x;
	if (call->item_count)
		call->items[pick(f, call->item_count)].is_null = true;
}

static void do_base64_ignored(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	(void)f;
	(void)x;
	call->base64 = false;
}

/* Another model behind the same name: with `value` v, v parts of it are mixed in. */
static void do_drift(struct fake *f, struct fake_fault *x, struct fake_call *call)
{
	float *other = fake_arena_take(&f->arena, call->dims * sizeof *other);
	for (size_t i = 0; i < call->item_count; i++) {
		const struct fake_input *in = &call->inputs[i];
		float *row = call->items[i].row;
		fake_vector(other, "drifted", call->role, call->dims, in->bytes, in->n);
		for (uint32_t d = 0; d < call->dims; d++)
			row[d] = x->has_value ? row[d] + (float)x->value * other[d] : other[d];
	}
}

/* ---- on the wire ---- */

static void do_delay(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	(void)call;
	r->delay_ms += x->ms;
}

/* `clean`: the JSON is cut and the length agrees; else the connection breaks off. */
static void do_truncate(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	(void)call;
	size_t keep = x->bytes ? x->bytes : r->body.len / 2;
	if (keep >= r->body.len)
		return;
	if (x->clean)
		r->body.len = keep;
	else
		r->cut_at = keep ? keep : SIZE_MAX;
}

static void do_rst(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	(void)x;
	(void)call;
	r->rst = true;
}

static void do_hang(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	(void)call;
	if (x->ms) { /* silence, then the connection ends without an answer */
		r->delay_ms += x->ms;
		r->rst = true;
	} else {
		r->hang = true;
	}
}

static void do_slow_drip(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	(void)call;
	r->drip_bytes = x->bytes ? x->bytes : 16;
	r->drip_ms = x->ms ? x->ms : 10;
}

static void do_huge(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	(void)call;
	r->huge_bytes = x->bytes ? x->bytes : (size_t)256 << 20;
}

static void do_stall(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	(void)x;
	(void)call;
	r->stall_headers = true;
}

static void do_close_idle(struct fake *f, struct fake_fault *x, struct fake_call *call, struct fake_reply *r)
{
	(void)f;
	(void)x;
	(void)call;
	r->close_idle = true;
}

static const struct fault_kind kinds[] = {
	{"status", do_status, NULL, NULL},
	{"html200", do_html200, NULL, NULL},
	{"error200", do_error200, NULL, NULL},
	{"poison", do_poison, NULL, NULL},
	{"redirect", do_redirect, NULL, NULL},
	/* rows: contents first, order last */
	{"drift", NULL, do_drift, NULL},
	{"nan", NULL, do_nan, NULL},
	{"inf", NULL, do_inf, NULL},
	{"zero", NULL, do_zero, NULL},
	{"null_embedding", NULL, do_null, NULL},
	{"base64_ignored", NULL, do_base64_ignored, NULL},
	{"wrong_dims", NULL, do_wrong_dims, NULL},
	{"mixed_dims", NULL, do_mixed_dims, NULL},
	{"wrong_count", NULL, do_wrong_count, NULL},
	{"drop", NULL, do_drop, NULL},
	{"duplicate", NULL, do_duplicate, NULL},
	{"bad_index", NULL, do_bad_index, NULL},
	{"no_index", NULL, do_no_index, NULL},
	{"shuffle", NULL, do_shuffle, NULL},
	{"delay", NULL, NULL, do_delay},
	{"truncate_body", NULL, NULL, do_truncate},
	{"slow_drip", NULL, NULL, do_slow_drip},
	{"huge", NULL, NULL, do_huge},
	{"stall_headers", NULL, NULL, do_stall},
	{"close_idle", NULL, NULL, do_close_idle},
	{"hang", NULL, NULL, do_hang},
	{"rst", NULL, NULL, do_rst},
};

/* ---- which fire ---- */

static bool call_holds(const struct fake_call *call, const char *match)
{
	size_t n = strlen(match);
	for (size_t i = 0; i < call->count; i++)
		if (memmem(call->inputs[i].bytes, call->inputs[i].n, match, n))
			return true;
	return false;
}

static bool fires(struct fake *f, struct fake_fault *x, const struct fake_call *call)
{
	if (!x->times || call->count < x->min_inputs || (x->match && !call_holds(call, x->match)))
		return false;
	if (x->dialect && strcmp(x->dialect, call->dialect->name))
		return false;
	if (x->after > 0) {
		x->after--;
		return false;
	}
	if (x->p < 1 && (double)(fake_splitmix(&f->rng) >> 11) / 9007199254740992.0 >= x->p)
		return false;
	if (x->times > 0)
		x->times--;
	x->fired++;
	if (f->fired_count < FAKE_FAULTS_MAX)
		f->fired[f->fired_count++] = x->kind->mode;
	return true;
}

bool fake_faults_instead(struct fake *f, struct fake_call *call, struct fake_reply *reply)
{
	for (int i = 0; i < f->fault_count; i++) {
		struct fake_fault *x = f->faults[i];
		if (!x->kind->instead || !fires(f, x, call))
			continue;
		if (x->headers)
			fake_buf_str(&reply->headers, x->headers);
		reply->delay_ms += x->ms;
		if (x->kind->instead(f, x, call, reply))
			return true;
	}
	return false;
}

/* In the table's order, whatever order they were added in. */
void fake_faults_rows(struct fake *f, struct fake_call *call)
{
	for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
		for (int i = 0; i < f->fault_count; i++)
			if (f->faults[i]->kind == &kinds[k] && kinds[k].rows && fires(f, f->faults[i], call))
				kinds[k].rows(f, f->faults[i], call);
}

void fake_faults_wire(struct fake *f, struct fake_call *call, struct fake_reply *reply)
{
	for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
		for (int i = 0; i < f->fault_count; i++)
			if (f->faults[i]->kind == &kinds[k] && kinds[k].wire && fires(f, f->faults[i], call))
				kinds[k].wire(f, f->faults[i], call, reply);
}

/* ---- the list ---- */

static char *copy_member(const struct fake_json *spec, const char *key)
{
	const char *s = fake_json_str(spec, key);
	return s ? strdup(s) : NULL;
}

static char *copy_headers(const struct fake_json *headers)
{
	struct fake_buf lines = {0};
	if (!headers)
		return NULL;
	for (const struct fake_json *h = headers->child; h; h = h->next)
		if (h->type == FAKE_STRING)
			fake_buf_fmt(&lines, "%s: %s\r\n", h->key, h->str);
	fake_buf_add(&lines, "", 1);
	return lines.at;
}

const char *fake_fault_add(struct fake *f, const struct fake_json *spec)
{
	const char *mode = fake_json_str(spec, "mode");
	const struct fault_kind *kind = NULL;
	for (size_t k = 0; mode && k < sizeof kinds / sizeof *kinds; k++)
		if (!strcmp(kinds[k].mode, mode))
			kind = &kinds[k];
	if (!kind)
		return "unknown mode";
	if (f->fault_count == FAKE_FAULTS_MAX)
		return "too many faults";
	struct fake_fault *x = calloc(1, sizeof *x);
	if (!x)
		return "out of memory";
	*x = (struct fake_fault){
		.kind = kind,
		.p = fake_json_num(spec, "p", 1),
		.times = (long)fake_json_num(spec, "times", -1),
		.after = (long)fake_json_num(spec, "after", 0),
		.status = (int)fake_json_num(spec, "status", 0),
		.ms = (long)fake_json_num(spec, "ms", 0),
		.bytes = (size_t)fake_json_num(spec, "bytes", 0),
		.min_inputs = (size_t)fake_json_num(spec, "min_inputs", 0),
		.value = fake_json_num(spec, "value", 0),
		.has_value = fake_json_get(spec, "value") != NULL,
		.clean = fake_json_num(spec, "clean", 0) != 0,
		.match = copy_member(spec, "match"),
		.body = copy_member(spec, "body"),
		.location = copy_member(spec, "location"),
		.dialect = copy_member(spec, "dialect"),
		.headers = copy_headers(fake_json_get(spec, "headers")),
	};
	if (!strcmp(mode, "poison") && !x->match)
		x->match = strdup("poison");
	f->faults[f->fault_count++] = x;
	return NULL;
}

void fake_faults_clear(struct fake *f)
{
	for (int i = 0; i < f->fault_count; i++) {
		struct fake_fault *x = f->faults[i];
		free(x->match);
		free(x->body);
		free(x->headers);
		free(x->location);
		free(x->dialect);
		free(x);
	}
	f->fault_count = 0;
}

void fake_faults_json(struct fake *f, struct fake_buf *out)
{
	fake_buf_str(out, "[");
	for (int i = 0; i < f->fault_count; i++)
		fake_buf_fmt(out, "%s{\"mode\":\"%s\",\"fired\":%ld,\"times_left\":%ld,\"p\":%g}", i ? "," : "",
			f->faults[i]->kind->mode, f->faults[i]->fired, f->faults[i]->times, f->faults[i]->p);
	fake_buf_str(out, "]");
}
