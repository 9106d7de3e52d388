/*
 * alloc.h -- cells: free lists by class, the bump extent, claiming extents from
 * the break, limbo.  Everything that a uid owns is in its arena in NAME-lock, and
 * each transition is one that a reaper can decide:
 *
 *   pop      reserved[i] = cell; head = next.       head == reserved[i]: not popped.
 *   push     cell.next = head; (tail); head = cell; reserved[i] = 0.   the same test.
 *   bump     write FREE header at bump; reserved[i] = bump; bump += size.
 *            bump == reserved[i]: not taken.
 *   split    pop whole cell C; write B's FREE header; split = B; shrink C's header;
 *            push B; split = 0.
 *            split != 0: head of B's class == B: pushed; C + size(C) == B for the
 *            reserved C: push B; else nothing happened.
 *   limbo    open a block: reserved[RX_RSV_LIMBO] = block; init; old.count, old.stamp,
 *            old.next = block; limbo_tail = block << 8 | 0; reserved = 0.
 *            tail block's next != 0: finish that switch.
 *            free a block's entries from the last: push cell; count--.
 *            head of the class == entry[count-1]: pushed, only lower count.
 *            close in place: count and stamp; limbo_tail = block << 8 | 255.  Emptied, it is
 *            opened again: limbo_tail = block << 8 | 0.
 *            drop the oldest: reserved[RX_RSV_LIMBO] = block; limbo_head = its next; push.
 *            limbo_head == reserved: not taken out.
 *   rotate   reserved[RX_RSV_MISC] = head; head = next; cell.next = 0; tail.next = cell;
 *            tail = cell; reserved = 0.   head == it: not popped; tail == it: done;
 *            tail.next == it: only the tail; else push it.
 *   claim    arena.claim = from|n|PENDING; CAS brk (from,..)->(from+n, me); claim WON;
 *            bump = .., bump_end = ..; claim = 0.  Whoever finds another's name in brk
 *            sets that one's matching PENDING claim to WON before it overwrites the name.
 */
#ifndef ROWEX_ALLOC_H
#define ROWEX_ALLOC_H

#include "../native/cell.h"
#include "../native/core.h"

/* Takes an idle arena for t (or returns at once if it has one); resets one of
 * another generation. Outside epochs; may allocate blocks of NAME-lock. */
int rx_arena_borrow(struct rx_thread *t);
/* Lets go of it with all its lists; the next writer takes it as it is. */
void rx_arena_release(struct rx_thread *t);

/*
 * Inside an epoch, no locks held, no system calls: reserve n cells of the given
 * sizes (bytes, any; rounded by rx_cell_round) as arena->reserved[RX_RSV_OP + i],
 * headers FREE with the exact rounded size, and limbo room for `unlink` entries.
 * All or nothing.  RX_OK, or RX_I_GROW (t->grow_need set): leave the epoch, call
 * rx_grow(), start again.
 */
int rx_reserve(struct rx_thread *t, const uint64_t *sizes, int n, int unlink);
/* Is a free cell of just that (rounded) size there? A hint: another cell of the operation may get it. */
static inline bool rx_cell_at_hand(const struct rx_arena *a, uint64_t size)
{
    return rx_load_rlx(&a->head[rx_class_of(size)]) != 0;
}
/* Gives back what rx_reserve() took and no commit used. Idempotent. */
void rx_unreserve(struct rx_thread *t);

/*
 * Outside an epoch: make rx_reserve() of t->grow_need bytes succeed: reclaim limbo,
 * take idle arenas' space, claim an extent (growing the file in place), at capacity
 * copy and rename (gate.h).  t->deadline_ns as everywhere: 0 and a system call is
 * needed: RX_WOULD_WAIT.  RX_E_FULL: nothing changed.
 */
int rx_grow(struct rx_thread *t);
/* Room ahead of the break, where little is left; never an error. */
void rx_grow_ahead(struct rx_thread *t);

/* Used by rx_commit()'s finish: entry i of the block that `packed` (limbo_tail) names. */
void rx_limbo_enter(struct rx_map *map, uint64_t packed, unsigned i, rx_off cell);

/* Reaper: complete or undo the transitions above, free reserved cells. Repeatable. */
void rx_arena_recover(struct rx_db *db, struct rx_map *map, struct rx_arena *arena);
/* Exclusive last closer: all limbo freed, all arenas' lists spliced into the superblock. */
int rx_arenas_to_super(struct rx_db *db, struct rx_map *map, struct rx_super *super);
/* Exclusive first opener of a clean file: arena 0 gets the superblock's lists. The lists'
 * heads are checked when used: a cell popped is bounds- and header-checked. */
int rx_arenas_from_super(struct rx_db *db, struct rx_map *map, const struct rx_super *super);
/* Push one free cell of `size` bytes at off: used by scan.c to rebuild lists. */
void rx_push_free(struct rx_map *map, struct rx_arena *arena, rx_off off, uint64_t size);

#endif
