/*
 * super.c -- the superblock: sealing, checking, and the image of an empty file.
 */
#include "file.h"

void rx_super_seal_fixed(struct rx_super *super)
{
    rx_store32(&super->fixed_crc, rx_crc32c(0, super, offsetof(struct rx_super, fixed_crc)));
}

/*
 * State and checksum are one word, and each state's checksum covers only what is written
 * while the other holds: so the one store of the word takes the file from a whole "clean"
 * to a whole "in use" and back, wherever its writer dies.
 */
static uint32_t rx_state_crc(const struct rx_super *super, uint32_t state)
{
    bool clean = state == RX_STATE_CLEAN;
    size_t from = clean ? offsetof(struct rx_super, brk) : offsetof(struct rx_super, session);
    size_t to = clean ? offsetof(struct rx_super, reserved) : offsetof(struct rx_super, brk);
    return rx_crc32c(state, (const uint8_t *)super + from, to - from);
}

void rx_super_set_state(struct rx_super *super, uint32_t state)
{
    uint64_t word = state | (uint64_t)rx_state_crc(super, state) << 32;
    rx_store((uint64_t *)(void *)&super->state, word); /* commit */
}

void rx_super_seal_state(struct rx_super *super) { rx_super_set_state(super, super->state); }

/* Commit: the one store.  The checksum of "in use" does not cover it, that of "clean" is not made any more. */
void rx_super_doubt(struct rx_super *super) { rx_store(&super->log_least, RX_LEAST_DOUBTED); }

bool rx_super_is_live(const struct rx_super *super, const uint8_t boot_id[16])
{
    return memcmp(super->boot_id, boot_id, 16) == 0 && super->log_least != RX_LEAST_DOUBTED;
}

int rx_super_check_fixed(const struct rx_super *s, uint64_t file_size)
{
    if (file_size < RX_HEAP)
        return rx_fail(RX_E_FORMAT, 0, "%llu bytes are too few for a Rowex file", (unsigned long long)file_size);
    if (memcmp(s->magic, RX_MAGIC, 8) != 0)
        return rx_fail(RX_E_FORMAT, 0, "it does not begin with Rowex's magic bytes");
    if (s->endian != RX_ENDIAN_MARK)
        return rx_fail(RX_E_FORMAT, 0, "it was written by a machine of the other endianness");
    if (s->version != RX_VERSION)
        return rx_fail(RX_E_FORMAT, 0, "its format has version %u, this library knows version %u", s->version, RX_VERSION);
    if (rx_crc32c(0, s, offsetof(struct rx_super, fixed_crc)) != s->fixed_crc)
        return rx_corrupt(0, "the superblock's checksum does not match");
    if (s->word_bytes != 8 || s->header_size != RX_SUPER_SIZE)
        return rx_fail(RX_E_FORMAT, 0, "it has %u-byte words and a header of %u bytes, this library 8 and %u",
                       s->word_bytes, s->header_size, RX_SUPER_SIZE);
    if (s->capacity < RX_HEAP || s->capacity >= RX_OFF_MAX ||
        s->capacity % RX_EXTENT || s->checksum > 1 || s->generation == 0 || s->generation == RX_GENERATION_REPLACED)
        return rx_corrupt(0, "the superblock holds impossible values");
    if (s->durability < RX_D_PROCESS || s->durability > RX_D_PMEM)
        return rx_fail(RX_E_FORMAT, 0, "its durability level %u is not known to this version", s->durability);
    return RX_OK;
}

int rx_super_check(const struct rx_super *s, uint64_t file_size)
{
    int rc = rx_super_check_fixed(s, file_size);
    if (rc)
        return rc;
    if (s->state != RX_STATE_CLEAN && s->state != RX_STATE_IN_USE)
        return rx_corrupt(offsetof(struct rx_super, state), "the state is %u", s->state);
    if (rx_state_crc(s, s->state) != s->state_crc)
        return rx_corrupt(offsetof(struct rx_super, state_crc), "the state's checksum does not match");
    if (s->state == RX_STATE_CLEAN && (s->brk < RX_HEAP || s->brk > file_size || s->brk % RX_EXTENT))
        return rx_corrupt(offsetof(struct rx_super, brk), "the heap ends at %llu in a file of %llu bytes",
                          (unsigned long long)s->brk, (unsigned long long)file_size);
    if (file_size > s->capacity)
        return rx_corrupt(offsetof(struct rx_super, capacity), "the file is larger than its capacity");
    return RX_OK;
}
