/*
 * walk.c -- looking at an index as a whole: info, statistics, uids, single nodes, and
 * compaction.  check.c has the check.
 *
 * Walks are weak (P2): each piece of the tree is read in an epoch of its own.
 */
#include "batch.h"
#include "cursor.h"
#include "file.h"
#include "guard.h"
#include "../gc/epoch.h"
#include "../gc/gate.h"

#define RX_BRK_MASK ((1ull << 36) - 1)

static uint64_t rx_brk_bytes(const struct rx_db *db) { return (rx_load(&db->hdr->brk) & RX_BRK_MASK) * RX_EXTENT; }

/* ---- info ------------------------------------------------------------------------ */

static void rx_info_fill(const rx_index *h, struct rx_thread *t, struct rx_info *info)
{
    const struct rx_db *db = t->db;
    struct rx_map *map = t->map;
    const struct rx_super *super = rx_super_of(map);
    (void)rx_map_refresh(map); /* else the size that was known */
    *info = (struct rx_info){
        .generation = map->generation,
        .capacity = map->capacity,
        .file_size = __atomic_load_n(&map->size, __ATOMIC_RELAXED),
        .max_size = db->max_size,
        .session = rx_load(&super->session),
        .durability = (int)db->durability,
        .key_codec = (int)db->key_codec,
        .value_codec = (int)db->value_codec,
        .checksum = map->checksum,
        .readonly = h->readonly,
        .lockless = db->lockless,
        .clean = rx_load32(&super->state) == RX_STATE_CLEAN,
        .light = db->light,
        .fences = map->fences,
        .version = super->version,
        .brk = rx_brk_bytes(db),
        .allocated = rx_load(&db->hdr->allocated),
    };
    memcpy(info->uuid, super->uuid, sizeof info->uuid);
}

int rx_index_info(rx_index *h, struct rx_info *info)
{
    struct rx_thread *t;
    int rc = rx_call_begin(h, NULL, &t), left;
    if (rc)
        return rc;
    do {
        left = RX_OK;
        rc = rx_enter_read(t);
        if (rc)
            break;
        rx_info_fill(h, t, info);
        left = rx_leave_read(t);
    } while (left == RX_I_EVICTED);
    rx_call_end(t);
    return rc ? rc : left;
}

/* ---- statistics ---------------------------------------------------------------------- */

struct rx_tally {
    uint64_t nodes[4], leaves, bytes, locked, dead_slots, depth[32];
    uint64_t steps;
};

static void rx_tally_add(struct rx_stats *to, const struct rx_tally *from)
{
    for (int i = 0; i < 4; i++)
        to->nodes[i] += from->nodes[i];
    for (int i = 0; i < 32; i++)
        to->depth[i] += from->depth[i];
    to->leaves += from->leaves;
    to->used_bytes += from->bytes;
    to->locked_nodes += from->locked;
    to->dead_slots += from->dead_slots;
}

/* A checked node.  The header is read once more: a reused cell only makes the tally wrong, and that is thrown away. */
static void rx_tally_node(struct rx_tally *a, struct rx_node *n, unsigned shape)
{
    unsigned kind = rx_shape_kind(shape);
    uint64_t header = rx_load((const uint64_t *)(const void *)n), lock = rx_load(&n->lock);
    a->nodes[kind - RX_K_N4]++;
    a->bytes += rx_node_size(shape, (unsigned)(header >> 16) & 0xffff);
    a->locked += lock != 0 && lock != RX_OBSOLETE;
    int given = (int)(header >> 8) & 0xff, live = rx_node_live(n, shape);
    if (kind != RX_K_N256 && given > live)
        a->dead_slots += (uint64_t)(given - live);
}

static int rx_tally_leaf(struct rx_tally *a, struct rx_map *map, rx_ref ref, uint32_t depth)
{
    struct rx_leaf_view v;
    int rc = rx_leaf_view(map, ref, &v);
    if (rc)
        return rc == RX_ABSENT ? RX_OK : rc; /* its batch has removed it */
    a->leaves++;
    a->bytes += v.cell_size;
    a->depth[depth < 31 ? depth : 31]++;
    return RX_OK;
}

