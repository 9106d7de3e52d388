/*
 * durable.c -- the C API of durability: tickets, waiting, checkpoints.
 */
#include "checkpoint.h"
#include "durable.h"
#include "file.h"
#include "flush.h"
#include "frames.h"
#include "guard.h"


static int rx_no_log(const struct rx_db *db)
{
    if (db->durability == RX_D_PMEM)
        return rx_fail(RX_E_DURABILITY, 95 /* EOPNOTSUPP */, "%s has durability=\"pmem\": what has returned is durable, and "
                       "there is no log to wait for", db->path);
    return rx_fail(RX_E_DURABILITY, 95 /* EOPNOTSUPP */, "%s has durability=\"process\": there is no log to wait for", db->path);
}

/*
 * These calls begin without an epoch, so t->map may be of a generation that another thread has
 * unmapped since.  Its superblock is read only while the log is not known: then nobody has written
 * in this session, and there was no other generation.  (Known later, t is busy: it stays mapped.)
 */

/* The log's end and durable point; while nobody has written in this session, the clean file's. */
static uint64_t rx_point_now(const struct rx_thread *t, uint64_t *durable, uint64_t *incarnation)
{
    const struct rx_db *db = t->db;
    if (rx_log_known(db)) {
        *incarnation = rx_load(&db->hdr->log_incarnation);
        *durable = rx_log_durable(db);
        return rx_log_tail(db);
    }
    const struct rx_super *super = rx_super_of(t->map);
    *incarnation = rx_load(&super->log_incarnation);
    return *durable = rx_load(&super->log_position);
}

int rx_log_status(rx_index *h, struct rx_log_info *out)
{
    struct rx_thread *t;
    int rc = rx_call_begin(h, NULL, &t);
    if (rc)
        return rc;
    struct rx_db *db = t->db;
    if (!db->logged)
        rc = rx_no_log(db);
    else {
        uint64_t durable, incarnation, tail = rx_point_now(t, &durable, &incarnation);
        out->position = incarnation << RX_LOG_TICKET_BITS | tail;
        out->durable = incarnation << RX_LOG_TICKET_BITS | durable;
        out->incarnation = incarnation;
        out->log_bytes = rx_load(&db->hdr->log_bytes) - rx_load(&db->hdr->log_checkpoint);
        out->backlog_entries = tail - durable;
        out->failed = (int)rx_load(&db->hdr->log_failed);
    }
    rx_call_end(t);
    return rc;
}

/* RX_OK: durable since before this session or incarnation.  RX_ABSENT: *number is to be waited for. */
static int rx_ticket_number(struct rx_thread *t, uint64_t ticket, uint64_t *number)
{
    struct rx_db *db = t->db;
    uint64_t durable, incarnation, tail = rx_point_now(t, &durable, &incarnation);
    uint64_t of = ticket >> RX_LOG_TICKET_BITS;
    *number = ticket & ((1ull << RX_LOG_TICKET_BITS) - 1);
    if (of == incarnation && *number <= durable)
        return RX_OK;
    if (of == incarnation && *number <= tail)
        return RX_ABSENT;
    uint64_t base = rx_load(rx_log_known(db) ? &db->hdr->log_base : &rx_super_of(t->map)->log_base);
    if (ticket == 0 || (of + 1 == incarnation && *number <= base))
        return RX_OK;
    if (of < incarnation)
        return rx_fail(RX_E_DURABILITY, 0, "ticket %llu is of a time before %s was recovered, and is not known to have been kept",
                       (unsigned long long)ticket, db->path);
    return rx_fail(RX_E_DURABILITY, 22 /* EINVAL */, "%llu is no ticket that %s has given", (unsigned long long)ticket, db->path);
}

/*
 * Of a session that nobody closed nothing of the log was there: what it left can be seen, but no log
 * tells of it before one is begun, with a checkpoint.
 */
static bool rx_log_lost(const struct rx_thread *t)
{
    if (rx_log_known(t->db))
        return false;
    uint64_t state = rx_load((uint64_t *)(void *)&rx_super_of(t->map)->state); /* and its checksum */
    return (uint32_t)state != RX_STATE_CLEAN && !rx_log_known(t->db); /* asked again: it is begun before the mark */
}

