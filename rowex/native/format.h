/*
 * format.h -- THE file format.  Every structure that is stored in the data file
 * or in NAME-lock is here and nowhere else; the static asserts are the spec.
 *
 * The data file NAME:
 *     0        superblock (8 KiB)
 *     8192     the root, a permanent Node256 (never replaced, prefix empty)
 *     65536    the heap: cells back to back; a zero header means "nothing more
 *              up to the next multiple of RX_EXTENT", so the heap can be walked
 *
 * The lock file NAME-lock is meaningful only while somebody has the index open;
 * the first opener resets it in place.
 *
 * A reference is `offset | kind` with the kind in the low 3 bits (offsets are
 * multiples of 8), the offset in bits 3..47, and for nodes the capacity's code in
 * bits 48..51, as in the header, and min(prefix_len, 255) in bits 56..63: so that a
 * lookup need not touch the header of a node without a prefix, and knows from the
 * reference alone where a node ends.  0 is "absent".
 */
#ifndef ROWEX_FORMAT_H
#define ROWEX_FORMAT_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t rx_off; /* byte offset in the data file, 0 = none */
typedef uint64_t rx_ref; /* tagged reference, 0 = absent */

#define RX_MAGIC "ROWEX\r\n\x1a"
#define RX_LOCK_MAGIC "ROWEXLCK"
#define RX_VERSION 2u
#define RX_LOCK_VERSION 3u /* of NAME-lock: users of one index at one time must agree */
#define RX_ENDIAN_MARK 0x01020304u

#define RX_SUPER_SIZE 8192u
#define RX_ROOT_OFF 8192u
#define RX_HEAP 65536u
#define RX_EXTENT 65536u          /* unit in which the break advances */
#define RX_KEY_MAX (1u << 20)     /* bytes of a key */
#define RX_VALUE_MAX (1ull << 38) /* bytes of a value */
#define RX_PREFIX_MAX 65535u      /* longer common prefixes become chains */
#define RX_OFF_MAX (1ull << 48)

/* ---- cell headers -------------------------------------------------------
 * One 8-byte word, low 4 bits = kind.  Sizes are in units of 8 bytes.
 *   LEAF     bits 4..6 pad, 7..17 key_len, 18..31 size, 32..63 crc
 *   node     bits 4..7 code of the capacity, 8..15 count, 16..31 prefix_len, 32..63 level
 *            (the size follows from shape and prefix_len)
 *   others   bits 4..7 zero, 8..63 size
 */
enum rx_kind {
    RX_K_END = 0,     /* nothing allocated from here to the next extent */
    RX_K_LEAF = 1,    /* small leaf: the cell is at most 1 KiB */
    RX_K_N4 = 2,
    RX_K_N16 = 3,
    RX_K_N48 = 4,
    RX_K_N256 = 5,
    RX_K_BIG = 6,     /* leaf of any size: struct rx_big */
    RX_K_WRAPPER = 7, /* struct rx_wrapper: what a key is, as its batch decides */
    RX_K_FREE = 8,    /* struct rx_free */
    RX_K_LIMBO = 9,   /* struct rx_limbo: retired cells waiting for readers */
    RX_K_BATCH = 10,  /* struct rx_batch: several changes that take effect at one instant */
};
#define RX_KIND_MASK 7u /* of a reference */
#define RX_REF_SHAPE_SHIFT 44 /* its bits 48..51 are the shape's 4..7 */
#define RX_REF_MANY (3ull << 50) /* of a Node48: more slots than a whole one */
#define RX_REF_OFF_MASK 0x0000FFFFFFFFFFF8ull
#define RX_CELL_MIN 16u

#define RX_LEAF_HEAD 8u /* key follows, then value, then 0..7 bytes of pad */

