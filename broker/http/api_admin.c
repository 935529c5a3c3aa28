/* Looking at a subscription and repairing it: peek, redrive, purge, seek; and the shards of a
 * topic. */
#include <stdio.h>

#include "broker/core/dead_reason.h"
#include "broker/core/lifecycle.h"
#include "broker/core/message_id.h"
#include "broker/http/api_request.h"
#include "broker/volume/router_figures.h"

/* ---- peek ----------------------------------------------------------------------------------- */

enum { PEEK_SIZE_MAX = 1 << 20 };

struct peek_request {
    struct router_peek peek;
    struct api_request *request;
    bool body;
};

static const struct {
    const char *name;
    enum message_state state;
} peek_states[] = {
    {"enqueued", MESSAGE_NONE},   {"leased", MESSAGE_LEASED}, {"scheduled", MESSAGE_SCHEDULED},
    {"blocked", MESSAGE_BLOCKED}, {"dead", MESSAGE_DEAD},
};

static void state_print(struct out *out, const struct reply *reply, const struct delivery *delivery)
{
    switch ((enum message_state)delivery->state) {
    case MESSAGE_LEASED:
        out_field_time(out, "lease_until", "lease_until_ms", delivery->due_ms);
        break;
    case MESSAGE_SCHEDULED:
    case MESSAGE_READY:
        out_field_time(out, "due_at", "due_ms", delivery->due_ms);
        break;
    case MESSAGE_DEAD:
        out_field_text(out, "reason", dead_reason_text(delivery->reason));
        out_field_time(out, "dead_at", "dead_ms", delivery->due_ms);
        if (delivery->note_size > 0) {
            out_field_span(out, "note", delivery_note(reply, delivery));
        }
        break;
    case MESSAGE_NONE:
    case MESSAGE_BLOCKED:
    case MESSAGE_DONE:
        break;
    }
}

static void peeked_print(struct out *out, const struct peek_request *peek,
                         const struct reply *reply, const struct delivery *delivery)
{
    char id[MESSAGE_ID_SIZE];
    message_id_format(delivery->shard_id, delivery->sequence, id);
    out_map(out);
    out_field_text(out, "id", id);
    out_field_u64(out, "shard", delivery->shard_number);
    out_field_u64(out, "sequence", delivery->sequence);
    out_field_text(out, "state", lifecycle_name(delivery->state));
    out_field_key(out, delivery_key(reply, delivery));
    out_field_attributes(out, delivery_attributes(reply, delivery));
    out_field_u64(out, "attempts", delivery->attempt);
    out_field_time(out, "published_at", "published_ms", delivery->published_ms);
    if (delivery->expires_ms != 0) {
        out_field_time(out, "expires_at", "expires_ms", delivery->expires_ms);
    }
    state_print(out, reply, delivery);
    out_field_u64(out, "size", delivery->body_size);
    if (peek->body) {
        out_field_body(out, delivery_body(reply, delivery));
    }
    out_end(out);
}

static void peek_on_done(struct router_operation *operation)
{
    struct peek_request *peek = operation->user;
    struct buf buf;
    struct out out;
    if (api_failed(peek->request, operation)) {
        return;
    }
    api_answer_begin(peek->request, &buf, &out);
    out_map(&out);
    out_name(&out, "items");
    out_array(&out);
    const struct reply *reply = NULL;
    while ((reply = router_reply_next(operation, reply)) != NULL) {
        uint32_t count = reply_delivery_count(reply);
        for (uint32_t index = 0; index < count; index++) {
            peeked_print(&out, peek, reply, reply_delivery(reply, index));
        }
    }
    out_end(&out);
    char cursor[MESSAGE_ID_SIZE];
    message_id_format(peek->peek.next_shard_id, peek->peek.next_sequence, cursor);
    api_out_next(&out, peek->peek.more, span_text(cursor));
    out_end(&out);
    api_answer(peek->request, 200, &buf);
}

static err_t read_state(const struct api_request *request, enum message_state *out)
{
    struct span text;
    if (api_parameter(request, "state", &text)) {
        for (size_t index = 0; index < sizeof peek_states / sizeof peek_states[0]; index++) {
            if (span_is(text, peek_states[index].name)) {
                *out = peek_states[index].state;
                return NULL;
            }
        }
    }
    return ERR(INVALID, "state: must be enqueued, leased, scheduled, blocked or dead");
}