/* Inside an epoch: everything below one child of the root. */
static int rx_tally_below(struct rx_thread *t, struct rx_cursor *c, rx_ref child, struct rx_tally *a)
{
    if (rx_ref_is_leaf(child))
        return rx_tally_leaf(a, t->map, child, 1);
    uint32_t level = 1;
    int rc = rx_cursor_below(c, t->map, child, level);
    if (rc == RX_OK)
        rx_tally_node(a, c->stack[0].node, c->stack[0].shape);
    while (rc == RX_OK && (rc = rx_cursor_next(c, &child, &level)) == RX_OK) {
        if (rx_ref_is_leaf(child)) {
            rc = rx_tally_leaf(a, t->map, child, c->depth + 1); /* the root is not on the stack */
            c->barren = 0;
        } else if ((rc = rx_cursor_enter(c, child, level)) == RX_OK) {
            rx_tally_node(a, c->stack[c->depth - 1].node, c->stack[c->depth - 1].shape);
        }
        if ((++a->steps & 1023) == 0) /* a piece may be large: an observer sees that we move (R9) */
            rx_store(&t->slot->progress, rx_load_rlx(&t->slot->progress) + 1);
    }
    return rc == RX_END ? RX_OK : rc;
}

/* One piece: byte -1 is the root itself and its term. */
static int rx_tally_piece(struct rx_thread *t, struct rx_cursor *c, int byte, struct rx_tally *a)
{
    struct rx_node *root = rx_node_at(t->base, RX_ROOT_OFF);
    if (byte < 0) {
        rx_ref term = rx_load(&root->term);
        rx_tally_node(a, root, RX_K_N256);
        return term ? rx_tally_leaf(a, t->map, term, 1) : RX_OK;
    }
    rx_ref child = rx_load(rx_node_find(root, RX_K_N256, (uint8_t)byte));
    return child ? rx_tally_below(t, c, child, a) : RX_OK;
}

static int rx_stats_tree(struct rx_thread *t, struct rx_stats *stats)
{
    struct rx_cursor c;
    int rc = RX_OK, left;
    rx_cursor_init(&c);
    for (int byte = -1; byte < 256 && rc == RX_OK; byte++) {
        struct rx_tally a;
        do {
            memset(&a, 0, sizeof a);
            left = RX_OK;
            rc = rx_enter_read(t);
            if (rc)
                break;
            rc = rx_tally_piece(t, &c, byte, &a);
            left = rx_leave_read(t);
        } while (left == RX_I_EVICTED);
        rc = left ? left : rc;
        if (rc == RX_OK) {
            rx_tally_add(stats, &a);
            rc = rx_poll_interrupt();
        }
    }
    rx_cursor_free(&c);
    return rc;
}

static void rx_stats_counters(struct rx_thread *t, struct rx_stats *s)
{
    struct rx_db *db = t->db;
    const struct rx_lockhdr *hdr = db->hdr;
    uint64_t brk = rx_brk_bytes(db);
    s->keys = rx_db_count(db);
    s->generation = t->map->generation;
    s->epoch = rx_load(&hdr->epoch);
    s->capacity = t->map->capacity;
    (void)rx_map_refresh(t->map);
    s->file_size = __atomic_load_n(&t->map->size, __ATOMIC_RELAXED);
    s->growths = rx_load(&hdr->growths);
    s->copies = rx_load(&hdr->copies);
    s->takeovers = rx_load(&hdr->takeovers);
    s->evictions = rx_load(&hdr->evictions);
    s->reclaimed_bytes = rx_load(&hdr->reclaimed_bytes);
    s->reclaimed_cells = rx_load(&hdr->reclaimed_cells);
    s->scans = rx_load(&hdr->scans);
    for (uint32_t i = 0; i < rx_load32(&hdr->arena_high) && i < RX_ARENAS; i++)
        if (rx_load(&db->arenas[i].generation) == s->generation) {
            s->free_bytes += rx_load(&db->arenas[i].free_bytes);
            s->retired_bytes += rx_load(&db->arenas[i].retired_bytes);
        }
    for (uint32_t i = 0; i < rx_load32(&hdr->slot_high) && i < RX_SLOTS; i++)
        s->uids += rx_load32(&db->slots[i].process) != 0 && rx_load(&db->slots[i].uid) != 0;
    uint64_t known = s->used_bytes + s->free_bytes + s->retired_bytes + RX_HEAP - rx_node_size(RX_K_N256, 0);
    s->unused_bytes = brk > known ? brk - known : 0; /* what writers hold for their next cells */
}