/*
 * Node.  Its shape (header byte 0) is its kind and, in the high 4 bits, the code of its
 * capacity: 0 the whole one, else fewer slots (of a Node48 perhaps more), as the bulk
 * builder makes them.  `count` (header byte 1) = given slots of Node4/16/48; for Node256
 * a hint of live children (never relied on).  level = absolute depth at which the
 * prefix begins; the children's byte is at depth level + prefix_len.
 * After `term` (the leaf whose key ends here) come the kind's key bytes or index, then
 * its slots, so that these alone lie where the capacity says, then the prefix:
 *   Node4    keys[4] pad[4]  slots[4]    code 1..3 that many                prefix at  64
 *   Node16   keys[16]        slots[16]   code 5..15 that many               prefix at 168
 *   Node48   index[256]      slots[48]   code 2 and 4..8 that many times 16 prefix at 664
 *   Node256                  slots[256]                                     prefix at 2072
 * A prefix lies 8 bytes earlier for each slot that is not there.  Index: 0 none, else slot+1.
 */
struct rx_node {
    uint8_t shape;
    uint8_t count;
    uint16_t prefix_len;
    uint32_t level;
    uint64_t lock; /* 0 free, RX_OBSOLETE, or a uid << 1 */
    rx_ref term;
};
#define RX_OBSOLETE 1ull

#define RX_NODE_HEAD 24u
#define RX_N4_KEYS 24u
#define RX_N4_SLOTS 32u
#define RX_N16_KEYS 24u
#define RX_N16_SLOTS 40u
#define RX_N48_INDEX 24u
#define RX_N48_SLOTS 280u
#define RX_N48_MOST 128u /* slots of the largest: above that a Node256 costs little more, and a step less */
#define RX_N256_SLOTS RX_NODE_HEAD
#define RX_N256_PREFIX 2072u
#define RX_NODE_MIN (RX_N4_SLOTS + 8u)

struct rx_big {
    uint64_t header; /* RX_K_BIG | units << 8 */
    uint32_t crc;
    uint32_t key_len;
    uint64_t value_len;
    uint8_t bytes[]; /* key, value */
};

struct rx_free {
    uint64_t header; /* RX_K_FREE | units << 8 */
    rx_off next;     /* in its owner's list of this class */
};

/*
 * A batch (transaction.c).  Its wrappers hang in the tree where leaves do; `state` alone says
 * what they stand for: committed, the item's leaf (none: the key is absent); else `old`.
 * All but state, progress, retired and the items' offsets is as it was before it was reachable.
 */
struct rx_wrapper {
    uint64_t header; /* RX_K_WRAPPER | units << 8 */
    rx_off batch;
    uint64_t index;  /* of its item */
    rx_ref old;      /* the leaf before; 0 none */
};
struct rx_batch_item {
    rx_ref leaf;    /* the new one; 0: the key is to be absent */
    rx_off wrapper; /* 0: not made */
    uint64_t key;   /* in the cell: offset:40 | length << 40 */
};
struct rx_batch {
    uint64_t header; /* RX_K_BATCH | units << 8 */
    uint64_t state;  /* uid << 2 | enum rx_batch_state */
    uint64_t count;
    uint64_t progress; /* bumped while its owner works: who waits for it sees that it lives; goes on from batch to batch */
    uint64_t retired;  /* items whose cells went to limbo; count + 1: this cell too */
    uint64_t patience; /* ns that it may stand still before who waits for it aborts it */
    uint64_t settled;  /* items whose wrappers are known to be out of the tree: whoever finishes it goes on there */
    uint64_t pad[1];
    struct rx_batch_item item[]; /* by key; then the keys */
};
enum rx_batch_state { RX_B_PENDING = 1, RX_B_COMMITTED = 2, RX_B_ABORTED = 3 };
#define RX_BATCH_KEY_SHIFT 40u

#define RX_LIMBO_ENTRIES 123u
struct rx_limbo {
    uint64_t header; /* RX_K_LIMBO | units << 8 */
    rx_off next;     /* younger block; stored last when this one is closed */
    uint64_t stamp;  /* epoch after which no reader can hold an entry */
    uint64_t count;  /* entries of a closed block; the open one's is in the arena */
    uint64_t logged; /* log entries below this number may name an entry: reused when they are durable */
    rx_off entry[RX_LIMBO_ENTRIES];
};