err_t api_sub_peek(struct api_request *request)
{
    struct api_page page;
    struct catalog_sub *sub;
    struct peek_request *peek;
    TRY(api_read_page(request, &page));
    TRY(api_find_sub(request, &sub));
    TRY(api_alloc(request, 1, sizeof *peek, &peek));
    TRY(read_state(request, &peek->peek.state));
    TRY(api_parameter_bool(request, "body", true, &peek->body));
    if (page.cursor.size > 0 &&
        !message_id_parse(page.cursor, &peek->peek.from_shard_id, &peek->peek.from_sequence)) {
        return ERR(INVALID, "cursor: must be the next of another page");
    }
    peek->request = request;
    peek->peek.topic = request->topic;
    peek->peek.sub = request->sub;
    peek->peek.max = page.limit;
    peek->peek.size_max = PEEK_SIZE_MAX;
    api_operation(request, &peek->peek.operation, peek_on_done);
    peek->peek.operation.user = peek;
    router_start_peek(request->api->router, &peek->peek);
    return NULL;
}

/* ---- redrive, purge, seek ------------------------------------------------------------------- */

struct change_request {
    struct router_change change;
    struct api_request *request;
    bool dry_run;
    bool one; /* redrive of a single message: none found is not found */
};

static void change_on_done(struct router_operation *operation)
{
    struct change_request *change = operation->user;
    struct api_request *request = change->request;
    enum command_type type = change->change.command.type;
    struct buf buf;
    struct out out;
    if (api_failed(request, operation)) {
        return;
    }
    if (change->one && change->change.count == 0) {
        api_problem(request, ERR_NOT_FOUND, "id: there is no such dead letter");
        return;
    }
    api_answer_begin(request, &buf, &out);
    out_map(&out);
    out_field_u64(&out,
                  type == COMMAND_REDRIVE ? "redriven"
                  : type == COMMAND_PURGE ? "purged"
                                          : "moved",
                  change->change.count);
    if (type == COMMAND_REDRIVE) {
        out_field_bool(&out, "more", change->change.more);
        metrics_add(&request->api->options.metrics->messages_redriven_total,
                    change->dry_run ? 0 : change->change.count);
    }
    if (type != COMMAND_PURGE) {
        out_field_bool(&out, "dry_run", change->dry_run);
    }
    out_end(&out);
    api_answer(request, 200, &buf);
}

static void change_begin(struct change_request *change, struct api_request *request,
                         enum command_type type)
{
    change->request = request;
    change->change.topic = request->topic;
    change->change.sub = request->sub;
    change->change.command.type = type;
    change->change.shard_number = UINT32_MAX;
    api_operation(request, &change->change.operation, change_on_done);
    change->change.operation.user = change;
}

static err_t check_shard(const struct catalog_sub *sub, const char *field, uint64_t number)
{
    return number < sub->topic->shard_count
               ? NULL
               : ERR(INVALID, "%s: the topic has %u shards", field, sub->topic->shard_count);
}

/* Turns a message id into the shard and sequence to redrive. */
static err_t read_id(struct api_request *request, const struct catalog_sub *sub, struct span id,
                     struct change_request *change)
{
    uint32_t shard_id = 0;
    uint64_t sequence = 0;
    struct catalog_topic *topic = NULL;
    if (!message_id_parse(id, &shard_id, &sequence)) {
        return ERR(INVALID, "id: is not the id of a message");
    }
    const struct catalog_shard *shard =
        catalog_shard_by_id(router_catalog(request->api->router), shard_id, &topic);
    if (shard == NULL || topic != sub->topic) {
        return ERR(NOT_FOUND, "id: there is no such message in this topic");
    }
    change->one = true;
    change->change.shard_number = shard->place.number;
    change->change.command.redrive.has_sequence = true;
    change->change.command.redrive.sequence = sequence;
    return NULL;
}

err_t api_sub_redrive(struct api_request *request)
{
    struct in_value values[IN_VALUES_MAX];
    struct change_request *change;
    struct catalog_sub *sub;
    TRY(api_read(request, IN_redrive, values));
    TRY(api_find_sub(request, &sub));
    TRY(api_alloc(request, 1, sizeof *change, &change));
    change_begin(change, request, COMMAND_REDRIVE);
    struct redrive *redrive = &change->change.command.redrive;
    change->dry_run = values[IN(redrive, dry_run)].number != 0;
    redrive->dry_run = change->dry_run;
    redrive->max = (uint32_t)values[IN(redrive, limit)].number;
    const struct in_value *reason = &values[IN(redrive, reason)];
    if (reason->given && !dead_reason_read(reason->span, &redrive->reason)) {
        return ERR(INVALID, "reason: must be attempts, expired, rejected or corrupt");
    }
    if (values[IN(redrive, shard)].given) {
        TRY(check_shard(sub, "shard", values[IN(redrive, shard)].number));
        change->change.shard_number = (uint32_t)values[IN(redrive, shard)].number;
    }
    if (values[IN(redrive, id)].given) {
        uint32_t shard_number = change->change.shard_number;
        TRY(read_id(request, sub, values[IN(redrive, id)].span, change));
        if (shard_number != UINT32_MAX && shard_number != change->change.shard_number) {
            return ERR(NOT_FOUND, "id: the message is in another shard");
        }
    }
    router_start_change(request->api->router, &change->change);
    return NULL;
}

