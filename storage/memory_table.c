#include "storage/memory_table.h"

#include <assert.h>
#include <stdlib.h>

#include "broker/base/bytes.h"

enum { MEMORY_INDEX_MIN = 8 };

static uint64_t memory_prefix(struct span key)
{
    uint8_t bytes[8] = {0};
    memcpy(bytes, key.data, key.size < sizeof bytes ? key.size : sizeof bytes);
    return bytes_get_be64(bytes);
}

/* Zeros stand for missing bytes in a prefix, so equal prefixes decide nothing and unequal ones
 * everything. */
static int memory_compare(uint64_t prefix_a, struct span a, uint64_t prefix_b, struct span b)
{
    if (prefix_a != prefix_b) {
        return prefix_a < prefix_b ? -1 : 1;
    }
    return span_compare(a, b);
}

void memory_table_init(struct memory_table *table)
{
    *table = (struct memory_table){0};
}

void memory_table_deinit(struct memory_table *table)
{
    for (size_t i = 0; i < table->block_count; i++) {
        struct memory_block *block = table->index[i].block;
        for (uint32_t slot = 0; slot < block->count; slot++) {
            free(block->slots[slot].entry);
        }
        free(block);
    }
    free(table->index);
    memory_table_init(table);
}

struct memory_entry *memory_entry_create(struct span key, struct span value)
{
    assert(key.size <= STORE_KEY_MAX);
    if (value.size > UINT32_MAX) {
        return NULL;
    }
    struct memory_entry *entry = malloc(sizeof *entry + key.size + value.size);
    if (entry == NULL) {
        return NULL;
    }
    entry->key_size = (uint8_t)key.size;
    entry->value_size = (uint32_t)value.size;
    memcpy(entry->bytes, key.data, key.size);
    if (value.size > 0) {
        memcpy(entry->bytes + key.size, value.data, value.size);
    }
    return entry;
}

void memory_entry_destroy(struct memory_entry *entry)
{
    free(entry);
}

struct span memory_entry_key(const struct memory_entry *entry)
{
    return span_of(entry->bytes, entry->key_size);
}

struct span memory_entry_value(const struct memory_entry *entry)
{
    return span_of(entry->bytes + entry->key_size, entry->value_size);
}

static uint64_t memory_entry_size(const struct memory_entry *entry)
{
    return (uint64_t)entry->key_size + entry->value_size;
}

static struct span memory_block_low(const struct memory_block *block)
{
    return span_of(block->low, block->low_size);
}