/* ---- free-list classes: exact by 8 to 1 KiB, by 64 to 4 KiB, then powers of 2 */
#define RX_SMALL_MAX 1024u
#define RX_MID_MAX 4096u
#define RX_SMALL_CLASSES 129u /* index size/8; 0 and 1 unused */
#define RX_MID_CLASSES 49u    /* (1024, 4096]: class k holds [1024 + 64 k, 1088 + 64 k) */
#define RX_LARGE_CLASSES 30u  /* (4096, ...): class k holds [4096 << k, 8192 << k) */
#define RX_CLASSES 208u       /* 129 + 49 + 30 */

/* ---- superblock --------------------------------------------------------- */
enum rx_state { RX_STATE_CLEAN = 1, RX_STATE_IN_USE = 2 };
enum rx_durability { RX_D_PROCESS = 1, RX_D_BATCH = 2, RX_D_COMMIT = 3, RX_D_PMEM = 4 };
enum rx_codec { /* of keys and of values; the core only stores them */
    RX_C_BYTES = 1, RX_C_STR = 2, RX_C_INT = 3, RX_C_TUPLE = 4, RX_C_MSGPACK = 5, RX_C_CUSTOM = 255
};

struct rx_super {
    /* fixed for the life of a generation, covered by fixed_crc */
    uint8_t magic[8];
    uint32_t version;
    uint32_t endian;      /* RX_ENDIAN_MARK as this machine stores it */
    uint32_t word_bytes;  /* 8 */
    uint32_t header_size; /* RX_SUPER_SIZE */
    uint8_t uuid[16];
    uint64_t generation; /* 1, 2, ...: one more at each copy and rename */
    uint64_t capacity;   /* bytes of address space that every process maps */
    uint64_t max_size;   /* bytes, 0 = none */
    uint32_t durability; /* enum rx_durability */
    uint32_t checksum;   /* 1 = leaves carry CRC-32C */
    uint32_t key_codec;
    uint32_t value_codec;
    uint8_t fixed_reserved[172];
    uint32_t fixed_crc; /* CRC-32C of the 252 bytes before */
    /* offset 256: rewritten at the first write and at the last close */
    uint32_t state;
    uint32_t state_crc; /* CRC-32C: in use, of 264..303; clean, of 304 to the free lists' end. One store with state */
    uint64_t session;   /* one more at every first write */
    uint8_t boot_id[16];
    uint64_t dev;
    uint64_t ino;
    uint64_t brk;   /* heap end at a clean close, multiple of RX_EXTENT */
    uint64_t count; /* keys at a clean close; keys at the start of this generation while in use */
    uint64_t log_position;    /* number of the first log entry that this file does not hold */
    uint64_t log_incarnation; /* 0: there never was a log */
    uint64_t free_bytes;      /* on the free lists at a clean close; only told, never relied on */
    uint64_t log_bytes;       /* where that entry begins in the log's stream of bytes */
    uint64_t log_segment;     /* and in which segment */
    uint64_t log_least;       /* of a checkpoint: without the log up to this entry it is no state that ever was; RX_LEAST_DOUBTED */
    uint64_t log_base;        /* number with which log_incarnation began: what one before it had beyond that is lost */
    uint8_t state_reserved[136];
    /* offset 512: free lists at a clean close */
    rx_off head[RX_CLASSES];
    rx_off tail[RX_CLASSES];
    uint8_t reserved[RX_SUPER_SIZE - 512 - 2 * 8 * RX_CLASSES];
};

#define RX_LEAST_DOUBTED UINT64_MAX /* log_least of a file in use: super.c */

/* ---- NAME-lock ---------------------------------------------------------- */
#define RX_PROCESSES 1024u
#define RX_SLOTS 4096u
#define RX_ARENAS 4096u
#define RX_SLOT_BITS 12u /* of a uid; the rest is a serial number */