static bool add_purge(struct purge *purge, struct span what)
{
    bool *flag = span_is(what, "enqueued")   ? &purge->enqueued
                 : span_is(what, "delivery") ? &purge->delivery
                 : span_is(what, "dead")     ? &purge->dead
                                             : NULL;
    if (flag != NULL) {
        *flag = true;
    }
    return flag != NULL;
}

static err_t read_what(struct span value, struct purge *purge)
{
    struct span text;
    if (api_in_text(value, &text) && span_is(text, "all")) {
        purge->enqueued = purge->delivery = purge->dead = true;
        return NULL;
    }
    struct reader reader;
    uint32_t count = 0;
    reader_init(&reader, value);
    bool sound = reader_array(&reader, &count) && count > 0;
    for (uint32_t index = 0; sound && index < count; index++) {
        sound = reader_str(&reader, &text) && add_purge(purge, text);
    }
    return sound ? NULL
                 : ERR(INVALID,
                       "what: must be \"all\" or an array of \"enqueued\", \"delivery\", \"dead\"");
}

err_t api_sub_purge(struct api_request *request)
{
    struct in_value values[IN_VALUES_MAX];
    struct change_request *change;
    struct catalog_sub *sub;
    TRY(api_read(request, IN_purge, values));
    TRY(api_find_sub(request, &sub));
    TRY(api_alloc(request, 1, sizeof *change, &change));
    change_begin(change, request, COMMAND_PURGE);
    TRY(read_what(values[IN(purge, what)].span, &change->change.command.purge));
    router_start_change(request->api->router, &change->change);
    return NULL;
}

static err_t read_goal(const struct catalog_sub *sub, struct span value,
                       struct change_request *change)
{
    struct seek *seek = &change->change.command.seek;
    if (api_in_kind_of(value) != READER_MAP) {
        return api_take_start(value, &seek->to, &seek->value)
                   ? NULL
                   : ERR(INVALID, "to: must be \"earliest\", \"latest\", a time or "
                                  "{\"shard\":n,\"sequence\":m}");
    }
    struct in_value values[IN_VALUES_MAX];
    struct in_place place = {.name = "to", .index = IN_NO_INDEX};
    TRY(api_in_read_all(value, IN_position, place, values));
    TRY(check_shard(sub, "to.shard", values[IN(position, shard)].number));
    change->change.shard_number = (uint32_t)values[IN(position, shard)].number;
    seek->to = START_SEQUENCE;
    seek->value = values[IN(position, sequence)].number;
    return NULL;
}

err_t api_sub_seek(struct api_request *request)
{
    struct in_value values[IN_VALUES_MAX];
    struct change_request *change;
    struct catalog_sub *sub;
    TRY(api_read(request, IN_seek, values));
    TRY(api_find_sub(request, &sub));
    TRY(api_alloc(request, 1, sizeof *change, &change));
    change_begin(change, request, COMMAND_SEEK);
    TRY(read_goal(sub, values[IN(seek, to)].span, change));
    change->dry_run = values[IN(seek, dry_run)].number != 0;
    change->change.command.seek.dry_run = change->dry_run;
    router_start_change(request->api->router, &change->change);
    return NULL;
}

/* ---- shards --------------------------------------------------------------------------------- */

struct shards_request {
    struct router_stats stats;
    struct api_request *request;
    uint32_t first; /* number of the page's first shard */
    uint32_t limit;
};

static void shard_sub_print(struct out *out, const struct catalog_sub *sub,
                            const struct sub_stats *row, uint64_t now_ms)
{
    out_map(out);
    out_field_text(out, "name", sub->name);
    out_field_u64(out, "cursor", row->cursor);
    out_field_u64(out, "enqueued", row->enqueued);
    out_field_u64(out, "leased", row->leased);
    out_field_u64(out, "scheduled", row->scheduled);
    out_field_u64(out, "dead", row->dead);
    api_out_age(out, "oldest_unacknowledged_age_ms", row->oldest_ms, now_ms);
    out_end(out);
}

