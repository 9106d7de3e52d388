/*
 * cursor.h -- ordered walk over the leaves, both ways, inside one epoch.
 *
 * Iterative, with a stack that grows on the heap (kept with the cursor, so a
 * scan allocates only while its depth grows).  P2: each node is read live or, if
 * it was replaced under the cursor, as it was when it became obsolete; a slot
 * belongs to one byte, so keys come in order and each at most once.
 */
#ifndef ROWEX_CURSOR_H
#define ROWEX_CURSOR_H

#include "window.h"

#define RX_RUN 64u     /* what a frame has gathered, at most */
#define RX_RUN_LOW 15u /* with so many left more are gathered: what a whole Node48 holds fits in behind them */

/*
 * run[at..count) comes next, all of it sent for.  An eager walk gathers it: the leaves of its small children
 * stand there instead of those, which are loaded and sent for one step earlier, in child[].
 */
struct rx_frame {
    struct rx_node *node;
    uint32_t below;  /* level of this node's children */
    uint8_t shape;
    uint8_t most;    /* of a walk that gathers nothing: how many children to load next time, few at first */
    int16_t from;    /* the next byte to load: -1 the term, 0..255; 256 or -2: nothing is left */
    uint8_t at, soft, count;           /* of run: from `soft` on it is filled before it is taken from */
    uint8_t taken, asked, loaded;      /* of child: up to `asked` sent for */
    uint16_t inner;                    /* of child, a bit each up to `asked`: no leaves */
    uint64_t nodes;                    /* of run, a bit each: no leaves */
    rx_ref child[RX_WINDOW + 8], run[RX_RUN]; /* children are copied eight at a time */
};
struct rx_cursor {
    struct rx_map *map;
    struct rx_frame *stack;
    uint32_t depth, capacity;
    uint64_t barren; /* nodes entered since the last leaf: bounded, see rx_cursor_enter() */
    uint32_t wanted; /* leaves, about: no more are gathered.  Not 0 */
    bool reverse;
    bool eager; /* set before it is placed: many leaves are wanted, and sent for early */
    uint32_t leaf_last; /* where the last word that is read of a leaf is likely to be: up to there each is sent for */
};
void rx_cursor_init(struct rx_cursor *c);
void rx_cursor_free(struct rx_cursor *c);
/* Place before the first leaf with key >= bound (or > bound if after). bound NULL: the first. */
int rx_cursor_seek(struct rx_cursor *c, struct rx_map *map, const uint8_t *bound, uint64_t bound_len, bool after);
/* Downwards: before the last leaf with key < bound (or <= bound if inclusive). NULL: the last. */
int rx_cursor_seek_down(struct rx_cursor *c, struct rx_map *map, const uint8_t *bound, uint64_t bound_len,
                        bool inclusive);
int rx_cursor_step_slow(struct rx_cursor *c, rx_ref *leaf);
/* The next leaf in the cursor's direction; RX_END when there is none. */
static inline int rx_cursor_step(struct rx_cursor *c, rx_ref *leaf)
{
    if (RX_LIKELY(c->depth != 0)) {
        struct rx_frame *f = &c->stack[c->depth - 1];
        if (RX_LIKELY(f->at < f->soft) && RX_LIKELY(rx_ref_is_leaf(*leaf = f->run[f->at]))) {
            f->at++;
            return RX_OK;
        }
    }
    return rx_cursor_step_slow(c, leaf);
}

/* The parts of a step, for walks that look at nodes too. */
/* Forget the position; walk below `node` only, at `level`. */
int rx_cursor_below(struct rx_cursor *c, struct rx_map *map, rx_ref node, uint32_t level);
/* The next child of the innermost node that has one left: a leaf, or a node at *level. RX_END. */
int rx_cursor_next(struct rx_cursor *c, rx_ref *child, uint32_t *level);
/* Step into it: its children come next. */
int rx_cursor_enter(struct rx_cursor *c, rx_ref node, uint32_t level);

#endif