struct rx_lockhdr {
    uint8_t magic[8];
    uint32_t version;
    uint32_t ready; /* 1: set up by the first opener */
    uint8_t uuid[16];
    uint64_t session;
    uint8_t pad0[24];
    /* line 1: read by every operation, written almost never */
    uint64_t generation; /* of the data file that NAME names; RX_GENERATION_REPLACED */
    uint64_t gate;       /* 0 open, else uid << 2 | enum rx_gate_kind */
    uint64_t epoch;      /* starts at 1 */
    uint64_t marked;     /* 1: the in-use mark is durable, stores are allowed */
    uint64_t dev, ino;   /* of the current generation */
    uint64_t base_count[2]; /* [generation & 1]: keys in the superblock when it was opened or built */
    /* line 2: written now and then */
    uint64_t brk;           /* bits 0..35 break in extents, 36..47 last claimer's arena, 48.. a tag */
    uint64_t allocated;     /* bytes of the file known to have blocks */
    uint64_t next_serial;   /* of uids */
    uint32_t slot_high;     /* slots in use lie below; their bytes are allocated */
    uint32_t arena_high;    /* likewise */
    uint64_t gate_progress; /* bumped by whoever holds the gate while it works */
    uint8_t pad2[24];
    /* line 3: counters for stats() */
    uint64_t growths, copies, takeovers, evictions, reclaimed_bytes, reclaimed_cells, scans, stat_reserved;
    /* line 4: the log (log.h): every change adds to the tail */
    uint64_t log_tail; /* number of the next entry:52 | arena of the last claimer:12 */
    uint8_t pad4[56];
    /* line 5: read by every writer, written at each flush */
    uint64_t log_durable;     /* entries below are durable: number:44 | turn:7 | record:1 | slot:12, whose rx_log_at says where */
    uint64_t log_size;        /* entries in the ring, a power of two; 0: there is no log, or it was not begun */
    uint64_t log_failed;      /* errno after which nothing more becomes durable; 0 none */
    uint64_t log_incarnation; /* 0: not begun, and nothing known of a log that could be gone on with */
    uint32_t log_awake;       /* futex: 0 when every flusher sleeps */
    uint32_t log_waiters;     /* who may sleep on log_moved; a hint after a kill: too high */
    uint64_t log_backlog;     /* bytes that puts may add to the log before it is durable; a hint: too high after a kill */
    uint64_t log_allowed;     /* how large log_backlog may be, so that the spare holds it and what removals need; 0: none */
    uint64_t log_room;        /* bytes left in the segment being written, when it was last synced */
    /* line 6: of the leader */
    uint64_t log_lead;     /* its uid; 0 none */
    uint64_t log_progress; /* bumped by its process while it works, and when a turn of another begins */
    uint64_t log_segments; /* number of the next segment */
    uint64_t log_term;     /* no segment of an older term is gone on with: a deposed leader may still write there */
    uint8_t pad6[24];
    uint32_t log_moved;    /* futex: bumped when log_durable rises, a leader leaves, or all fails */
    uint32_t log_vain;     /* leaders deposed alive since the last quick sync: the next may stand still for longer */
    /* line 7 */
    uint64_t log_base;       /* number with which this incarnation began */
    uint64_t log_checkpoint; /* byte of the stream at which the log goes on from the last checkpoint; a hint */
    uint64_t log_bytes;      /* end of what is durable in the stream: only told */
    uint8_t pad7[40];
    uint8_t reserved[4096 - 512];
};

struct rx_log_at { /* where in the log's bytes; of a leader, in its slot */
    uint64_t bytes;   /* of the stream, before it */
    uint64_t segment; /* term << 32 | number: the segment in which the next frame goes */
};

/*
 * The ring, in NAME-lock: entry n lies at n % log_size.  It names the leaf that was put or
 * removed, which is not reused before the entry is durable (limbo.c), so it needs no room
 * for keys and values.
 */
struct rx_log_entry {
    uint64_t number; /* n + 1, stored last: the entry is decided */
    uint64_t what;   /* leaf | enum rx_log_kind << 56 */
};
enum rx_log_kind {
    RX_L_PUT = 1,    /* the leaf's key has its value */
    RX_L_REMOVE = 2, /* the leaf's key is absent */
    RX_L_VOID = 3,   /* nothing happened: its writer died before its commit */
    RX_L_BATCH = 4,  /* all that a transaction cell lists */
};
#define RX_LOG_KIND_SHIFT 56u
#define RX_LOG_TAIL_SHIFT 12u    /* of log_tail */
#define RX_LOG_DURABLE_SHIFT 20u /* of log_durable */
#define RX_LOG_TURN (1ull << 13)  /* one more when a leader was deposed */
#define RX_LOG_TURNS (127ull << 13)
#define RX_LOG_RECORD (1ull << 12)
#define RX_LOG_TICKET_BITS 44u   /* of a ticket: incarnation << 44 | number + 1 */
#define RX_LOG_RING_MAX (1u << 18)
#define RX_LOG_RING_MIN (1u << 13)

