/*
 * schedule_scenarios.c -- the scenarios of schedules.c: what two or three threads do at the same
 * time, and what may be seen then.
 */
#include "schedules.h"
#include "../rowex/native/log.h"

#define LARGE 70000u /* more than an extent: its cell is freed without waiting for a block of 123 */
#define ABSENT 0u

double sched_real_s(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- values that know themselves -------------------------------------------------------- */

static uint8_t pattern[256][LARGE];

static void expect(bool right, const char *what, unsigned long long seen)
{
    if (!right)
        sched_fail("%s: %llu", what, seen);
}

static void put_size(rx_thread *t, const char *key, unsigned value, size_t size)
{
    int rc;
    if (pattern[value][0] == 0)
        memset(pattern[value], (int)value, LARGE);
    do
        rc = rx_put(sched_index, t, key, strlen(key), pattern[value], size, 10000000000ll, NULL);
    while (rc == RX_WOULD_WAIT);
    expect(rc == RX_OK, "put failed", (unsigned long long)(long long)rc);
}
static void put(rx_thread *t, const char *key, unsigned value) { put_size(t, key, value, 24); }
static void put_large(rx_thread *t, const char *key, unsigned value) { put_size(t, key, value, LARGE); }

static void remove_key(rx_thread *t, const char *key)
{
    int rc;
    do
        rc = rx_remove(sched_index, t, key, strlen(key), 10000000000ll, NULL);
    while (rc == RX_WOULD_WAIT);
    expect(rc == RX_OK, "remove failed", (unsigned long long)(long long)rc);
}

/* The value's number, ABSENT; anything else ends the run. */
static unsigned get(rx_thread *t, const char *key)
{
    static uint8_t buffer[THREADS_MAX + 1][LARGE]; /* a thread may be preempted in the copy */
    uint8_t *out = buffer[t ? 1 + t->uid % THREADS_MAX : 0];
    size_t size = 0;
    int rc = rx_get(sched_index, t, key, strlen(key), out, LARGE, &size);
    if (rc == RX_ABSENT)
        return ABSENT;
    expect(rc == RX_OK, "get failed", (unsigned long long)(long long)rc);
    expect(size == 24 || size == LARGE, "a value of this size was never put", size);
    for (size_t i = 1; i < size; i++)
        expect(out[i] == out[0], "a torn value; differs at", i);
    return out[0];
}

static bool swap(rx_thread *t, const char *key, unsigned from, unsigned to)
{
    int rc;
    memset(pattern[from], (int)from, LARGE);
    memset(pattern[to], (int)to, LARGE);
    do
        rc = rx_compare_and_set(sched_index, t, key, strlen(key), pattern[from], 24, pattern[to], 24, 10000000000ll, NULL);
    while (rc == RX_WOULD_WAIT);
    expect(rc == RX_OK || rc == RX_MISMATCH, "compare_and_set failed", (unsigned long long)(long long)rc);
    return rc == RX_OK;
}

/* ABSENT: removes the first, and puts 3 under the second. */
static void batch(rx_thread *t, const char *first, const char *second, unsigned value)
{
    unsigned put = value ? value : 3;
    const void *keys[2] = {first, second}, *values[2] = {value ? pattern[value] : NULL, pattern[put]};
    const size_t key_len[2] = {strlen(first), strlen(second)}, value_len[2] = {24, 24};
    uint64_t ticket;
    int rc;
    memset(pattern[put], (int)put, LARGE);
    do
        rc = rx_batch_apply(sched_index, t, 2, keys, key_len, values, value_len, 10000000000ll, &ticket);
    while (rc == RX_WOULD_WAIT);
    expect(rc == RX_OK, "batch failed", (unsigned long long)(long long)rc);
}

static void count_is(uint64_t least, uint64_t most)
{
    uint64_t count = 0;
    expect(rx_count(sched_index, &count) == RX_OK && count >= least && count <= most, "the length", count);
}

/* ---- two writers and a reader on one node -------------------------------------------------- */

static unsigned seen[4];

static void node4_setup(void)
{
    const char *keys[4] = {"n0", "n1", "n2", "n3"};
    for (int i = 0; i < 4; i++)
        put(NULL, keys[i], 1);
}
static void replace_n0(rx_thread *t) { put(t, "n0", 2); }
static void insert_n4(rx_thread *t) { put(t, "n4", 3); }
static void read_n0_n4_n1(rx_thread *t)
{
    seen[0] = get(t, "n0");
    seen[1] = get(t, "n4");
    seen[2] = get(t, "n0");
    expect(get(t, "n1") == 1, "a stable key was missed", 1);
}
static void node4_check(void)
{
    expect(seen[0] == 1 || seen[0] == 2, "n0 was", seen[0]);
    expect(seen[2] == 2 || seen[2] == seen[0], "n0 went back to", seen[2]);
    expect(seen[1] == ABSENT || seen[1] == 3, "n4 was", seen[1]);
    expect(get(NULL, "n0") == 2 && get(NULL, "n4") == 3 && get(NULL, "n3") == 1, "a write is lost; n0 is",
           get(NULL, "n0"));
    count_is(5, 5);
}

/* ---- one of two compare-and-sets ------------------------------------------------------------- */

static bool won[2];
static void swap_one(rx_thread *t) { won[0] = swap(t, "n0", 1, 2); }
static void swap_two(rx_thread *t) { won[1] = swap(t, "n0", 1, 3); }
static void swap_check(void)
{
    expect(won[0] != won[1], "so many compare-and-sets won", (unsigned long long)won[0] + won[1]);
    expect(get(NULL, "n0") == (won[0] ? 2u : 3u), "the loser's value", get(NULL, "n0"));
    count_is(4, 4);
}

/* ---- a slot whose child is gone ------------------------------------------------------------------ */

static void slots_setup(void) { put(NULL, "n0", 1), put(NULL, "n1", 1), put(NULL, "n2", 1); }
static void move_on(rx_thread *t) { remove_key(t, "n0"), put(t, "n7", 4); }
static void read_gone(rx_thread *t)
{
    seen[0] = get(t, "n0");
    seen[1] = get(t, "n7");
    expect(get(t, "n1") == 1, "a stable key was missed", 1);
}
static void slots_check(void)
{
    expect(seen[0] == ABSENT || seen[0] == 1, "n0 was", seen[0]);
    expect(get(NULL, "n7") == 4 && get(NULL, "n0") == ABSENT, "n7 is", get(NULL, "n7"));
    count_is(3, 3);
}

/* ---- paths that split and merge above a stable key -------------------------------------------------- */

static void paths_setup(void) { put(NULL, "path/long/a", 1), put(NULL, "path/long/b", 1); }
static void split_path(rx_thread *t) { put(t, "path/x", 2), remove_key(t, "path/x"); }
static void split_more(rx_thread *t) { put(t, "pa", 3); }
static void read_stable(rx_thread *t)
{
    expect(get(t, "path/long/a") == 1, "a stable key was missed", 1);
    seen[0] = get(t, "pa");
    expect(get(t, "path/long/b") == 1, "a stable key was missed", 2);
}
static void paths_check(void)
{
    expect(get(NULL, "pa") == 3 && get(NULL, "path/x") == ABSENT, "pa is", get(NULL, "pa"));
    count_is(3, 3);
}

/* ---- reuse, and eviction, beside a reader --------------------------------------------------------------- */

static void large_setup(void) { put_large(NULL, "k", 1), put_large(NULL, "m", 9); }
static void read_k(rx_thread *t) { seen[0] = get(t, "k"); }
static void reuse_k(rx_thread *t) { put_large(t, "k", 2), put_large(t, "m", 3), put_large(t, "m", 4); }
static void evict_and_reuse(rx_thread *t)
{
    put_large(t, "k", 2);
    for (int i = 0; i < 2; i++) {
        rx_unpin(sched_index->db, rx_load(&sched_index->db->hdr->epoch) + 1);
        sched_pass_time(2 * RX_EVICT_NS);
    }
    put_large(t, "m", 3);
    put_large(t, "m", 4);
}
static void large_check(void)
{
    expect(seen[0] == 1 || seen[0] == 2, "k was", seen[0]);
    expect(get(NULL, "k") == 2 && get(NULL, "m") == 4, "k is", get(NULL, "k"));
}

/* ---- the gate and a commit ---------------------------------------------------------------------------------- */

static void check_gated(rx_thread *t)
{
    uint64_t faults = 0;
    int rc;
    (void)t;
    do
        rc = rx_check(sched_index, 10000000000ll, fuzz_fault, NULL, &faults);
    while (rc == RX_WOULD_WAIT);
    expect(rc == RX_OK && faults == 0, "faults found behind the gate", faults);
}
static void gate_check(void)
{
    expect(get(NULL, "n0") == 2 && get(NULL, "n4") == 3, "n0 is", get(NULL, "n0"));
    count_is(5, 5);
}

/* ---- two batches, and a reader of their keys in the other order ------------------------------------------------ */

static void batch_setup(void) { put(NULL, "a1", 1), put(NULL, "a2", 1), put(NULL, "z", 1); }
static void batch_one(rx_thread *t) { batch(t, "a1", "z", 2); }
static void batch_two(rx_thread *t) { batch(t, "a1", "z", 3); }
static void read_z_a(rx_thread *t)
{
    seen[0] = get(t, "z");
    seen[1] = get(t, "a1");
    seen[2] = get(t, "z");
}
static void batch_check(void)
{
    for (int i = 0; i < 3; i++)
        expect(seen[i] >= 1 && seen[i] <= 3, "a key of the batches was", seen[i]);
    /* z, then a1, then z: values of one order of the two batches. */
    expect(seen[0] == 1 || seen[1] != 1, "z was new, and a1 old afterwards; z", seen[0]);
    expect(seen[1] == 1 || seen[2] != 1, "a1 was new, and z old afterwards; a1", seen[1]);
    expect(get(NULL, "a1") == get(NULL, "z") && get(NULL, "z") > 1, "half a batch is left; a1", get(NULL, "a1"));
    expect(seen[1] == seen[0] || seen[0] == 1 || seen[2] == seen[1], "the batches came in two orders; a1", seen[1]);
    count_is(3, 3);
}

/* ---- a batch that is aborted at any instant ------------------------------------------------------------------------ */

/* As who has lost patience: whatever is pending now. */
static void abort_pending(rx_thread *t)
{
    struct rx_db *db = sched_index->db;
    expect(rx_enter_read(t) == RX_OK, "an epoch is not entered", 0);
    for (uint32_t i = 0; i < rx_load32(&db->hdr->arena_high); i++) {
        rx_off off = rx_load(&db->arenas[i].batch);
        if (off == 0)
            continue;
        struct rx_batch *b = (struct rx_batch *)(void *)(t->base + off);
        uint64_t state = rx_load(&b->state);
        if ((state & 3) == RX_B_PENDING)
            rx_cas(&b->state, &state, (state & ~3ull) | RX_B_ABORTED);
    }
    rx_leave_read(t);
}
static void batch_n0_n4(rx_thread *t) { batch(t, "n0", "n4", 3); }
static void abort_and_replace_n0(rx_thread *t) { abort_pending(t), put(t, "n0", 2); }
static void read_n4_n0(rx_thread *t)
{
    seen[0] = get(t, "n4");
    seen[1] = get(t, "n0");
}
static void aborted_check(void)
{
    unsigned n0 = get(NULL, "n0");
    expect(n0 == 2 || n0 == 3, "n0 is", n0);
    expect(get(NULL, "n4") == 3, "half a batch is left; n4 is", get(NULL, "n4"));
    expect(seen[0] == ABSENT || seen[1] != 1, "n4 was new, and n0 old afterwards; n4", seen[0]);
    count_is(5, 5);
}

static void gated_batch_check(void)
{
    seen[0] = ABSENT;
    aborted_check();
}

/* ---- a batch that removes, in a node that merges -------------------------------------------------------------------- */

static void pair_setup(void) { put(NULL, "n0", 1), put(NULL, "n1", 1), put(NULL, "m", 1); }
static void batch_without_n0(rx_thread *t) { batch(t, "n0", "n1", ABSENT); }
static void swap_n1(rx_thread *t) { won[0] = swap(t, "n1", 1, 2); }
static void insert_n0_again(rx_thread *t) { put(t, "n0", 2); }
static void removing_check(void)
{
    unsigned n0 = get(NULL, "n0");
    expect(n0 == 2 || n0 == ABSENT, "n0 is", n0);
    expect(get(NULL, "n1") == 3, "n1 is", get(NULL, "n1"));
    count_is(2 + (n0 != ABSENT), 2 + (n0 != ABSENT));
}

/* ---- the dead ----------------------------------------------------------------------------------------------------- */

static void insert_n5(rx_thread *t) { put(t, "n5", 5); }
static void dead_insert_check(void)
{
    unsigned n4 = get(NULL, "n4");
    expect(n4 == ABSENT || n4 == 3, "n4 is", n4);
    expect(get(NULL, "n0") == 2 && get(NULL, "n5") == 5, "a write is lost; n0 is", get(NULL, "n0"));
    count_is(5 + (n4 != ABSENT), 5 + (n4 != ABSENT));
}
static void batch_n0_n5(rx_thread *t) { batch(t, "n0", "n5", 5); }
static void batch_n1_n4(rx_thread *t) { batch(t, "n1", "n4", 6); }
static void dead_batches_check(void)
{
    unsigned n0 = get(NULL, "n0"), n4 = get(NULL, "n4");
    expect(n0 == 5 || (n0 == 3 && n4 >= 3), "n0 is", n0);
    expect(n4 == 6 || (n4 == 3 && (n0 == 3 || n0 == 5)), "n4 is", n4);
    expect(get(NULL, "n1") == 6 && get(NULL, "n5") == 5, "half a batch is left; n1 is", get(NULL, "n1"));
    count_is(6, 6);
}
static void replace_n0_after(rx_thread *t) { put(t, "n0", 2); }
static void dead_batch_check(void)
{
    unsigned n0 = get(NULL, "n0"), n4 = get(NULL, "n4");
    expect(n0 == 2 || (n0 == 3 && n4 == 3), "n0 is", n0);
    expect(n4 == ABSENT || n4 == 3, "n4 is", n4);
    expect(get(NULL, "n5") == 5, "n5 is", get(NULL, "n5"));
    put(NULL, "n4", 8); /* whatever the dead one left there is settled */
    count_is(6, 6);
}
static void remove_n0(rx_thread *t) { remove_key(t, "n0"); }
static void merge_setup(void) { put(NULL, "n0", 1), put(NULL, "n1", 1), put(NULL, "m", 1); }
static void replace_n1(rx_thread *t) { put(t, "n1", 2); }
static void insert_n2(rx_thread *t) { put(t, "n2", 3); }
static void dead_merge_check(void)
{
    unsigned n0 = get(NULL, "n0");
    expect(n0 <= 1, "n0 is", n0);
    expect(get(NULL, "n1") == 2 && get(NULL, "n2") == 3, "a write is lost; n1 is", get(NULL, "n1"));
    count_is(3 + n0, 3 + n0);
}

/* ---- two leaders of one flush ------------------------------------------------------------------------------------------ */

static uint64_t told[2]; /* tickets that were told to be durable, 0 none */

static void durable_is(uint64_t ticket)
{
    struct rx_log_info info = {0};
    expect(rx_log_status(sched_index, &info) == RX_OK, "log_status failed", 0);
    expect(info.durable >= ticket, "told to be durable, but only this is", info.durable);
}

/* As `durable=True`: the answer comes when the log has it. */
static void wait_durable(rx_thread *t, int who)
{
    int rc;
    uint64_t ticket = rx_log_ticket(sched_index->db, t->log_number);
    do {
        rc = rx_wait_durable(sched_index, t, ticket, 8000000000ll);
        sched_stubborn(false);
    } while (rc == RX_WOULD_WAIT);
    expect(rc == RX_OK, "wait_durable failed", (unsigned long long)(long long)rc);
    durable_is(ticket);
    told[who] = ticket;
}
static void commit_n0(rx_thread *t) { put(t, "n0", 2), wait_durable(t, 0); }
static void commit_n1(rx_thread *t) { put(t, "n1", 3), wait_durable(t, 1); }
/* The other, wherever it was interrupted, stands still for seconds: it is deposed, and wakes. */
static void depose_and_commit_n1(rx_thread *t)
{
    put(t, "n1", 3);
    sched_stubborn(true);
    wait_durable(t, 1);
}
static void leaders_check(void)
{
    unsigned n0 = get(NULL, "n0");
    expect(n0 == 2 || (!told[0] && n0 == 1), "n0 is", n0);
    expect(get(NULL, "n1") == 3, "n1 is", get(NULL, "n1"));
    sched_log_check(told[0] ? "n0" : NULL, "n1");
    durable_is(told[0] > told[1] ? told[0] : told[1]);
    told[0] = told[1] = 0;
}

const struct scenario sched_scenarios[] = {
    {"two writers and a reader", 3, -1, false, node4_setup, {replace_n0, insert_n4, read_n0_n4_n1}, node4_check},
    {"two compare-and-sets", 2, -1, false, node4_setup, {swap_one, swap_two}, swap_check},
    {"a slot whose child is gone", 2, -1, false, slots_setup, {move_on, read_gone}, slots_check},
    {"paths that split and merge", 3, -1, false, paths_setup, {split_path, split_more, read_stable}, paths_check},
    {"reuse beside a reader", 2, -1, false, large_setup, {reuse_k, read_k}, large_check},
    {"eviction of a reader that wakes", 2, -1, false, large_setup, {evict_and_reuse, read_k}, large_check},
    {"the gate and a commit", 3, -1, false, node4_setup, {replace_n0, insert_n4, check_gated}, gate_check},
    {"two batches", 3, -1, false, batch_setup, {batch_one, batch_two, read_z_a}, batch_check},
    {"a reaper and its victim", 3, 0, false, node4_setup, {insert_n4, replace_n0, insert_n5}, dead_insert_check},
    {"a reaper and a dead batch", 3, 0, false, node4_setup, {batch_n0_n4, replace_n0_after, insert_n5}, dead_batch_check},
    {"two leaders of one flush", 2, -1, true, node4_setup, {commit_n0, commit_n1}, leaders_check},
    {"a leader that is deposed and wakes", 2, -1, true, node4_setup, {commit_n0, depose_and_commit_n1}, leaders_check},
    {"a leader that dies", 2, 0, true, node4_setup, {commit_n0, commit_n1}, leaders_check},
    {"a reaper and a dead merger", 3, 0, false, merge_setup, {remove_n0, replace_n1, insert_n2}, dead_merge_check},
    {"a batch that is aborted", 3, -1, false, node4_setup, {batch_n0_n4, abort_and_replace_n0, read_n4_n0}, aborted_check},
    {"a batch that removes", 3, -1, false, pair_setup, {batch_without_n0, swap_n1, insert_n0_again}, removing_check},
    {"the gate and a batch", 3, -1, false, node4_setup, {batch_n0_n4, replace_n0, check_gated}, gated_batch_check},
    {"a dead batch and two others", 3, 0, false, node4_setup, {batch_n0_n4, batch_n0_n5, batch_n1_n4}, dead_batches_check},
};
const unsigned sched_scenario_count = sizeof sched_scenarios / sizeof *sched_scenarios;

const struct scenario *sched_find(const char *name)
{
    for (unsigned i = 0; i < sched_scenario_count; i++)
        if (strcmp(sched_scenarios[i].name, name) == 0)
            return &sched_scenarios[i];
    return NULL;
}