int rx_index_stats(rx_index *h, struct rx_stats *stats)
{
    struct rx_thread *t;
    int rc = rx_call_begin(h, NULL, &t);
    if (rc)
        return rc;
    memset(stats, 0, sizeof *stats);
    (void)rx_reap_all(t->db); /* their space and their takeovers are told too */
    rc = rx_stats_tree(t, stats);
    if (rc == RX_OK)
        rx_stats_counters(t, stats);
    rx_call_end(t);
    return rc;
}

/* ---- uids -------------------------------------------------------------------------------- */

/*
 * How long the operation in this slot has been seen: from the first look that found it,
 * so a first look tells 0.  The notes are those of eviction (epoch.c); observers may mix,
 * which makes an age too small.
 */
static uint64_t rx_uid_age(struct rx_slot *s, uint64_t word)
{
    uint64_t progress = rx_load(&s->progress), now = (uint64_t)rx_now_ns();
    if (rx_load(&s->seen_word) == word && rx_load(&s->seen_progress) == progress) {
        uint64_t since = rx_load(&s->seen_ns);
        return now > since ? now - since : 0;
    }
    rx_store(&s->seen_ns, now);
    rx_store(&s->seen_progress, progress);
    rx_store(&s->seen_word, word);
    return 0;
}

int rx_index_uids(rx_index *h, struct rx_uid_info *out, size_t capacity, size_t *n)
{
    struct rx_thread *t;
    int rc = rx_call_begin(h, NULL, &t);
    *n = 0;
    if (rc)
        return rc;
    struct rx_db *db = t->db;
    (void)rx_reap_all(db); /* the dead are not shown */
    for (uint32_t i = 0; i < rx_load32(&db->hdr->slot_high) && i < RX_SLOTS; i++) {
        struct rx_slot *s = &db->slots[i];
        uint64_t uid = rx_load(&s->uid), word = rx_load(&s->word);
        if (uid == 0 || rx_load32(&s->process) == 0)
            continue;
        bool inside = word != 0 && !(word & RX_EVICTED);
        if (*n < capacity)
            out[*n] = (struct rx_uid_info){uid, rx_load32(&s->pid), rx_load32(&s->tid), (int)rx_load32(&s->kind),
                                           inside, inside ? rx_uid_age(s, word) : 0};
        ++*n;
    }
    rx_call_end(t);
    return *n > capacity ? RX_TOO_SMALL : RX_OK;
}

/* ---- one node ----------------------------------------------------------------------------- */

/* Inside an epoch.  RX_ABSENT: no node or leaf begins there. */
static int rx_inspect_leaf(struct rx_map *map, uint64_t offset, unsigned kind, struct rx_node_info *out)
{
    struct rx_leaf_view v;
    if (rx_leaf_view(map, rx_ref_make(offset, kind, 0), &v) != RX_OK)
        return RX_ABSENT;
    *out = (struct rx_node_info){.offset = offset, .kind = (int)kind, .prefix_len = (uint32_t)v.key_len};
    rx_copy_racy(out->prefix, v.key, v.key_len < sizeof out->prefix ? v.key_len : sizeof out->prefix);
    return RX_OK;
}

static int rx_inspect_at(struct rx_map *map, uint64_t offset, struct rx_node_info *out)
{
    struct rx_node *n;
    if (offset % 8 || !rx_in_file(map, offset, 8))
        return RX_ABSENT;
    uint64_t header = rx_load((const uint64_t *)(const void *)(map->base + offset));
    unsigned kind = rx_head_kind(header), shape = rx_head_shape(header), prefix_len = (unsigned)(header >> 16) & 0xffff;
    if (kind == RX_K_LEAF || kind == RX_K_BIG)
        return rx_inspect_leaf(map, offset, kind, out);
    if (!rx_kind_is_node(kind) ||
        rx_node_check(map, rx_ref_make(offset, shape, prefix_len), (uint32_t)(header >> 32), &n) != RX_OK)
        return RX_ABSENT;
    memset(out, 0, sizeof *out);
    out->offset = offset;
    out->kind = (int)kind;
    out->lock = rx_load(&n->lock);
    out->term = rx_load(&n->term);
    out->level = (uint32_t)(header >> 32);
    out->prefix_len = prefix_len;
    out->given = kind == RX_K_N256 ? 256 : (int)(header >> 8) & 0xff;
    out->slots = (int)rx_shape_slots(shape);
    out->live = rx_node_live(n, shape);
    size_t shown = prefix_len < sizeof out->prefix ? prefix_len : sizeof out->prefix;
    if (rx_in_file(map, offset, rx_node_fixed(shape) + (uint64_t)shown))
        rx_copy_racy(out->prefix, rx_node_prefix(n, shape), shown);
    out->children = rx_node_children(n, shape, out->child_byte, out->child_ref);
    return RX_OK;
}