/* It is begun by the first to write, or to wait. */
static int rx_log_found(struct rx_thread *t)
{
    struct rx_db *db = t->db;
    if (!rx_log_lost(t))
        return RX_OK;
    if (db->logger == NULL)
        return rx_fail(RX_E_DURABILITY, 0, "the log of %s was lost, and this process may not begin another", db->path);
    if (t->deadline_ns == 0)
        return rx_fail(RX_WOULD_WAIT, 0, "for a checkpoint");
    return rx_mark_in_use(db, t->deadline_ns);
}

int rx_wait_durable(rx_index *h, rx_thread *given, uint64_t ticket, int64_t wait_ns)
{
    struct rx_thread *t;
    uint64_t number = 0;
    int rc = rx_call_begin(h, given, &t);
    if (rc)
        return rc;
    struct rx_db *db = t->db;
    t->deadline_ns = wait_ns == 0 ? 0 : rx_now_ns() + (wait_ns < 0 ? 50000000ll : wait_ns);
    rc = db->logged ? rx_log_found(t) : rx_no_log(db);
    if (rc == RX_OK)
        rc = rx_ticket_number(t, ticket, &number);
    if (rc == RX_ABSENT) {
        rc = db->logger ? rx_log_join(db) : RX_OK;
        if (rc == RX_OK)
            rc = rx_log_flush(t, number);
    }
    rx_call_end(t);
    return rc;
}

int rx_is_durable(rx_index *h, uint64_t ticket)
{
    struct rx_thread *t;
    uint64_t number;
    int rc = rx_call_begin(h, NULL, &t);
    if (rc)
        return rc;
    if (!t->db->logged)
        rc = rx_no_log(t->db);
    else
        rc = rx_log_lost(t) ? RX_ABSENT : rx_ticket_number(t, ticket, &number);
    rx_call_end(t);
    return rc == RX_ABSENT ? RX_WOULD_WAIT : rc;
}

int rx_checkpoint(rx_index *h, int64_t wait_ns)
{
    struct rx_thread *t;
    if (h->readonly)
        return rx_fail(RX_E_READONLY, 0, "a checkpoint is a change of the files");
    int rc = rx_call_begin(h, NULL, &t);
    if (rc)
        return rc;
    t->deadline_ns = wait_ns < 0 ? INT64_MAX : rx_now_ns() + wait_ns;
    if (!t->db->logged)
        rc = rx_no_log(t->db);
    else if ((rc = rx_mark_in_use(t->db, t->deadline_ns)) == RX_OK && (rc = rx_log_join(t->db)) == RX_OK)
        rc = rx_checkpoint_make(t);
    rx_call_end(t);
    return rc;
}

static void rx_closing_left(struct rx_db *db, int64_t left_ns)
{
    __atomic_store_n(&db->logger->closing_left_ns, left_ns > 0 ? left_ns : 0, __ATOMIC_RELAXED);
}

int rx_flush_closing(struct rx_db *db, bool readonly)
{
    struct rx_thread *t;
    if (db->broken_fork || !db->logged || db->logger == NULL)
        return RX_OK;
    rx_closing_left(db, RX_CLOSING_NS);
    if (readonly || rx_load(&db->hdr->log_size) == 0 || rx_load(&db->hdr->generation) == RX_GENERATION_REPLACED ||
        rx_log_tail(db) == rx_log_durable(db))
        return RX_OK;
    int rc = rx_thread_new(db, RX_S_FLUSHER, &t);
    if (rc)
        return rc;
    __atomic_store_n(&t->busy, 1, __ATOMIC_SEQ_CST);
    t->deadline_ns = rx_now_ns() + RX_CLOSING_NS;
    rc = rx_log_join(db);
    if (rc == RX_OK)
        rc = rx_log_flush(t, rx_log_tail(db));
    rx_closing_left(db, t->deadline_ns - rx_now_ns());
    __atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
    rx_thread_drop(t);
    return rc == RX_WOULD_WAIT ? rx_fail(RX_E_DURABILITY, 0, "%s was closed, but its log is held up by another process", db->path)
                               : rc;
}
