#include "broker/core/codec.h"

#include <assert.h>

#include "broker/base/bytes.h"

/* A command: size u32 of what follows, version u8, type u8, flags u8, zero u8, now u64, then its
 * fields in the order in which the functions below walk them. Each function serves both directions:
 * it puts the fields it is given or fills them. */
enum {
    CODEC_VERSION = 1,
    CODEC_SIZE_SIZE = 4,
    FLAG_NO_SPACE = 1,
    FLAGS_ALL = FLAG_NO_SPACE,
    /* Bytes of the least message and receipt: what a declared count costs at least. */
    MESSAGE_SIZE_MIN = 44,
    RECEIPT_SIZE = 26,
};

struct codec {
    struct buf *out;         /* NULL: it decodes */
    struct span in;          /* what is left */
    struct codec_room *room; /* when it decodes */
    bool bad;
};

void codec_room_init(struct codec_room *room)
{
    buf_init(&room->items, SIZE_MAX / 2);
    buf_init(&room->results, SIZE_MAX / 2);
}

void codec_room_deinit(struct codec_room *room)
{
    buf_deinit(&room->items);
    buf_deinit(&room->results);
}

bool codec_takes(enum command_type type)
{
    return type == COMMAND_PUBLISH || type == COMMAND_PULL || type == COMMAND_ACK ||
           type == COMMAND_NACK || type == COMMAND_EXTEND || type == COMMAND_TICK;
}

/* ---- values ---- */

/* The next bytes of the input; NULL when there are not so many. */
static const uint8_t *take(struct codec *codec, size_t size)
{
    if (codec->bad || codec->in.size < size) {
        codec->bad = true;
        return NULL;
    }
    const uint8_t *at = codec->in.data;
    codec->in = span_of(at + size, codec->in.size - size);
    return at;
}

/* Most of what is put are numbers: where there is room one is written whole, and counted by its
 * size. */
static void put_number(struct buf *out, uint64_t value, size_t size)
{
    uint8_t bytes[8];
    if (!out->failed && out->capacity - out->size >= sizeof bytes) {
        bytes_put_le64(out->data + out->size, value);
        out->size += size;
        return;
    }
    bytes_put_le64(bytes, value);
    buf_append(out, bytes, size);
}

static void number(struct codec *codec, uint64_t *value, size_t size)
{
    uint8_t bytes[8] = {0};
    if (codec->out != NULL) {
        put_number(codec->out, *value, size);
        return;
    }
    const uint8_t *at = take(codec, size);
    if (at != NULL) {
        memcpy(bytes, at, size);
        *value = bytes_get_le64(bytes);
    }
}

static void u8(struct codec *codec, uint8_t *value)
{
    uint64_t wide = *value;
    number(codec, &wide, 1);
    *value = (uint8_t)wide;
}

static void u16(struct codec *codec, uint16_t *value)
{
    uint64_t wide = *value;
    number(codec, &wide, 2);
    *value = (uint16_t)wide;
}

static void u32(struct codec *codec, uint32_t *value)
{
    uint64_t wide = *value;
    number(codec, &wide, 4);
    *value = (uint32_t)wide;
}

static void u64(struct codec *codec, uint64_t *value)
{
    number(codec, value, 8);
}

/* A number up to `max`, in one byte. */
static void choice(struct codec *codec, uint8_t *value, uint8_t max)
{
    u8(codec, value);
    codec->bad = codec->bad || *value > max;
}

static void flag(struct codec *codec, bool *value)
{
    uint8_t byte = *value;
    choice(codec, &byte, 1);
    *value = byte != 0;
}

static void bytes(struct codec *codec, struct span *value)
{
    uint32_t size = (uint32_t)value->size;
    u32(codec, &size);
    if (codec->out != NULL) {
        buf_append_span(codec->out, *value);
        return;
    }
    const uint8_t *at = take(codec, size);
    *value = span_of(at == NULL ? (const uint8_t *)"" : at, at == NULL ? 0 : size);
}

/* The count of an array whose items take at least `size_min` bytes each. */
static void count(struct codec *codec, uint32_t *value, size_t size_min)
{
    u32(codec, value);
    if (codec->out == NULL && (codec->bad || *value > codec->in.size / size_min)) {
        codec->bad = true;
        *value = 0;
    }
}

/* Room for a decoded array; NULL without memory, which is told apart from bad bytes by `failed`. */
static void *array_of(struct codec *codec, struct buf *room, size_t size)
{
    uint8_t *items = buf_extend(room, size == 0 ? 1 : size);
    if (items == NULL) {
        codec->bad = true;
        return NULL;
    }
    memset(items, 0, size);
    return items;
}

/* ---- commands ---- */

static void message(struct codec *codec, struct message_in *message)
{
    u32(codec, &message->shard_id);
    u64(codec, &message->payload_hash);
    u64(codec, &message->delay_ms);
    u64(codec, &message->ttl_ms);
    bytes(codec, &message->key);
    bytes(codec, &message->attributes);
    bytes(codec, &message->body);
    bytes(codec, &message->idempotency_key);
}

static void publish(struct codec *codec, struct publish *publish)
{
    u32(codec, &publish->topic_id);
    flag(codec, &publish->atomic);
    bytes(codec, &publish->batch_key);
    count(codec, &publish->count, MESSAGE_SIZE_MIN);
    struct message_in *decoded = NULL;
    if (codec->out == NULL) {
        decoded = array_of(codec, &codec->room->items, publish->count * sizeof *decoded);
        publish->messages = decoded;
        publish->results =
            array_of(codec, &codec->room->results, publish->count * sizeof *publish->results);
        if (decoded == NULL) {
            return;
        }
    }
    for (uint32_t index = 0; index < publish->count && !codec->bad; index++) {
        struct message_in item = {0};
        if (decoded == NULL) {
            item = publish->messages[index];
        }
        message(codec, &item);
        if (decoded != NULL) {
            decoded[index] = item;
        }
    }
}

