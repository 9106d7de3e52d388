/*
 * lock.h -- the lock word of a node.
 *
 * Word: 0 free; RX_OBSOLETE: the node was replaced, for ever; else uid << 1 of its
 * holder.  A holder that died is reaped by whoever meets it (gc/uid.h); a word whose
 * uid is no longer in its slot belongs to nobody and is taken over as if free.
 *
 * Order (R1): the first lock of an operation may be waited for -- after everything
 * was let go -- the others, parent before child, are tried once.  Nobody waits, calls
 * the system or allocates while holding a node.
 *
 * R3: the node is named in arena->locks[] BEFORE its word is taken, so that a reaper
 * finds every word that its victim may hold.
 */
#ifndef ROWEX_LOCK_H
#define ROWEX_LOCK_H

#include "node.h"

/*
 * RX_OK: held.  RX_I_RESTART: held by t->waited_uid, or obsolete (t->waited_uid 0).
 * Ordering: the compare-and-swap is an acquire; pairs with the release in rx_unlock_all().
 * Crash: named but not taken: the reaper finds a word that is not its victim's.
 */
static inline int rx_try_lock(struct rx_thread *t, rx_off node, unsigned i)
{
    uint64_t *word = &rx_node_at(t->base, node)->lock;
    rx_store(&t->arena->locks[i], node);
    uint64_t have = 0, mine = t->uid << 1;
    if (RX_LIKELY(rx_cas(word, &have, mine)))
        return RX_OK;
    if (!(have & RX_OBSOLETE)) {
        uint64_t holder = have >> 1;
        const struct rx_slot *slot = &t->db->slots[holder & (RX_SLOTS - 1)];
        if (rx_load(&slot->uid) != holder && rx_cas(word, &have, mine))
            return RX_OK;
        t->waited_uid = have & RX_OBSOLETE ? 0 : have >> 1;
    } else {
        t->waited_uid = 0;
    }
    rx_store(&t->arena->locks[i], 0);
    return RX_I_RESTART;
}

/* Gives up locks[0..n) without a commit. Ordering: release. */
static inline void rx_unlock_all(struct rx_thread *t, unsigned n)
{
    for (unsigned i = n; i-- > 0;) {
        rx_store(&rx_node_at(t->base, t->arena->locks[i])->lock, 0);
        rx_store(&t->arena->locks[i], 0);
    }
}

#endif