/* The last block whose bound is not greater than `key`; there must be one. */
static size_t memory_table_block(const struct memory_table *table, uint64_t prefix, struct span key)
{
    size_t low = 0;
    size_t high = table->block_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        const struct memory_index *index = &table->index[middle];
        if (memory_compare(index->prefix, memory_block_low(index->block), prefix, key) <= 0) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

bool memory_table_find(const struct memory_table *table, struct span key, struct memory_place *out)
{
    *out = (struct memory_place){0, 0};
    if (table->block_count == 0) {
        return false;
    }
    uint64_t prefix = memory_prefix(key);
    out->block = memory_table_block(table, prefix, key);
    const struct memory_block *block = table->index[out->block].block;
    size_t low = 0;
    size_t high = block->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct memory_slot *slot = &block->slots[middle];
        int order = memory_compare(slot->prefix, memory_entry_key(slot->entry), prefix, key);
        if (order == 0) {
            out->slot = middle;
            return true;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    out->slot = low;
    return false;
}

struct memory_entry *memory_table_at(const struct memory_table *table, struct memory_place place)
{
    assert(place.block < table->block_count);
    assert(place.slot < table->index[place.block].block->count);
    return table->index[place.block].block->slots[place.slot].entry;
}

bool memory_table_forward(const struct memory_table *table, struct memory_place *place)
{
    for (; place->block < table->block_count; place->block++, place->slot = 0) {
        if (place->slot < table->index[place->block].block->count) {
            return true;
        }
    }
    return false;
}

bool memory_table_back(const struct memory_table *table, struct memory_place *place)
{
    while (place->slot == 0) {
        if (place->block == 0) {
            return false;
        }
        place->block--;
        place->slot = table->index[place->block].block->count;
    }
    place->slot--;
    return true;
}

struct memory_place memory_table_end(const struct memory_table *table)
{
    return (struct memory_place){.block = table->block_count, .slot = 0};
}

/* Room for one more block in the index. */
static bool memory_table_reserve(struct memory_table *table)
{
    if (table->block_count < table->block_capacity) {
        return true;
    }
    size_t capacity = table->block_capacity == 0 ? MEMORY_INDEX_MIN : table->block_capacity * 2;
    struct memory_index *index = realloc(table->index, capacity * sizeof *index);
    if (index == NULL) {
        return false;
    }
    table->index = index;
    table->block_capacity = capacity;
    return true;
}

/* An empty block with the bound `low`, which becomes the one at `at`; NULL: no memory. */
static struct memory_block *memory_table_add_block(struct memory_table *table, size_t at,
                                                   struct span low)
{
    if (!memory_table_reserve(table)) {
        return NULL;
    }
    struct memory_block *block = malloc(sizeof *block);
    if (block == NULL) {
        return NULL;
    }
    block->count = 0;
    block->low_size = (uint8_t)low.size;
    if (low.size > 0) {
        memcpy(block->low, low.data, low.size);
    }
    memmove(&table->index[at + 1], &table->index[at],
            (table->block_count - at) * sizeof table->index[0]);
    table->index[at] = (struct memory_index){.prefix = memory_prefix(low), .block = block};
    table->block_count++;
    return block;
}

/* Makes room in the full block of `place` for `key`. Behind the last entry of the table the block
 * stays full and a new one begins, since most tables grow at their right edge; elsewhere it is cut
 * in halves. */
static bool memory_table_split(struct memory_table *table, struct memory_place *place,
                               struct span key)
{
    struct memory_block *left = table->index[place->block].block;
    bool at_edge = place->slot == left->count && place->block + 1 == table->block_count;
    uint32_t keep = at_edge ? left->count : left->count / 2;
    struct span low = at_edge ? key : memory_entry_key(left->slots[keep].entry);
    struct memory_block *right = memory_table_add_block(table, place->block + 1, low);
    if (right == NULL) {
        return false;
    }
    right->count = left->count - keep;
    memcpy(right->slots, left->slots + keep, right->count * sizeof right->slots[0]);
    left->count = keep;
    if (at_edge || place->slot > keep) {
        place->block++;
        place->slot -= keep;
    }
    return true;
}

bool memory_table_insert(struct memory_table *table, struct memory_place place,
                         struct memory_entry *entry)
{
    struct span key = memory_entry_key(entry);
    if (table->block_count == 0 && memory_table_add_block(table, 0, span_of("", 0)) == NULL) {
        return false;
    }
    if (table->index[place.block].block->count == MEMORY_BLOCK_SLOTS &&
        !memory_table_split(table, &place, key)) {
        return false;
    }
    struct memory_block *block = table->index[place.block].block;
    assert(place.slot <= block->count);
    struct memory_slot *slot = &block->slots[place.slot];
    memmove(slot + 1, slot, (block->count - place.slot) * sizeof *slot);
    *slot = (struct memory_slot){.prefix = memory_prefix(key), .entry = entry};
    block->count++;
    table->count++;
    table->size += memory_entry_size(entry);
    return true;
}

struct memory_entry *memory_table_replace(struct memory_table *table, struct memory_place place,
                                          struct memory_entry *entry)
{
    struct memory_entry *old = memory_table_at(table, place);
    table->index[place.block].block->slots[place.slot].entry = entry;
    table->size += memory_entry_size(entry);
    table->size -= memory_entry_size(old);
    return old;
}

struct memory_entry *memory_table_remove(struct memory_table *table, struct memory_place place)
{
    struct memory_entry *entry = memory_table_at(table, place);
    struct memory_block *block = table->index[place.block].block;
    struct memory_slot *slot = &block->slots[place.slot];
    block->count--;
    memmove(slot, slot + 1, (block->count - place.slot) * sizeof *slot);
    table->count--;
    table->size -= memory_entry_size(entry);
    return entry;
}

void memory_table_tidy(struct memory_table *table, struct span key)
{
    if (table->block_count == 0) {
        return;
    }
    size_t at = memory_table_block(table, memory_prefix(key), key);
    if (table->index[at].block->count > 0) {
        return;
    }
    free(table->index[at].block);
    table->block_count--;
    memmove(&table->index[at], &table->index[at + 1],
            (table->block_count - at) * sizeof table->index[0]);
    if (at == 0 && table->block_count > 0) {
        table->index[0].prefix = 0;
        table->index[0].block->low_size = 0;
    }
}