static void pull(struct codec *codec, struct pull *pull)
{
    u32(codec, &pull->sub_id);
    u32(codec, &pull->max);
    u32(codec, &pull->size_max);
    flag(codec, &pull->size_strict);
    u32(codec, &pull->nonce);
    u32(codec, &pull->rotation);
    u64(codec, &pull->lease_ms);
}

static void receipt(struct codec *codec, struct receipt *receipt)
{
    u32(codec, &receipt->sub_id);
    u32(codec, &receipt->shard_id);
    u64(codec, &receipt->sequence);
    u32(codec, &receipt->epoch);
    u32(codec, &receipt->grant);
    u16(codec, &receipt->attempt);
}

static void settle(struct codec *codec, struct settle *settle)
{
    u32(codec, &settle->sub_id);
    flag(codec, &settle->has_delay);
    flag(codec, &settle->reject);
    flag(codec, &settle->release);
    u64(codec, &settle->delay_ms);
    u64(codec, &settle->lease_ms);
    bytes(codec, &settle->note);
    codec->bad = codec->bad || settle->note.size > CORE_NOTE_MAX;
    count(codec, &settle->count, RECEIPT_SIZE);
    struct receipt *decoded = NULL;
    if (codec->out == NULL) {
        decoded = array_of(codec, &codec->room->items, settle->count * sizeof *decoded);
        settle->receipts = decoded;
        settle->results =
            array_of(codec, &codec->room->results, settle->count * sizeof *settle->results);
        if (decoded == NULL) {
            return;
        }
    }
    for (uint32_t index = 0; index < settle->count && !codec->bad; index++) {
        struct receipt item = {0};
        if (decoded == NULL) {
            item = settle->receipts[index];
        }
        receipt(codec, &item);
        if (decoded != NULL) {
            decoded[index] = item;
        }
    }
}

static void fields(struct codec *codec, struct command *command)
{
    switch (command->type) {
    case COMMAND_PUBLISH:
        publish(codec, &command->publish);
        break;
    case COMMAND_PULL:
        pull(codec, &command->pull);
        break;
    case COMMAND_ACK:
    case COMMAND_NACK:
    case COMMAND_EXTEND:
        settle(codec, &command->settle);
        break;
    case COMMAND_TICK:
        u32(codec, &command->tick.budget);
        break;
    case COMMAND_TOPIC_PUT:
    case COMMAND_TOPIC_DROP:
    case COMMAND_SUB_PUT:
    case COMMAND_SUB_DROP:
    case COMMAND_PEEK:
    case COMMAND_REDRIVE:
    case COMMAND_PURGE:
    case COMMAND_SEEK:
    case COMMAND_STATS:
    case COMMAND_CATALOG:
        codec->bad = true;
        break;
    }
}

static void head(struct codec *codec, struct command *command)
{
    uint8_t version = CODEC_VERSION;
    uint8_t type = (uint8_t)command->type;
    uint8_t flags = command->no_space ? FLAG_NO_SPACE : 0;
    uint8_t zero = 0;
    u8(codec, &version);
    u8(codec, &type);
    choice(codec, &flags, FLAGS_ALL);
    choice(codec, &zero, 0);
    u64(codec, &command->now_ms);
    codec->bad = codec->bad || version != CODEC_VERSION || type == 0 || type > COMMAND_CATALOG;
    command->type = codec->bad ? COMMAND_CATALOG : (enum command_type)type;
    command->no_space = flags != 0;
}

void codec_put(const struct command *command, struct buf *out)
{
    assert(codec_takes(command->type));
    struct codec codec = {.out = out};
    struct command copy = *command;
    size_t at = out->size;
    uint8_t size[CODEC_SIZE_SIZE] = {0};
    buf_append(out, size, sizeof size);
    head(&codec, &copy);
    fields(&codec, &copy);
    assert(!codec.bad);
    if (!out->failed) {
        bytes_put_le32(out->data + at, (uint32_t)(out->size - at - sizeof size));
    }
}

err_t codec_get(struct span *bytes, struct codec_room *room, struct command *out)
{
    buf_reset(&room->items);
    buf_reset(&room->results);
    if (bytes->size < CODEC_SIZE_SIZE ||
        bytes_get_le32(bytes->data) > bytes->size - CODEC_SIZE_SIZE) {
        return ERR(CORRUPT, "a stored command is cut short");
    }
    size_t size = bytes_get_le32(bytes->data);
    struct codec codec = {.in = span_of(bytes->data + CODEC_SIZE_SIZE, size), .room = room};
    memset(out, 0, sizeof *out); /* whatever member of the union it turns out to have */
    out->type = COMMAND_CATALOG;
    head(&codec, out);
    fields(&codec, out);
    if (room->items.failed || room->results.failed) {
        return ERR(MEMORY, "no memory for a stored command");
    }
    if (codec.bad || codec.in.size > 0) {
        return ERR(CORRUPT, "a stored command is damaged");
    }
    *bytes = span_of(bytes->data + CODEC_SIZE_SIZE + size, bytes->size - CODEC_SIZE_SIZE - size);
    return NULL;
}
