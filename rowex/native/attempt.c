/*
 * attempt.c -- one attempt at a change, inside the epoch: where the key belongs (change.c), what
 * is there, what is to be done; and batches that stand in the way.
 */
#include "change.h"
#include "lock.h"

/*
 * What a decided wrapper stands for takes its place; where that is nothing, the batch's owner
 * merges nodes as a removal does.  Neither counts, logs nor retires anything (transaction.c).
 */
static int rx_settle(struct rx_thread *t, const struct rx_op *op, struct rx_place *p)
{
    rx_ref stands = rx_wrapped_ref(&p->wrapped);
    bool quiet = t->quiet;
    int rc;
    t->quiet = true;
    if (stands == 0)
        rc = op->change == RX_SETTLE ? rx_remove_at(t, op, p) : rx_clear_slot(t, p);
    else if ((rc = rx_reserve(t, NULL, 0, 0)) == RX_OK && (rc = rx_lock_node(t, p)) == RX_OK) {
        rx_unlink_cells(t, 0, 0, 0, 0);
        rc = rx_load(p->slot) == p->ref ? rx_commit_or_unlock(t, 1, p->slot, p->ref, stands, 0) : rx_moved(t, 1);
    }
    t->quiet = quiet;
    return rc;
}

static int rx_take_out(struct rx_op *op, const struct rx_leaf_view *leaf)
{
    op->out_len = leaf->value_len;
    if (leaf->value_len > op->out_capacity)
        return RX_TOO_SMALL;
    memcpy(op->out, leaf->value, leaf->value_len);
    return RX_OK;
}

/*
 * A batch stands where we want to go.  Decided: the slot gets what the wrapper stands for, and
 * the next attempt finds that.  Pending: waited for outside the epoch; when its owner has stood
 * still for too long, it is aborted.
 */
static int rx_meet(struct rx_thread *t, const struct rx_op *op, struct rx_place *p)
{
    struct rx_batch *b = p->wrapped.batch;
    uint64_t state = p->wrapped.state, progress = rx_load(&b->progress);
    if ((state & 3) != RX_B_PENDING) {
        int rc = rx_settle(t, op, p);
        return rc ? rc : RX_I_RESTART;
    }
    int64_t now = rx_now_ns();
    t->waited_uid = state >> 2;
    if (t->met_state != state || t->met_progress != progress) {
        t->met_state = state;
        t->met_progress = progress;
        t->met_ns = now;
    } else if ((uint64_t)(now - t->met_ns) >= rx_load_rlx(&b->patience)) {
        rx_cas(&b->state, &state, (state & ~3ull) | RX_B_ABORTED);
        t->waited_uid = 0;
    }
    return RX_I_RESTART;
}

/* A wrapper of our own batch, still pending and of this generation, takes the key's place. */
static int rx_wrap(struct rx_thread *t, struct rx_op *op, struct rx_place *p)
{
    struct rx_batch *b = (struct rx_batch *)(void *)(t->base + op->batch);
    int rc = rx_put_at(t, op, p);
    if (rc && !rx_poisoned(t->map))
        rx_store(&b->item[op->item].wrapper, 0); /* before the cell is given back */
    return rc;
}

int rx_attempt(struct rx_thread *t, struct rx_op *op, uint64_t shared, struct rx_place *p)
{
    t->waited_uid = 0;
    int rc = RX_OK;
    if (RX_UNLIKELY(t->quiet) && (rc = rx_batch_holds(t, op)) != RX_OK)
        return rc;
    rc = rx_locate(t, op, shared, p);
    if (rc)
        return rc;
    if (RX_UNLIKELY(t->map->fences)) { /* a plan or an answer: the way there is to be persistent */
        struct rx_leaf_view seen;
        (void)rx_find_settled(t->map, op->key, op->key_len, &seen);
    }
    if (RX_UNLIKELY(op->change == RX_SETTLE)) {
        bool ours = p->at == RX_AT_WRAPPER && (rx_off)((uint8_t *)p->wrapped.batch - t->base) == op->batch;
        return ours ? rx_settle(t, op, p) : RX_ABSENT;
    }
    if (RX_UNLIKELY(p->at == RX_AT_WRAPPER))
        return rx_meet(t, op, p);
    bool present = p->at == RX_AT_LEAF;
    switch (op->change) {
    case RX_PUT:
        return rx_put_at(t, op, p);
    case RX_INSERT:
        return present ? RX_PRESENT : rx_put_at(t, op, p);
    case RX_REMOVE:
        return present ? rx_remove_at(t, op, p) : RX_ABSENT;
    case RX_TAKE:
        if (!present)
            return RX_ABSENT;
        rc = rx_take_out(op, &p->leaf);
        return rc ? rc : rx_remove_at(t, op, p);
    case RX_WRAP:
        return rx_wrap(t, op, p);
    case RX_SETTLE:
        return RX_ABSENT;
    case RX_CAS:
        break;
    }
    if (op->expected == NULL) {
        if (present)
            return RX_MISMATCH;
        return op->value ? rx_put_at(t, op, p) : RX_OK;
    }
    if (!present || p->leaf.value_len != op->expected_len ||
        memcmp(p->leaf.value, op->expected, op->expected_len) != 0)
        return RX_MISMATCH;
    return op->value ? rx_put_at(t, op, p) : rx_remove_at(t, op, p);
}
