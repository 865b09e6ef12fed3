/* The ring: `first` is the oldest batch sent, `under_way` how many are out. */
#include "server/cli_window.h"

#include <stdlib.h>

#include "base/clock.h"

#define BACKOFF_MS 500
#define BACKOFF_MAX_MS 30000
#define WAIT_MAX_MS 120000 /* longest Retry-After that is waited for */

static struct vk_window_call *at(const struct vk_window *w, size_t i)
{
	return (struct vk_window_call *)(void *)(w->ring + (w->first + i) % w->parallel * w->batch_size);
}

/* Sends it again after a while where that may help; false: it has failed. */
static bool retry(struct vk_window *w, struct vk_window_call *b)
{
	const struct vk_xfer *x = &b->call.x;
	bool lost = x->end != VK_XFER_OK;
	if (!vk_ask_again(&b->call) || b->tries >= w->retries || (lost && !w->started)) return false;
	uint64_t wait_ms = (uint64_t)BACKOFF_MS << (b->tries < 6 ? b->tries : 6);
	if (wait_ms > BACKOFF_MAX_MS) wait_ms = BACKOFF_MAX_MS;
	if (x->retry_after_ms > WAIT_MAX_MS) return false;
	if (x->retry_after_ms >= 0) wait_ms = (uint64_t)x->retry_after_ms;
	b->tries++;
	vk_ask_send(&b->call, vk_mono_ms() + wait_ms);
	return true;
}

static void drop_oldest(struct vk_window *w)
{
	vk_ask_free(&at(w, 0)->call);
	w->first = (w->first + 1) % w->parallel;
	w->under_way--;
}

static int finish_oldest(struct vk_window *w)
{
	struct vk_window_call *b = at(w, 0);
	int rc;
	do
		vk_ask_wait(&b->call);
	while (!vk_ask_ok(&b->call) && retry(w, b));
	if (vk_ask_ok(&b->call)) {
		w->started = true;
		rc = w->answered(w->arg, b);
	} else {
		rc = w->failed(w->arg, b);
	}
	drop_oldest(w);
	return rc;
}

static void drop_rest(struct vk_window *w)
{
	while (w->under_way) {
		struct vk_window_call *b = at(w, 0);
		vk_upstream_cancel(w->client->upstream, &b->call.x);
		vk_ask_wait(&b->call);
		drop_oldest(w);
	}
}

int vk_window_run(struct vk_window *w)
{
	int rc = 0, more = 1;
	w->ring = calloc(w->parallel, w->batch_size);
	if (!w->ring) return vk_cli_say(w->client->cli, VK_EXIT_FAILED, "out of memory");
	while (!rc && (more > 0 || w->under_way)) {
		while (more > 0 && w->under_way < w->parallel) {
			struct vk_window_call *b = at(w, w->under_way);
			b->tries = 0;
			more = w->fill(w->arg, b);
			if (more <= 0) break;
			vk_ask_send(&b->call, 0);
			w->under_way++;
		}
		if (w->under_way) rc = finish_oldest(w);
	}
	drop_rest(w);
	free(w->ring);
	w->ring = NULL;
	return rc ? rc : more < 0 ? VK_EXIT_FAILED : 0; /* what came before a bad line was answered */
}