#define RX_GENERATION_REPLACED UINT64_MAX /* hdr->generation: NAME no longer names this file */

enum rx_gate_kind { RX_GATE_COPY = 1, RX_GATE_CHECK = 2 };

struct rx_process { /* alive while its owner holds an OFD lock on byte RX_LOCK_PROCESS + index */
    uint64_t token; /* 0 free */
    uint32_t pid;   /* for people only, never for decisions */
    uint32_t flags; /* RX_P_* */
    uint64_t opened_ns;
    uint8_t pad[40];
};
#define RX_P_MEMBARRIER 1u /* its readers rely on others' membarrier */

struct rx_slot { /* one thread (or reader()/writer()) of one process */
    uint64_t uid;     /* serial << RX_SLOT_BITS | index; stored last when taken */
    uint64_t word;    /* 0 idle, RX_EVICTED, else epoch << 24 | seq << 1 | writer */
    uint64_t progress;/* bumped per MiB copied */
    uint32_t process; /* index + 1; compare-and-swapped from 0 to take the slot; cleared last */
    uint32_t pid;
    uint32_t tid;
    uint32_t kind;    /* enum rx_slot_kind */
    uint8_t pad[24];
    /* line 1: kept by observers, so that the owner's line stays its own */
    uint64_t seen_word; /* the word and progress that an observer saw ... */
    uint64_t seen_progress;
    uint64_t seen_ns; /* ... first at this CLOCK_MONOTONIC time */
    struct rx_log_at log_at[2]; /* one of them is named by log_durable, and outlives its owner */
    uint8_t pad1[8];
};
enum rx_slot_kind { RX_S_THREAD = 1, RX_S_READER = 2, RX_S_WRITER = 3, RX_S_FLUSHER = 4 };
#define RX_EVICTED (1ull << 63)
#define RX_WORD_EPOCH_SHIFT 24u
#define RX_WORD_WRITER 1ull

#define RX_RESERVED 32u      /* cells an operation may hold: see below */
#define RX_RSV_OP 0u         /* 0..23: the operation's own new cells */
#define RX_RSV_OP_MAX 24u
#define RX_RSV_LIMBO 24u     /* a limbo block being linked or unlinked */
#define RX_RSV_MISC 25u
#define RX_INTENT_LOCKS 4u
#define RX_INTENT_UNLINKED 3u

/*
 * What one writer owns.  It belongs to the uid in `owner`; with owner 0 it lies
 * idle with all its lists and the next writer borrows it as it is.  An arena of
 * another generation than the current counts as empty and is reset on borrowing.
 */
