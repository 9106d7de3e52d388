/*
 * mutate.h -- for fuzz_bytes.c: a script says what is changed in valid files, in terms of what stands
 * there (a cell, a frame, a field), so that a small file keeps a case and still means the same when the
 * files are made anew.  Any bytes are a script.
 */
#ifndef ROWEX_MUTATE_H
#define ROWEX_MUTATE_H
#include "images.h"

#define SCRIPT_ITEMS 24u
enum { SEAL_SUPER = 1, SEAL_LEAVES = 2, SEAL_LOG = 4, NOT_CLAIMED = 8, READ_ONLY = 16 };

struct change {
    uint8_t what;
    uint8_t file;   /* of the target's, modulo */
    uint16_t field; /* which word or byte of the place, modulo */
    uint16_t place, other; /* cells or frames, modulo */
    uint64_t value;
};
struct script { uint8_t target, flags; uint16_t count; uint32_t way; struct change change[SCRIPT_ITEMS]; };
#define SCRIPT_HEAD offsetof(struct script, change)

static size_t script_bytes(const struct script *s) { return SCRIPT_HEAD + s->count * sizeof s->change[0]; }
static unsigned script_kind(const struct script *s) { return s->target % TARGETS; }

/* Values that are a limit of something. */
static uint64_t edge_value(uint64_t v, uint64_t now, uint64_t size)
{
    static const uint64_t plain[] = {0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 65536, 1u << 20, (1u << 20) + 1, 1u << 24,
                                     INT32_MAX, 1ull << 31, UINT32_MAX, 1ull << 32, 1ull << 38, (1ull << 40) - 1, 1ull << 47,
                                     (1ull << 48) - 8, 1ull << 48, 1ull << 52, INT64_MAX, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
    size_t count = sizeof plain / sizeof *plain;
    switch (v % 8) {
    case 0: return now + 1 + (v >> 8) % 16;
    case 1: return now - 1 - (v >> 8) % 16;
    case 2: return size - (v >> 8) % 64;
    case 3: return now ^ 1ull << (v >> 8) % 64;
    case 4: return v >> 3;
    default: return plain[(v >> 8) % count];
    }
}

/* The bits [shift, shift + bits) of the word become `to`. */
static void set_bits(uint8_t *at, unsigned shift, unsigned bits, uint64_t to)
{
    uint64_t mask = (bits == 64 ? 0 : 1ull << bits) - 1;
    image_set(at, (image_word(at) & ~(mask << shift)) | (to & mask) << shift);
}

/* ---- a heap -------------------------------------------------------------------------------- */

static void change_header(struct image_file *f, uint8_t *cell, const struct change *c)
{
    static const struct { uint8_t shift, bits; } leaf[] = {{4, 3}, {7, 11}, {18, 14}, {32, 32}, {0, 4}},
        node[] = {{8, 8}, {16, 16}, {32, 32}, {0, 4}, {4, 4}}, sized[] = {{8, 56}, {0, 4}, {4, 4}};
    uint64_t header = image_word(cell), kind = header & 15;
    if (kind == RX_K_BIG && c->field % 3) {
        uint64_t at = c->field % 3 == 1 ? 12 : 16;
        set_bits(cell + at, 0, at == 12 ? 32 : 64, edge_value(c->value, image_word(cell + at), f->size));
        return;
    }
    unsigned shift, bits;
    if (kind == RX_K_LEAF) {
        shift = leaf[c->field % 5].shift, bits = leaf[c->field % 5].bits;
    } else if (rx_kind_is_node((unsigned)kind)) {
        shift = node[c->field % 5].shift, bits = node[c->field % 5].bits;
    } else {
        shift = sized[c->field % 3].shift, bits = sized[c->field % 3].bits;
    }
    set_bits(cell, shift, bits, edge_value(c->value, header >> shift & ((1ull << bits) - 1), f->size));
}

static uint64_t ref_to(const struct image_file *f, uint16_t number)
{
    uint32_t at = f->place[number % f->places];
    uint64_t header = image_word(f->bytes + at);
    bool node = rx_kind_is_node(rx_head_kind(header));
    return rx_ref_make(at, header & (node ? 0xFF : 7), node ? header >> 16 & 0xFFFF : 0);
}

/* A batch and its wrapper, made of what is free at the heap's end, hang where `slot` is. */
static void plant_batch(struct image_file *f, uint8_t *slot, const struct change *c)
{
    uint64_t at = 0;
    for (size_t i = f->places; at == 0 && i-- > 0;)
        if ((image_word(f->bytes + f->place[i]) & 15) == RX_K_FREE && rx_cell_size(image_word(f->bytes + f->place[i])) >= 192)
            at = f->place[i];
    if (at == 0 || at + 192 > f->pages * IMAGE_PAGE)
        return;
    uint64_t size = rx_cell_size(image_word(f->bytes + at)), batch = at + 32;
    uint8_t *w = f->bytes + at, *b = f->bytes + batch;
    memset(w, 0, 192);
    image_set(w, rx_head_sized(RX_K_WRAPPER, 32));
    image_set(w + 8, batch);
    image_set(w + 24, image_word(slot));
    image_set(b, rx_head_sized(RX_K_BATCH, size - 32));
    image_set(b + 8, (c->value >> 8) << 2 | c->value % 4);
    image_set(b + 16, 1);
    image_set(b + 64, c->field % 2 ? ref_to(f, c->other) : 0);
    image_set(b + 72, at);
    image_set(b + 80, 88ull | 4ull << RX_BATCH_KEY_SHIFT);
    image_set(slot, rx_ref_make(at, RX_K_WRAPPER, 0));
}

static void change_heap(struct image_file *f, const struct change *c)
{
    uint8_t *cell = f->bytes + f->place[c->place % f->places], *other = f->bytes + f->place[c->other % f->places];
    uint64_t size = rx_cell_size(image_word(cell)), room = f->pages * IMAGE_PAGE - (uint64_t)(cell - f->bytes);
    if (size < 16 || size > room)
        size = 16;
    uint8_t *word = cell + c->field % (size / 8) * 8;
    uint64_t first = f->places > 1 ? f->place[1] : RX_HEAP;
    switch (c->what % 16) {
    case 0: cell[c->field % size] ^= (uint8_t)(1u << c->value % 8); break;
    case 1: cell[c->field % size] = (uint8_t)c->value; break;
    case 2: case 3: image_set(word, ref_to(f, c->other)); break; /* shared, or a cycle */
    case 4: image_set(word, (uint64_t)(other - f->bytes) | c->value % 8); break; /* as another kind */
    case 5: image_set(word, (ref_to(f, c->other) & ~RX_REF_OFF_MASK) | ((uint64_t)(other - f->bytes) + c->value % 64 * 8)); break;
    case 6: image_set(word, edge_value(c->value, image_word(word), f->size)); break;
    case 7: case 8: case 9: change_header(f, cell, c); break;
    case 10: { /* over another: cells overlap */
        uint64_t n = 8 + c->value % size, left = f->pages * IMAGE_PAGE - (uint64_t)(other - f->bytes);
        memmove(other, cell, n < left ? n : left);
        break;
    }
    case 11: image_set(f->bytes + c->field % 276 * 8, edge_value(c->value, image_word(f->bytes + c->field % 276 * 8), f->size)); break;
    case 12: image_set(f->bytes + 512 + c->field % 416 * 8, f->place[c->other % f->places] + c->value % 2 * 8); break;
    case 13: image_set(f->bytes + (first & ~7ull) + c->value % (f->pages * IMAGE_PAGE - first) / 8 * 8, c->value >> 20); break;
    case 14: plant_batch(f, word, c); break;
    default: f->size = c->value % 4 ? f->size / 4096 * 4096 - c->value % 4 * 4096 : c->value % (f->size + 1); break;
    }
}

/* ---- log and lock file ------------------------------------------------------------------------ */

static void change_entry(struct image_file *f, uint64_t frame, const struct change *c)
{
    uint64_t at = frame + 16;
    for (unsigned skip = c->other % 8; skip; skip--) {
        uint64_t head = image_word(f->bytes + at), next = at + 8 + (head >> 3 & 0x1FFFFF) + (head >> 24);
        if (next + 8 > f->size || next < at)
            break;
        at = next;
    }
    unsigned which = c->field % 3, shift = which == 0 ? 0 : which == 1 ? 3 : 24;
    if (at + 8 <= f->pages * IMAGE_PAGE)
        set_bits(f->bytes + at, shift, which == 0 ? 3 : which == 1 ? 21 : 40, edge_value(c->value, image_word(f->bytes + at) >> shift, f->size));
}

static void change_segment(struct image_file *f, const struct change *c)
{
    uint64_t at = f->places ? f->place[c->place % f->places] : 0, to = f->places ? f->place[c->other % f->places] : 0;
    uint64_t room = f->pages * IMAGE_PAGE, low = at < to ? at : to, high = at < to ? to : at;
    switch (c->what % 10) {
    case 0: f->bytes[(at + c->field) % room] ^= (uint8_t)(1u << c->value % 8); break;
    case 1: f->bytes[(at + c->field) % room] = (uint8_t)c->value; break;
    case 2: case 3: {
        uint8_t *word = f->bytes + (c->field % 9 == 1 ? 8 : c->field % 9 * 8);
        image_set(word, edge_value(c->value, image_word(word), f->size));
        break;
    }
    case 4: set_bits(f->bytes + at + 8, 0, 24, edge_value(c->value, image_word(f->bytes + at + 8) & 0xFFFFFF, 0)); break;
    case 5: set_bits(f->bytes + at + 8, 24, 40, edge_value(c->value, image_word(f->bytes + at + 8) >> 24, f->size)); break;
    case 6: change_entry(f, at, c); break;
    case 7: set_bits(f->bytes + at, 32, 32, edge_value(c->value, image_word(f->bytes + at) >> 32, 0)); break;
    case 8: memmove(f->bytes + at, f->bytes + to, room - high < 64 + c->field % 4096u ? room - high : 64 + c->field % 4096u); break;
    default:
        if (c->value % 3 == 0)
            f->size = c->value % (f->size + 1);
        else
            memset(f->bytes + low, 0, c->value % 3 == 1 ? room - low : high - low);
    }
}

/* Words that are not zero, and those beside them. */
static void change_lock(struct image_file *f, const struct change *c)
{
    uint64_t words = f->pages * (IMAGE_PAGE / 8), at = ((uint64_t)c->place << 8 ^ c->field) % words, from = c->other % words;
    if (c->what & 1)
        for (uint64_t step = 0; step < words && image_word(f->bytes + at * 8) == 0; step++)
            at = (at + 1) % words;
    if (c->what & 2)
        at = c->field % 64; /* of the header */
    uint8_t *word = f->bytes + at * 8;
    switch (c->what >> 2 & 7) {
    case 0: word[c->value % 8] ^= (uint8_t)(1u << (c->value >> 8) % 8); break;
    case 1: word[c->value % 8] = (uint8_t)(c->value >> 8); break;
    case 2: image_set(word, image_word(f->bytes + from * 8)); break;
    case 3: image_set(word, RX_HEAP + c->value % 131072 / 8 * 8); break;
    case 4: set_bits(word, 0, 56, RX_HEAP + c->value % 131072 / 8 * 8); break;
    case 5: set_bits(word, 56, 8, c->value); break;
    case 6: memset(f->bytes + c->value % f->pages * IMAGE_PAGE, 0, IMAGE_PAGE); break;
    default: image_set(word, edge_value(c->value, image_word(word), f->size)); break;
    }
    if (c->value % 97 == 0)
        f->size = c->value >> 8 & 1 ? c->value % (f->size + 1) : 4096;
}

/* ---- checksums made right ------------------------------------------------------------------ */

static void seal_leaf(struct image_file *f, uint64_t at)
{
    uint8_t *cell = f->bytes + at;
    uint64_t header = image_word(cell), size = rx_cell_size(header), room = f->pages * IMAGE_PAGE - at;
    struct rx_leaf_view v = {.key = cell + RX_LEAF_HEAD};
    if (size == 0 || size > room)
        return;
    if ((header & 15) == RX_K_LEAF) {
        v.key_len = rx_leaf_key_len(header);
        v.value_len = rx_leaf_value_len(header);
    } else if ((header & 15) == RX_K_BIG && size >= sizeof(struct rx_big)) {
        v.key = cell + sizeof(struct rx_big);
        v.key_len = image_word(cell + 8) >> 32;
        v.value_len = image_word(cell + 16);
    } else {
        return;
    }
    v.value = v.key + v.key_len;
    if (v.key_len > size || v.value_len > size || (uint64_t)(v.value - cell) + v.value_len > room)
        return;
    uint32_t crc = rx_leaf_crc(&v);
    memcpy((header & 15) == RX_K_LEAF ? cell + 4 : cell + 8, &crc, 4);
}

static void seal_segment(struct image_file *f)
{
    struct rx_segment *head = (void *)f->bytes;
    head->crc = rx_crc32c(0, head->uuid, sizeof *head - offsetof(struct rx_segment, uuid));
    for (size_t i = 0; i < f->places; i++) {
        uint8_t *at = f->bytes + f->place[i];
        uint64_t shape = image_word(at + 8), room = f->pages * IMAGE_PAGE - f->place[i] - 16;
        uint64_t size = shape == RX_FRAME_WITNESS ? 0 : ((shape >> 24) + 7) & ~7ull;
        uint32_t crc = rx_frame_seed(head->uuid, head->incarnation, head->bytes + f->place[i] - RX_SEGMENT_HEAD);
        crc = rx_crc32c(rx_crc32c(crc, at + 4, 12), at + 16, size < room ? size : room);
        memcpy(at, &crc, 4);
    }
}

static void seal(struct image *im, unsigned flags)
{
    for (size_t i = 0; i < im->files; i++) {
        struct image_file *f = &im->file[i];
        if (f->class == SEGMENT_FILE && (flags & SEAL_LOG))
            seal_segment(f);
        if (f->class != DATA_FILE)
            continue;
        for (size_t k = 0; k < f->places && (flags & SEAL_LEAVES); k++)
            seal_leaf(f, f->place[k]);
        if (flags & SEAL_SUPER) {
            rx_super_seal_fixed((void *)f->bytes);
            rx_super_seal_state((void *)f->bytes);
        }
    }
}

static void script_apply(const struct script *s, struct image *im)
{
    for (unsigned i = 0; i < s->count && i < SCRIPT_ITEMS; i++) {
        struct image_file *f = &im->file[s->change[i].file % im->files];
        if (f->size < RX_HEAP && f->class == DATA_FILE)
            continue; /* cut off */
        if (f->class == DATA_FILE)
            change_heap(f, &s->change[i]);
        else if (f->class == LOCK_FILE)
            change_lock(f, &s->change[i]);
        else
            change_segment(f, &s->change[i]);
    }
    seal(im, s->flags);
}

/* ---- scripts from scripts ------------------------------------------------------------------ */

static struct change change_random(uint64_t *dice)
{
    uint64_t a = fuzz_next(dice), b = fuzz_next(dice);
    struct change c = {(uint8_t)a, (uint8_t)(a >> 8), (uint16_t)(a >> 16), (uint16_t)(a >> 32), (uint16_t)(a >> 48), b};
    if (b % 3 == 0)
        c.field %= 16;
    if (b % 5 == 0)
        c.place %= 24;
    if (b % 7 == 0)
        c.value >>= 32 + b % 31;
    return c;
}

static void script_mutate(struct script *s, const struct script *other, uint64_t *dice)
{
    uint64_t rounds = 1 + fuzz_below(dice, 3);
    while (rounds--) {
        uint64_t at = fuzz_below(dice, s->count);
        switch (fuzz_below(dice, 8)) {
        case 0: case 1: case 2:
            if (s->count < SCRIPT_ITEMS)
                s->change[s->count++] = change_random(dice);
            break;
        case 3: /* with one field drawn anew */
            if (s->count) {
                struct change c = change_random(dice), *into = &s->change[at];
                uint64_t which = fuzz_below(dice, 6);
                *into = (struct change){which == 0 ? c.what : into->what, which == 1 ? c.file : into->file,
                                        which == 2 ? c.field : into->field, which == 3 ? c.place : into->place,
                                        which == 4 ? c.other : into->other, which == 5 ? c.value : into->value};
            }
            break;
        case 4:
            if (s->count)
                s->change[at] = s->change[--s->count];
            break;
        case 5: s->flags ^= (uint8_t)(1u << fuzz_below(dice, 5)); break;
        case 6: s->way = (uint32_t)fuzz_next(dice); break;
        default:
            if (other->target == s->target)
                for (unsigned i = (unsigned)fuzz_below(dice, other->count); i < other->count && s->count < SCRIPT_ITEMS; i++)
                    s->change[s->count++] = other->change[i];
        }
    }
}
#endif
