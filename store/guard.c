/*
 * The handler is the process's, installed with the first guard; where to jump is the thread's. It touches nothing but the
 * thread's stack of guards and the bounds of a map, which only move while no reader is in.
 *
 * Not an anonymous page mapped over the hole: LMDB would read zeros as a page and go on with nonsense.
 */
#include "store/guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include "base/log.h"
#include "store/kv_internal.h"
#include "store/patch.h"

/* One per thread; read in the handler, so it must not be allocated lazily. */
static __thread struct vk_guard *innermost __attribute__((tls_model("initial-exec")));

/* The thread sanitizer puts a handler of its own around ours that blocks every signal: there the jump must restore the mask. */
#ifdef __SANITIZE_THREAD__
#define SAVE_MASK 1
#else
#define SAVE_MASK 0
#endif

static struct sigaction before; /* whose fault it is when it is not ours */

static bool is_in_map(const struct vk_env *env, uintptr_t at)
{
	uintptr_t map = atomic_load_explicit(&env->map_addr, memory_order_relaxed);
	return map && at >= map && at - map < env->map_bytes;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	for (struct vk_guard *g = innermost; g; g = g->outer) {
		if (!is_in_map(g->kv->env, (uintptr_t)info->si_addr)) continue;
		innermost = g;
		siglongjmp(g->jump, 1);
	}
	if (vk_patch_fault((uintptr_t)info->si_addr)) return; /* the access is made again */
	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(sig, info, context);
	} else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
		before.sa_handler(sig);
	} else { /* returning repeats the access, which then does what it always did */
		struct sigaction plain = {.sa_handler = SIG_DFL};
		sigaction(sig, &plain, NULL);
	}
}

void vk_guard_install(void)
{
	/* NODEFER: the jump leaves the handler for good and keeps no signal blocked, so that sigsetjmp need not save the mask. */
	struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK}, was;
	sigemptyset(&ours.sa_mask);
	if (sigaction(SIGBUS, NULL, &was) == 0 && (was.sa_flags & SA_SIGINFO) && was.sa_sigaction == on_fault) return;
	before = was;
	if (sigaction(SIGBUS, &ours, NULL) != 0) vk_log(VK_LOG_WARN, "no handler for SIGBUS: a bad disk ends the process");
}

/* Views */

struct vk_guard *vk_guard_of(const struct vk_kv *kv)
{
	struct vk_guard *g = innermost;
	while (g && g->kv != kv) g = g->outer;
	return g;
}

void vk_guard_view_add(struct vk_guard *g, struct vk_kv_txn *t)
{
	t->guard = g;
	t->guard_next = g->views;
	g->views = t;
}

void vk_guard_view_remove(struct vk_kv_txn *t)
{
	struct vk_kv_txn **at = &t->guard->views;
	while (*at != t) at = &(*at)->guard_next;
	*at = t->guard_next;
	t->guard = NULL;
}

/* Those that outlive the guard are of the guard around it, or their owner's again. Call it with g off the stack. */
static void let_views_go(struct vk_guard *g)
{
	struct vk_guard *outer = g->views ? vk_guard_of(g->kv) : NULL;
	while (g->views) {
		struct vk_kv_txn *t = g->views;
		vk_guard_view_remove(t);
		if (outer) vk_guard_view_add(outer, t);
	}
}

static void end_views(struct vk_guard *g)
{
	while (g->views) vk_kv_view_end(g->views);
	if (g->entering) vk_env_read_abandon(g->kv->env);
}

/* Running */

static enum vk_status faulted(struct vk_guard *g)
{
	struct vk_kv *kv = g->kv;
	end_views(g);
	if (!atomic_exchange(&kv->broken, true))
		vk_log(VK_LOG_ERROR, "%s: the file cannot be read, no writes until it is opened anew", kv->env->path);
	return VK_E_IO;
}

enum vk_status vk_guard_run(struct vk_kv *kv, enum vk_status (*fn)(void *arg), void *arg)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct vk_guard g = {.kv = kv, .outer = innermost};
	pthread_once(&once, vk_guard_install);
	if (sigsetjmp(g.jump, SAVE_MASK)) { /* innermost is g: the handler saw to it */
		struct vk_guard *self = innermost;
		innermost = self->outer;
		return faulted(self);
	}
	innermost = &g;
	enum vk_status st = fn(arg);
	innermost = g.outer;
	let_views_go(&g);
	return st;
}