/* A shard's row, followed by the rows of its subscriptions. */
static void shard_print(struct out *out, const struct api_request *request,
                        const struct shard_stats *shard)
{
    char hash[17];
    const struct catalog *catalog = router_catalog(request->api->router);
    struct catalog_topic *topic = NULL;
    const struct catalog_shard *place = catalog_shard_by_id(catalog, shard->shard_id, &topic);
    uint64_t now_ms = clock_wall_ms(request->api->clock);
    out_map(out);
    out_field_u64(out, "shard", shard->number);
    out_field_text(out, "state", "open");
    (void)snprintf(hash, sizeof hash, "%016llx", (unsigned long long)shard->hash_first);
    out_field_text(out, "hash_first", hash);
    (void)snprintf(hash, sizeof hash, "%016llx", (unsigned long long)shard->hash_last);
    out_field_text(out, "hash_last", hash);
    out_field_u64(out, "volume", place == NULL ? 0 : place->volume);
    out_field_u64(out, "next_sequence", shard->next_sequence);
    out_field_u64(out, "retained_from", shard->retained_from);
    out_name(out, "subscriptions");
    out_array(out);
    const struct sub_stats *rows = (const struct sub_stats *)(const void *)(shard + 1);
    for (uint32_t index = 0; index < shard->sub_count; index++) {
        const struct catalog_sub *sub = catalog_sub_by_id(catalog, rows[index].sub_id);
        if (sub != NULL) { /* not deleted meanwhile */
            shard_sub_print(out, sub, &rows[index], now_ms);
        }
    }
    out_end(out);
    out_end(out);
}

/* The volumes answer in any order: puts the page's rows in order of number. */
static void shards_sort(const struct shards_request *shards, const struct shard_stats **page,
                        bool *more)
{
    const struct reply *reply = NULL;
    while ((reply = router_reply_next(&shards->stats.operation, reply)) != NULL) {
        struct router_rows rows = router_rows(reply);
        const struct shard_stats *shard;
        while ((shard = router_rows_shard(&rows)) != NULL) {
            for (uint32_t index = 0; index < shard->sub_count; index++) {
                (void)router_rows_sub(&rows);
            }
            if (shard->number >= shards->first && shard->number - shards->first < shards->limit) {
                page[shard->number - shards->first] = shard;
            }
            *more = *more || (shard->number >= shards->first &&
                              shard->number - shards->first >= shards->limit);
        }
    }
}

static err_t answer_shards(struct shards_request *shards)
{
    struct api_request *request = shards->request;
    const struct shard_stats **page;
    bool more = false;
    TRY(api_alloc(request, shards->limit, sizeof(struct shard_stats *), &page));
    shards_sort(shards, page, &more);
    struct buf buf;
    struct out out;
    api_answer_begin(request, &buf, &out);
    out_map(&out);
    out_name(&out, "items");
    out_array(&out);
    for (uint32_t index = 0; index < shards->limit; index++) {
        if (page[index] != NULL) {
            shard_print(&out, request, page[index]);
        }
    }
    out_end(&out);
    char cursor[16];
    (void)snprintf(cursor, sizeof cursor, "%u", shards->first + shards->limit);
    api_out_next(&out, more, span_text(cursor));
    out_end(&out);
    api_answer(request, 200, &buf);
    return NULL;
}

static void shards_on_stats(struct router_operation *operation)
{
    struct shards_request *shards = operation->user;
    if (!api_failed(shards->request, operation)) {
        err_t err = answer_shards(shards);
        if (err != NULL) {
            api_fail(shards->request, err);
        }
    }
}

err_t api_shard_list(struct api_request *request)
{
    struct api_page page;
    struct catalog_topic *topic;
    struct shards_request *shards;
    uint64_t first = 0;
    TRY(api_read_page(request, &page));
    TRY(api_find_topic(request, &topic));
    if (page.cursor.size > 0 && (!api_in_digits(page.cursor, &first) || first > UINT32_MAX / 2)) {
        return ERR(INVALID, "cursor: must be the next of another page");
    }
    TRY(api_alloc(request, 1, sizeof *shards, &shards));
    shards->request = request;
    shards->first = (uint32_t)first;
    shards->limit = page.limit;
    shards->stats.topic = request->topic;
    api_operation(request, &shards->stats.operation, shards_on_stats);
    shards->stats.operation.user = shards;
    router_start_stats(request->api->router, &shards->stats);
    return NULL;
}