struct rx_arena {
    uint64_t owner;      /* uid or 0 */
    uint64_t generation; /* of the offsets below */
    uint64_t claim;      /* extents being claimed: from:36 | n:26 | state:2 */
    uint64_t bump;       /* next free byte of the current extent */
    uint64_t bump_end;
    int64_t count;       /* leaves put in minus leaves taken out */
    uint64_t limbo_head; /* oldest limbo block */
    uint64_t limbo_tail; /* open block's offset << 8 | its entry count; 0 none */
    /* line 1: the intent (design, R3) */
    uint64_t armed; /* 1: slot_off..limbo_after are valid and about to be committed */
    rx_off slot_off;
    rx_ref old_ref, new_ref;
    int64_t count_after;
    uint64_t limbo_after; /* limbo_tail after the unlinked cells were entered */
    uint64_t unlinked_count;
    uint64_t split; /* remainder of a cell being split, see alloc.c */
    /* line 2 */
    rx_off locks[RX_INTENT_LOCKS];       /* nodes locked or about to be */
    rx_off unlinked[RX_INTENT_UNLINKED]; /* cells that this commit takes out of the tree */
    uint64_t log_what;                   /* of its log entry */
    /* line 3.. */
    rx_off reserved[RX_RESERVED]; /* cells taken from the lists for the operation */
    uint64_t free_bytes;          /* on the lists; a hint after a kill */
    uint64_t retired_bytes;       /* in limbo; a hint after a kill */
    uint64_t nonempty[4];         /* bit c: head[c] may be non-zero */
    uint64_t limbo_blocks;        /* from limbo_head to limbo_tail; a hint after a kill */
    uint64_t log_claim;           /* log entry being claimed: number << 2 | enum rx_log_claim */
    rx_off head[RX_CLASSES];
    rx_off tail[RX_CLASSES]; /* meaningful while head is non-zero */
    rx_off batch;           /* the batch being applied, or left to be finished (settle.h); 0 none */
    int64_t batch_count;    /* count after it, once it is committed */
    uint64_t batch_counted; /* 1: count has it */
    uint8_t reserved_tail[8192 - 512 - 2 * 8 * RX_CLASSES - 24];
};

#define RX_LOCKFILE_PROCESSES 4096u
#define RX_LOCKFILE_SLOTS (RX_LOCKFILE_PROCESSES + RX_PROCESSES * 64u)
#define RX_LOCKFILE_ARENAS (RX_LOCKFILE_SLOTS + RX_SLOTS * 128u)
#define RX_LOCKFILE_RING (RX_LOCKFILE_ARENAS + (uint64_t)RX_ARENAS * 8192u)
#define RX_LOCKFILE_SIZE (RX_LOCKFILE_RING + (uint64_t)RX_LOG_RING_MAX * 16u)

/* ---- NAME-log: segments of a stream of frames (segment.c); NAME-checkpoint is a data file -- */
#define RX_SEGMENT_MAGIC "ROWEXSEG"
#define RX_SEGMENT_VERSION 2u
#define RX_SEGMENT_HEAD 4096u
struct rx_segment {
    uint8_t magic[8];
    uint32_t version;
    uint32_t crc;         /* CRC-32C of what follows */
    uint8_t uuid[16];     /* of the index */
    uint64_t id;          /* term << 32 | number; also the file's name */
    uint64_t incarnation;
    uint64_t bytes;       /* of the stream, before its first frame */
    uint64_t first;       /* number of the first entry */
    uint64_t size;        /* of the file */
    uint8_t reserved[RX_SEGMENT_HEAD - 72];
};
/* A frame: this, then entries {u64 kind:3 | key_len:21 | value_len:40, key, value}, then 0..7 bytes of pad. */
struct rx_log_frame {
    uint32_t crc;   /* CRC-32C of what follows, seeded with uuid, incarnation and position (R13) */
    uint32_t durable; /* low half of the number below which all was durable when this was written */
    uint64_t shape; /* entries:24 | bytes of payload:40 */
};
/* The shape of a witness, a frame of nothing: behind what was synced, it says that all before it is durable. */
#define RX_FRAME_WITNESS (0x57544e5353ull << 24)

/* byte ranges for open-file-description locks, beyond the end of the files */
#define RX_LOCK_OPENING (1ull << 40)       /* NAME-lock: exclusive while opening, closing, marking */
#define RX_LOCK_USERS ((1ull << 40) + 1)   /* NAME-lock and the data file: shared by every user */
#define RX_LOCK_CHECKPOINT ((1ull << 40) + 3) /* NAME-lock: exclusive while a checkpoint is made */
#define RX_LOCK_GROWING ((1ull << 40) + 2) /* NAME-lock: exclusive while zeros are appended for want of fallocate(2) */
#define RX_LOCK_PROCESS ((1ull << 40) + 64) /* NAME-lock: + index, exclusive by the process */