int rx_inspect(rx_index *h, uint64_t offset, struct rx_node_info *out)
{
    struct rx_thread *t;
    int rc = rx_call_begin(h, NULL, &t), left;
    if (rc)
        return rc;
    do {
        left = RX_OK;
        rc = rx_enter_read(t);
        if (rc)
            break;
        rc = rx_inspect_at(t->map, offset ? offset : RX_ROOT_OFF, out);
        left = rx_leave_read(t);
    } while (left == RX_I_EVICTED);
    rx_call_end(t);
    return left ? left : rc;
}

/* Inside an epoch: the nodes from the root towards the key, and the leaf where they end, if any. */
static int rx_path_of(struct rx_map *map, const uint8_t *key, size_t key_len, uint64_t *offsets, size_t capacity,
                      size_t *n)
{
    rx_ref ref = RX_ROOT_OFF | RX_K_N256;
    uint32_t level = 0;
    *n = 0;
    for (;;) {
        struct rx_node *node;
        if (*n < capacity)
            offsets[*n] = rx_ref_off(ref);
        ++*n;
        if (rx_ref_is_leaf(ref))
            return RX_OK;
        int rc = rx_node_check(map, ref, level, &node);
        if (rc)
            return rc;
        unsigned shape = rx_ref_shape(ref), prefix_len = (unsigned)(rx_load((uint64_t *)(void *)node) >> 16) & 0xffff;
        if (!rx_in_file(map, rx_ref_off(ref), rx_node_fixed(shape) + (uint64_t)prefix_len))
            return rx_corrupt(rx_ref_off(ref), "a node's prefix leads outside the file");
        if (prefix_len > key_len - level || memcmp(rx_node_prefix(node, shape), key + level, prefix_len) != 0)
            return RX_OK;
        level += prefix_len;
        rx_ref *slot = level == key_len ? &node->term : rx_node_find(node, shape, key[level]);
        if (slot == NULL || (ref = rx_load(slot)) == 0)
            return RX_OK;
        if (level == key_len && !rx_ref_is_leaf(ref))
            return rx_corrupt((rx_off)((uint8_t *)node - map->base), "where a key ends hangs no leaf");
        level++;
    }
}

int rx_inspect_path(rx_index *h, const void *key, size_t key_len, uint64_t *offsets, size_t capacity, size_t *n)
{
    struct rx_thread *t;
    int rc = rx_call_begin(h, NULL, &t), left;
    *n = 0;
    if (rc)
        return rc;
    if (key_len > RX_KEY_MAX)
        key_len = RX_KEY_MAX; /* no path is longer */
    do {
        left = RX_OK;
        rc = rx_enter_read(t);
        if (rc)
            break;
        rc = rx_path_of(t->map, key, key_len, offsets, capacity, n);
        left = rx_leave_read(t);
    } while (left == RX_I_EVICTED);
    rx_call_end(t);
    if (left || rc)
        return left ? left : rc;
    return *n > capacity ? RX_TOO_SMALL : RX_OK;
}

/* ---- compaction ------------------------------------------------------------------------------ */

int rx_compact(rx_index *h, int64_t wait_ns)
{
    struct rx_thread *t;
    if (h->readonly)
        return rx_fail(RX_E_READONLY, 0, "nothing was changed");
    int rc = rx_call_begin(h, NULL, &t);
    if (rc)
        return rc;
    t->deadline_ns = rx_deadline(wait_ns);
    rc = rx_remap_thread(t); /* else another's copy that we have not seen yet would count as ours */
    if (rc == RX_OK)
        rc = rx_copy_and_rename(t, 0);
    rx_call_end(t);
    return rc;
}
