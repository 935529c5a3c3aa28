/* Messages of the wire protocol, every one of the table. Property: what is decoded, encoded and
 * decoded again is the same, byte for byte once encoded; lists and maps give at most as many
 * records as bytes; what is refused is refused with a reason. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "broker/wire/message.h"

enum { FUZZ_SIZE_MAX = 1 << 22, RECORD_SIZE_MAX = 256 };

/* The bytes of a list's records encoded again; false: one of them is refused. */
static bool copy_list(const struct wire_field *field, const struct wire_list *list, struct buf *out,
                      uint32_t *count)
{
    union {
        uint64_t aligned;
        uint8_t bytes[RECORD_SIZE_MAX];
    } record;
    struct wire_items items;
    FUZZ_REQUIRE(wire_record_shape(field->record)->size <= sizeof record);
    wire_items_begin(&items, field->name, field->record, list);
    *count = 0;
    while (wire_items_next(&items, &record)) {
        wire_put_record(out, field->record, &record);
        (*count)++;
    }
    err_t err = wire_items_finish(&items);
    bool sound = err == NULL;
    FUZZ_REQUIRE(sound == (*count == list->count));
    FUZZ_REQUIRE(sound || err_message(err)[0] != '\0');
    err_free(err);
    return sound;
}

static void walk_map(struct wire_list map)
{
    struct span name;
    struct span value;
    uint32_t count = map.count;
    while (wire_map_next(&map, &name, &value)) {
        FUZZ_REQUIRE(count-- > 0);
    }
}

/* The message with its list written anew, in what any encoder would send. */
static bool normalize(struct wire_frame *frame, struct buf *items)
{
    const struct wire_shape *shape = wire_shape(frame->type);
    for (uint32_t index = 0; index < shape->field_count; index++) {
        const struct wire_field *field = &shape->fields[index];
        struct wire_list list;
        if (field->kind != WIRE_KIND_LIST && field->kind != WIRE_KIND_MAP) {
            continue;
        }
        uint8_t *place = (uint8_t *)&frame->id + field->offset;
        memcpy(&list, place, sizeof list);
        if (field->kind == WIRE_KIND_MAP) {
            walk_map(list);
            continue;
        }
        uint32_t count;
        if (!copy_list(field, &list, items, &count)) {
            return false;
        }
        list.items = buf_span(items);
        memcpy(place, &list, sizeof list);
    }
    return true;
}

static struct span payload_of(const struct buf *frame)
{
    FUZZ_REQUIRE(!frame->failed);
    FUZZ_REQUIRE(wire_frame_size(frame->data) == frame->size - WIRE_SIZE_BYTES);
    return span_of(frame->data + WIRE_SIZE_BYTES, frame->size - WIRE_SIZE_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_frame first;
    struct wire_frame second;
    struct buf items;
    struct buf encoded;
    struct buf again;
    struct buf line;
    buf_init(&items, FUZZ_SIZE_MAX);
    buf_init(&encoded, FUZZ_SIZE_MAX);
    buf_init(&again, FUZZ_SIZE_MAX);
    buf_init(&line, FUZZ_SIZE_MAX);
    err_t err = size > FUZZ_SIZE_MAX / 4 ? NULL : wire_decode(span_of(data, size), &first);
    if (err != NULL) {
        FUZZ_REQUIRE(err_message(err)[0] != '\0');
        err_free(err);
    } else if (size <= FUZZ_SIZE_MAX / 4 && normalize(&first, &items)) {
        wire_encode(&encoded, first.type, &first.id);
        FUZZ_REQUIRE(wire_decode(payload_of(&encoded), &second) == NULL);
        FUZZ_REQUIRE(second.type == first.type && second.id == first.id);
        wire_encode(&again, second.type, &second.id);
        FUZZ_REQUIRE(span_equal(buf_span(&encoded), buf_span(&again)));
        wire_print(&line, &second);
        FUZZ_REQUIRE(line.size > 0 && memchr(line.data, '\n', line.size) == NULL);
    }
    buf_deinit(&items);
    buf_deinit(&encoded);
    buf_deinit(&again);
    buf_deinit(&line);
    return 0;
}
