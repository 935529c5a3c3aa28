/* One ordered table in memory: entries in sorted blocks under a sorted index of the blocks' lower
 * bounds.
 *
 * Two binary searches find a key, and both look at the key's first eight bytes beside the pointer
 * before they follow it, so a table of a million entries stays a few cache lines deep. A block that
 * becomes empty keeps its place until memory_table_tidy: whatever was removed since then finds room
 * again where it was, so that undoing changes in reverse order allocates nothing and cannot fail.
 */
#ifndef STORAGE_MEMORY_TABLE_H
#define STORAGE_MEMORY_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/base/span.h"
#include "storage/store.h"

/* Never changed once made. */
struct memory_entry {
    uint32_t value_size;
    uint8_t key_size;
    uint8_t bytes[]; /* key, value */
};

enum { MEMORY_BLOCK_SLOTS = 64 };

struct memory_slot {
    uint64_t prefix; /* first eight bytes of the key, big-endian */
    struct memory_entry *entry;
};

struct memory_block {
    uint8_t low[STORE_KEY_MAX]; /* no key in it is less; its lower neighbours' all are */
    uint8_t low_size;
    uint32_t count;
    struct memory_slot slots[MEMORY_BLOCK_SLOTS];
};

struct memory_index {
    uint64_t prefix; /* of the block's lower bound */
    struct memory_block *block;
};

struct memory_table {
    struct memory_index *index; /* ordered; the first block's bound is the empty key */
    size_t block_count;
    size_t block_capacity;
    uint64_t count; /* entries */
    uint64_t size;  /* bytes of keys and values */
};

/* Where an entry is, or would be inserted (slot may be one past its block's last). */
struct memory_place {
    size_t block;
    size_t slot;
};

void memory_table_init(struct memory_table *table);
/* Frees the entries too. */
void memory_table_deinit(struct memory_table *table);

/* NULL when there is no memory. */
struct memory_entry *memory_entry_create(struct span key, struct span value);
void memory_entry_destroy(struct memory_entry *entry);
struct span memory_entry_key(const struct memory_entry *entry);
struct span memory_entry_value(const struct memory_entry *entry);

/* The place of `key`; true when it is there. */
bool memory_table_find(const struct memory_table *table, struct span key, struct memory_place *out);
struct memory_entry *memory_table_at(const struct memory_table *table, struct memory_place place);

/* The first entry at or after `place`, or the last one before it; false when there is none. */
bool memory_table_forward(const struct memory_table *table, struct memory_place *place);
bool memory_table_back(const struct memory_table *table, struct memory_place *place);
/* The place behind the last entry. */
struct memory_place memory_table_end(const struct memory_table *table);

/* Takes `entry`, whose key must not be there; `place` is what memory_table_find gave for it. False:
 * no memory, nothing changed. */
bool memory_table_insert(struct memory_table *table, struct memory_place place,
                         struct memory_entry *entry);
/* Puts `entry` in the place of the one with the same key, which is handed back, the caller's. */
struct memory_entry *memory_table_replace(struct memory_table *table, struct memory_place place,
                                          struct memory_entry *entry);
/* Hands back what was there, the caller's. */
struct memory_entry *memory_table_remove(struct memory_table *table, struct memory_place place);

/* Gives up the block where `key` would be if it is empty. Ends the guarantee for what was removed
 * from it. */
void memory_table_tidy(struct memory_table *table, struct span key);

#endif
