/*
 * Several requests under way at once, answered in the order in which they were made: a ring, whose oldest call is waited for
 * first. What the server puts off (429, 503, a lost connection once something was answered) is sent again after a pause.
 *
 * A batch is the caller's own struct that begins with struct vk_window_call. One thread.
 */
#ifndef VK_SERVER_CLI_WINDOW_H
#define VK_SERVER_CLI_WINDOW_H

#include "server/cli_client.h"

struct vk_window_call {
	struct vk_ask call;
	unsigned tries;
};

struct vk_window {
	struct vk_client *client;
	uint64_t parallel, retries;
	size_t batch_size; /* sizeof of the caller's batch */
	/* Fills a batch (its call made by vk_ask_init): 1, or 0 at the input's end, or -1: said what is wrong; then nothing is held. */
	int (*fill)(void *arg, void *batch);
	/* The oldest batch was answered with a 2xx; the exit code, 0 to go on. The call is freed afterwards. */
	int (*answered)(void *arg, void *batch);
	/* It was not, for good: says so and gives the exit code. */
	int (*failed)(void *arg, void *batch);
	void *arg;
	/* the window's own */
	char *ring;
	size_t first, under_way;
	bool started; /* a batch was answered: from then on a lost server is waited for */
};

/* Runs until the input ends or something fails: 0, or the exit code (VK_EXIT_FAILED for fill's -1, after what came before was
 * answered). */
int vk_window_run(struct vk_window *w);

#endif
