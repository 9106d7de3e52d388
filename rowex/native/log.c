/*
 * log.c -- entries of the dead.  See log.h for the invariants.
 */
#include "log.h"

/*
 * Ordering  the tail before the claim: whoever moves the tail past our victim's name marks
 *           the claim first.  A tail that does not name it and a claim that is pending, read
 *           in this order, therefore mean that nothing was claimed.
 */
static bool rx_log_won(const struct rx_db *db, const struct rx_arena *a, uint64_t *number)
{
    uint64_t tail = rx_load(&db->hdr->log_tail), claim = rx_load(&a->log_claim);
    *number = claim >> 2;
    if ((claim & 3) == RX_LOG_WON)
        return true;
    return (claim & 3) == RX_LOG_PENDING &&
           tail == ((*number + 1) << RX_LOG_TAIL_SHIFT | (uint64_t)(a - db->arenas));
}

/*
 * Requires  proof that the arena's owner is dead, held by the caller.
 * Crash     a reaper that dies leaves the entry undecided or decided: the next finds which.
 *           A place that says this number, or a later one, has been published before.
 */
void rx_log_decide(struct rx_db *db, struct rx_arena *a, uint64_t what)
{
    uint64_t number;
    if (!db->logged || rx_load(&db->hdr->log_size) == 0 || !rx_log_won(db, a, &number))
        return;
    if (rx_load(&rx_log_entry(db, number)->number) < number + 1)
        rx_log_publish(db, number, what);
}

uint64_t rx_log_owner(struct rx_db *db, uint64_t number)
{
    uint32_t high = rx_load32(&db->hdr->arena_high);
    for (uint32_t i = 0; i < high && i < RX_ARENAS; i++) {
        uint64_t claimed, owner = rx_load(&db->arenas[i].owner);
        if (owner && rx_log_won(db, &db->arenas[i], &claimed) && claimed == number)
            return owner;
    }
    return 0;
}
