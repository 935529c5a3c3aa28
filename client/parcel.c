#include "client/parcel.h"

#include <stdlib.h>

#include "client/draft.h"

enum { PARCEL_PAIR_SIZE = 4 }; /* of an attribute beside its texts, SPEC "Credit streams" */

void parcel_put_id(char out[FLARE_ID_SIZE], struct span id)
{
    static const char digits[] = "0123456789abcdef";
    size_t size = id.size < (FLARE_ID_SIZE - 1) / 2 ? id.size : (FLARE_ID_SIZE - 1) / 2;
    for (size_t at = 0; at < size; at++) {
        out[2 * at] = digits[id.data[at] >> 4];
        out[2 * at + 1] = digits[id.data[at] & 15];
    }
    out[2 * size] = '\0';
}

static void take_delivery(struct flare_batch *batch, const struct wire_delivery *from)
{
    struct parcel_item *item = &batch->items[batch->count];
    struct flare_delivery *to = &item->delivery;
    parcel_put_id(to->id, from->id);
    to->receipt.size = (uint8_t)from->receipt.size;
    memcpy(to->receipt.bytes, from->receipt.data, from->receipt.size);
    to->shard = from->shard;
    to->epoch = from->epoch;
    to->sequence = from->sequence;
    to->attempt = from->attempt;
    to->published_ms = from->published_ms;
    to->lease_until_ms = from->lease_until_ms;
    to->body = from->body.data;
    to->body_size = from->body.size;
    to->key = (const char *)from->key.data;
    to->key_size = from->key.size;
    to->attributes = from->attributes.items.data;
    to->attributes_size = from->attributes.items.size;
    to->attribute_count = from->attributes.count;
    to->source = batch->source;
    item->batch = batch;
    batch->count++;
}

err_t parcel_create(const struct wire_list *deliveries, const struct flare_source *source,
                    struct flare_batch **out)
{
    struct wire_items items;
    struct wire_delivery delivery;
    size_t items_size = deliveries->count * sizeof(struct parcel_item);
    size_t texts_size = draft_source_size(source);
    struct flare_batch *batch =
        calloc(1, sizeof *batch + items_size + texts_size + deliveries->items.size);
    if (batch == NULL) {
        return ERR(MEMORY, "no memory for %u deliveries", deliveries->count);
    }
    char *texts = (char *)&batch->items[deliveries->count];
    uint8_t *bytes = (uint8_t *)draft_copy_source(texts, source, &batch->source);
    if (deliveries->items.size > 0) {
        memcpy(bytes, deliveries->items.data, deliveries->items.size);
    }
    struct wire_list copy = {.count = deliveries->count,
                             .items = span_of(bytes, deliveries->items.size)};
    wire_items_begin(&items, "deliveries", WIRE_RECORD_delivery, &copy);
    while (wire_items_next(&items, &delivery)) {
        take_delivery(batch, &delivery);
    }
    err_t err = wire_items_finish(&items);
    if (err != NULL) {
        free(batch);
        return err_passed(err, __func__);
    }
    batch->left = batch->count;
    *out = batch;
    return NULL;
}

size_t parcel_credit(const struct flare_delivery *delivery)
{
    struct wire_list map = {.count = delivery->attribute_count,
                            .items = span_of(delivery->attributes, delivery->attributes_size)};
    size_t size = delivery->body_size + delivery->key_size;
    struct span name;
    struct span value;
    while (wire_map_next(&map, &name, &value)) {
        size += PARCEL_PAIR_SIZE + name.size + value.size;
    }
    return size;
}

/* ---- the public side --------------------------------------------------------------------------
 */

size_t flare_batch_count(const struct flare_batch *batch)
{
    return batch->count;
}

const struct flare_delivery *flare_batch_get(const struct flare_batch *batch, size_t index)
{
    return index < batch->count ? &batch->items[index].delivery : NULL;
}

void flare_batch_free(struct flare_batch *batch)
{
    free(batch);
}

bool flare_delivery_attribute(const struct flare_delivery *delivery, const char *name, char *out,
                              size_t size)
{
    struct wire_list map = {.count = delivery->attribute_count,
                            .items = span_of(delivery->attributes, delivery->attributes_size)};
    struct span found;
    struct span value;
    while (wire_map_next(&map, &found, &value)) {
        if (span_is(found, name)) {
            size_t kept = value.size < size ? value.size : size - 1;
            if (size > 0) {
                memcpy(out, value.data, kept);
                out[kept] = '\0';
            }
            return true;
        }
    }
    return false;
}

bool flare_delivery_lost(const struct flare_delivery *delivery)
{
    return atomic_load(&container_of(delivery, struct parcel_item, delivery)->is_lost);
}
