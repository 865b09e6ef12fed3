/*
 * A file that cannot be read (a bad sector, a file cut short) faults whoever touches its map: SIGBUS, which kills the process.
 * vk_guard_run() turns that into VK_E_IO for one caller and one environment; other collections serve on.
 *
 * fn is left in the middle, by a jump, so inside it:
 *  - no lock may be held while the map is read, and no thread waited for;
 *  - what it has allocated is lost (a leak, once per fault);
 *  - a view begun outside stays good and is ended outside, as always; one begun inside and not ended is ended for it.
 * The environment is `broken` from then on: reads go on (each may fault again), writes are refused.
 *
 * Memory of store/patch.h mends itself and needs no guard.
 *
 * Each thread that reads needs its own guard (a scan's workers, too); it costs some 20 ns. Guards nest, also over different
 * environments. A fault anywhere else, and one of the writer's thread, takes the action that it took before: it ends the
 * process. (The writer looks at the file's size before each transaction, so that a file cut short does not come to that.)
 */
#ifndef VK_STORE_GUARD_H
#define VK_STORE_GUARD_H

#include "store/kv.h"

/* fn(arg)'s status, or VK_E_IO when reading kv's map failed. */
enum vk_status vk_guard_run(struct vk_kv *kv, enum vk_status (*fn)(void *arg), void *arg);

/* The first guard does it; again for who has set another handler of SIGBUS since. Not while a guard is being left. */
void vk_guard_install(void);

#endif
