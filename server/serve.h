/* veckeep serve. */
#ifndef VK_SERVER_SERVE_H
#define VK_SERVER_SERVE_H

#include "server/app.h"

/* Serves until SIGTERM or SIGINT. The exit code: 0 good, 1 failed, 2 wrong config, 75 the data
 * directory is in use. */
int vk_serve_run(const struct vk_app_opts *opts);

#endif