#define RX_ASSERT_AT(type, field, at) \
    _Static_assert(offsetof(type, field) == (at), #type "." #field " moved")
RX_ASSERT_AT(struct rx_node, lock, 8);
RX_ASSERT_AT(struct rx_node, term, 16);
_Static_assert(sizeof(struct rx_node) == RX_NODE_HEAD, "node header");
_Static_assert(RX_N4_KEYS == RX_NODE_HEAD && RX_N4_SLOTS == RX_N4_KEYS + 8, "Node4: slots are aligned");
_Static_assert(RX_N16_KEYS == RX_NODE_HEAD && RX_N16_SLOTS == RX_N16_KEYS + 16, "Node16");
_Static_assert(RX_N48_INDEX == RX_NODE_HEAD && RX_N48_SLOTS == RX_N48_INDEX + 256, "Node48");
_Static_assert(RX_N256_PREFIX == RX_N256_SLOTS + 256 * 8, "Node256");
RX_ASSERT_AT(struct rx_big, crc, 8);
RX_ASSERT_AT(struct rx_big, value_len, 16);
RX_ASSERT_AT(struct rx_big, bytes, 24);
RX_ASSERT_AT(struct rx_free, next, 8);
RX_ASSERT_AT(struct rx_limbo, entry, 40);
_Static_assert(sizeof(struct rx_limbo) == 1024, "limbo block");
_Static_assert(sizeof(struct rx_wrapper) == 32 && sizeof(struct rx_batch_item) == 24, "wrapper, item");
RX_ASSERT_AT(struct rx_batch, item, 64);
RX_ASSERT_AT(struct rx_super, uuid, 24);
RX_ASSERT_AT(struct rx_super, generation, 40);
RX_ASSERT_AT(struct rx_super, capacity, 48);
RX_ASSERT_AT(struct rx_super, max_size, 56);
RX_ASSERT_AT(struct rx_super, durability, 64);
RX_ASSERT_AT(struct rx_super, checksum, 68);
RX_ASSERT_AT(struct rx_super, key_codec, 72);
RX_ASSERT_AT(struct rx_super, value_codec, 76);
RX_ASSERT_AT(struct rx_super, fixed_crc, 252);
RX_ASSERT_AT(struct rx_super, state, 256);
RX_ASSERT_AT(struct rx_super, session, 264);
RX_ASSERT_AT(struct rx_super, brk, 304);
RX_ASSERT_AT(struct rx_super, log_least, 360);
RX_ASSERT_AT(struct rx_super, log_base, 368);
RX_ASSERT_AT(struct rx_super, head, 512);
_Static_assert(sizeof(struct rx_super) == RX_SUPER_SIZE, "superblock");
RX_ASSERT_AT(struct rx_lockhdr, generation, 64);
RX_ASSERT_AT(struct rx_lockhdr, brk, 128);
RX_ASSERT_AT(struct rx_lockhdr, growths, 192);
RX_ASSERT_AT(struct rx_lockhdr, log_tail, 256);
RX_ASSERT_AT(struct rx_lockhdr, log_durable, 320);
RX_ASSERT_AT(struct rx_lockhdr, log_lead, 384);
RX_ASSERT_AT(struct rx_lockhdr, log_base, 448);
_Static_assert(sizeof(struct rx_log_entry) == 16 && sizeof(struct rx_log_frame) == 16, "log entry, frame");
_Static_assert(sizeof(struct rx_segment) == RX_SEGMENT_HEAD, "segment");
_Static_assert(sizeof(struct rx_lockhdr) == 4096, "lock header");
_Static_assert(sizeof(struct rx_process) == 64, "process entry");
_Static_assert(sizeof(struct rx_slot) == 128, "slot: two cache lines");
RX_ASSERT_AT(struct rx_slot, seen_word, 64);
RX_ASSERT_AT(struct rx_arena, armed, 64);
RX_ASSERT_AT(struct rx_arena, locks, 128);
RX_ASSERT_AT(struct rx_arena, reserved, 192);
RX_ASSERT_AT(struct rx_arena, head, 512);
_Static_assert(sizeof(struct rx_arena) == 8192, "arena");
_Static_assert(RX_SMALL_CLASSES + RX_MID_CLASSES + RX_LARGE_CLASSES == RX_CLASSES, "classes");
_Static_assert(RX_SLOTS == 1u << RX_SLOT_BITS, "uids name their slot");

#endif
