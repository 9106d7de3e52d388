/*
 * cells.h -- what the files of the allocator share: alloc.c (lists, reserving), limbo.c
 * (retired cells), claim.c (extents), recover.c (the dead, opening and closing).  Only
 * they and scan.c include it.
 *
 * I5  Only the arena's owner touches its lists, or who holds the proof that the owner is
 *     dead, or who is alone with the file.
 * I6  At any instant at most one transition of alloc.h's table is half-way in an arena,
 *     and its record (reserved[], split, claim, a block's count) stands from before its
 *     first store until after its last.  Every store is a release, so what a dead owner
 *     left is a prefix of its stores in program order.
 * I7  The heap can be walked at every store: a header is written by one 8-byte store and
 *     describes bytes that were one cell, or that lie beyond the bump and are zero.
 */
#ifndef ROWEX_CELLS_H
#define ROWEX_CELLS_H

#include "alloc.h"

/* limbo_tail's count of a block that was closed and has no successor yet. */
#define RX_LIMBO_CLOSED 255u

static inline uint64_t *rx_word_at(const struct rx_map *map, rx_off off)
{
    return (uint64_t *)(void *)(map->base + off);
}
static inline struct rx_free *rx_free_at(const struct rx_map *map, rx_off off)
{
    return (struct rx_free *)(void *)(map->base + off);
}
static inline struct rx_limbo *rx_limbo_ptr(const struct rx_map *map, rx_off off)
{
    return (struct rx_limbo *)(void *)(map->base + off);
}

/* Hints: only their owner stores them, a kill may lose one store. */
static inline void rx_hint_add(uint64_t *hint, uint64_t n) { rx_store_rlx(hint, rx_load_rlx(hint) + n); }
static inline void rx_hint_sub(uint64_t *hint, uint64_t n)
{
    uint64_t have = rx_load_rlx(hint);
    rx_store_rlx(hint, have > n ? have - n : 0);
}

/* ---- alloc.c ---- */
/* The link `off` leads to a free cell of class c, of *size bytes; or RX_E_CORRUPT. */
int rx_free_check(struct rx_map *map, rx_off off, unsigned c, uint64_t *size);
/* One cell of exactly `size` (rounded) bytes as reserved[i]. RX_OK, RX_I_GROW, RX_E_CORRUPT. */
int rx_take_cell(struct rx_map *map, struct rx_arena *a, unsigned i, uint64_t size);
/* Back to its list: reserved[i] and what it names, whatever was built there. */
void rx_give_back(struct rx_map *map, struct rx_arena *a, unsigned i);
/* What is left of the bump extent becomes a free cell; bump == bump_end afterwards. */
void rx_bump_retire(struct rx_map *map, struct rx_arena *a);
/* The first class >= c whose list is not empty; RX_CLASSES when there is none. */
unsigned rx_class_from(struct rx_arena *a, unsigned c);
/* Enough for rx_reserve() to succeed surely (0: for limbo room). Racy for another's arena. */
bool rx_arena_offers(const struct rx_arena *a, uint64_t need);

/* ---- limbo.c ---- */
/* The limbo block at off; NULL when there is none. */
struct rx_limbo *rx_limbo_at(struct rx_map *map, rx_off off);
/* Bytes of the cell at off; 0: nothing there that a list could hold. */
uint64_t rx_cell_bytes(struct rx_map *map, rx_off off);
/* Room for `unlink` entries in the open block; may start a new one. As rx_take_cell(). */
int rx_limbo_room(struct rx_thread *t, unsigned unlink);
/* So much is pinned that it is worth asking who pins it. */
bool rx_limbo_piled(const struct rx_arena *a);
/* Are there closed blocks, waiting for readers? */
static inline bool rx_limbo_holds(const struct rx_arena *a)
{
    uint64_t tail = rx_load_rlx(&a->limbo_tail);
    return tail && (rx_load_rlx(&a->limbo_head) != tail >> 8 || (tail & 255) == RX_LIMBO_CLOSED);
}
/* Closes the open block in place. */
void rx_limbo_shut(struct rx_db *db, struct rx_map *map, struct rx_arena *a);
/* Frees every block whose stamp every reader has passed; how many bytes. */
uint64_t rx_limbo_sweep(struct rx_db *db, struct rx_map *map, struct rx_arena *a);
/* Frees everything, alone with the file. */
void rx_limbo_drain(struct rx_map *map, struct rx_arena *a);

/* ---- claim.c ---- */
static inline uint64_t rx_brk_make(uint64_t extents, uint64_t arena, uint64_t tag)
{
    return extents | arena << 36 | tag << 48;
}
static inline uint64_t rx_brk_extents(uint64_t brk) { return brk & ((1ull << 36) - 1); }
static inline uint64_t rx_brk_arena(uint64_t brk) { return brk >> 36 & (RX_ARENAS - 1); }

enum rx_claim_state { RX_CLAIM_PENDING = 1, RX_CLAIM_WON = 2 };
static inline uint64_t rx_claim_make(uint64_t from, uint64_t n, enum rx_claim_state state)
{
    return from | n << 36 | (uint64_t)state << 62;
}
static inline uint64_t rx_claim_from(uint64_t claim) { return claim & ((1ull << 36) - 1); }
static inline uint64_t rx_claim_count(uint64_t claim) { return claim >> 36 & ((1ull << 26) - 1); }
static inline unsigned rx_claim_state(uint64_t claim) { return (unsigned)(claim >> 62); }
/* A claim that was won becomes the bump extent. Repeatable. */
void rx_claim_settle(struct rx_arena *a, uint64_t claim);

/* ---- recover.c ---- */
/* Empties an arena that is ours for this generation; the generation is stored last. */
void rx_arena_reset(struct rx_arena *a, uint64_t generation);
/* One more chunk of arenas in NAME-lock. */
int rx_arenas_extend(struct rx_db *db);
/* Arena 0, empty and idle: for the exclusive first opener. */
int rx_arena_first(struct rx_db *db, struct rx_map *map, struct rx_arena **out);

#endif
