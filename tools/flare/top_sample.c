#include "tools/flare/top_sample.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/flare/progress.h"

enum { PAGE_MAX = 1000, KEY_SIZE = 520 };

/* ---- gathering ---- */

static json_int_t number_at(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static void add_number(json_t *object, const char *name, json_int_t number)
{
    (void)json_object_set_new(object, name, json_integer(number_at(object, name) + number));
}

/* The value of a metric's only sample; 0 when there is none. */
static json_int_t metric(const char *page, const char *name)
{
    size_t size = strlen(name);
    for (const char *line = page; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, size) == 0 && line[size] == ' ') {
            return (json_int_t)strtod(line + size, NULL);
        }
    }
    return 0;
}

/* Adds the backlogs of a topic's subscriptions to its name in `out`. */
static void add_backlogs(const char *page, json_t *out)
{
    static const char name[] = "flare_subscription_backlog_messages{topic=\"";
    for (const char *line = strstr(page, name); line != NULL; line = strstr(line, name)) {
        char topic[256];
        line += sizeof name - 1;
        size_t size = strcspn(line, "\"\n");
        const char *value = strstr(line, "} ");
        if (value != NULL && size < sizeof topic) {
            memcpy(topic, line, size);
            topic[size] = '\0';
            add_number(out, topic, (json_int_t)strtod(value + 2, NULL));
        }
    }
}

static err_t take_broker(struct client *client, struct top_sample *out, json_t *backlogs)
{
    static const struct {
        const char *name;
        const char *metric;
    } counters[] = {
        {"published_total", "flare_messages_published_total"},
        {"delivered_total", "flare_messages_delivered_total"},
        {"acknowledged_total", "flare_messages_acknowledged_total"},
        {"dead_lettered_total", "flare_messages_dead_lettered_total"},
    };
    struct request request;
    struct span reply;
    struct buf page;
    request_init(&request, "GET", "/v1/status");
    TRY(client_call(client, &request, &out->broker));
    const json_t *volumes = json_object_get(out->broker, "volumes");
    for (size_t i = 0; i < json_array_size(volumes); i++) {
        add_number(out->broker, "commits_total",
                   number_at(json_array_get(volumes, i), "commits_total"));
    }
    request_init(&request, "GET", "/metrics");
    TRY(client_call_text(client, &request, &reply));
    buf_init(&page, CLIENT_REPLY_MAX);
    buf_append_span(&page, reply);
    buf_append_byte(&page, '\0');
    if (page.failed) {
        buf_deinit(&page);
        return ERR(MEMORY, "no memory for the broker's metrics");
    }
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        json_int_t value = metric((const char *)page.data, counters[i].metric);
        (void)json_object_set_new(out->broker, counters[i].name, json_integer(value));
    }
    add_backlogs((const char *)page.data, backlogs);
    buf_deinit(&page);
    return NULL;
}

/* Every topic's name in `out`, with a backlog of 0 unless it is known. */
static err_t take_names(struct client *client, json_t *out)
{
    struct request request;
    json_t *page = NULL;
    const char *cursor = NULL;
    char limit[16];
    (void)snprintf(limit, sizeof limit, "%d", PAGE_MAX);
    do {
        request_init(&request, "GET", "/v1/topics");
        request_query(&request, "limit", limit);
        if (cursor != NULL) {
            request_query(&request, "cursor", cursor);
        }
        json_decref(page);
        page = NULL;
        TRY(client_call(client, &request, &page));
        const json_t *items = json_object_get(page, "items");
        for (size_t i = 0; i < json_array_size(items); i++) {
            const char *name = json_string_value(json_object_get(json_array_get(items, i), "name"));
            if (name != NULL) {
                add_number(out, name, 0);
            }
        }
        cursor = json_string_value(json_object_get(page, "next"));
    } while (cursor != NULL);
    json_decref(page);
    return NULL;
}

static json_t *row_of(json_t *rows, const char *topic, const char *subscription)
{
    char key[KEY_SIZE];
    (void)snprintf(key, sizeof key, "%s/%s", topic, subscription);
    json_t *row = json_object_get(rows, key);
    if (row == NULL) {
        row = json_pack("{s:s, s:s}", "topic", topic, "subscription", subscription);
        (void)json_object_set_new(rows, key, row);
    }
    return row;
}

/* Adds what one shard has for one subscription. */
static void add_subscription(json_t *row, const json_t *figures)
{
    static const char *const names[] = {"cursor", "enqueued", "leased", "scheduled", "dead"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        add_number(row, names[i], number_at(figures, names[i]));
    }
    json_int_t oldest_ms = number_at(figures, "oldest_unacknowledged_age_ms");
    if (oldest_ms > number_at(row, "oldest_ms")) {
        (void)json_object_set_new(row, "oldest_ms", json_integer(oldest_ms));
    }
}

/* Adds the shards of one page to the rows; what was published into all of them. */
static json_int_t add_shards(json_t *rows, const char *topic, const json_t *items)
{
    json_int_t published = 0;
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *shard = json_array_get(items, i);
        const json_t *subscriptions = json_object_get(shard, "subscriptions");
        published += number_at(shard, "next_sequence");
        for (size_t j = 0; j < json_array_size(subscriptions); j++) {
            const json_t *figures = json_array_get(subscriptions, j);
            const char *name = json_string_value(json_object_get(figures, "name"));
            if (name != NULL) {
                add_subscription(row_of(rows, topic, name), figures);
            }
        }
    }
    return published;
}

/* The rows of one topic, into all of which goes what was published to it. */
static err_t take_topic(struct client *client, const char *topic, json_t *all)
{
    struct request request;
    json_t *page = NULL;
    json_t *row = NULL;
    json_int_t published = 0;
    const char *cursor = NULL;
    const char *key = NULL;
    char limit[16];
    err_t err = NULL;
    json_t *rows = json_object();
    (void)snprintf(limit, sizeof limit, "%d", PAGE_MAX);
    do {
        request_init(&request, "GET", "/v1/topics/{}/shards", topic);
        request_query(&request, "limit", limit);
        if (cursor != NULL) {
            request_query(&request, "cursor", cursor);
        }
        json_decref(page);
        page = NULL;
        TRY_OUT(client_call(client, &request, &page));
        published += add_shards(rows, topic, json_object_get(page, "items"));
        cursor = json_string_value(json_object_get(page, "next"));
    } while (cursor != NULL);
    if (json_object_size(rows) == 0) {
        (void)row_of(rows, topic, "");
    }
    json_object_foreach(rows, key, row)
    {
        (void)json_object_set_new(row, "published", json_integer(published));
    }
    (void)json_object_update(all, rows);
out:
    json_decref(page);
    json_decref(rows);
    return err;
}

/* The name with the greatest backlog, taken out of `backlogs`. */
static json_t *take_greatest(json_t *backlogs)
{
    const char *name = NULL;
    const char *greatest = NULL;
    json_t *backlog = NULL;
    json_int_t value = -1;
    json_object_foreach(backlogs, name, backlog)
    {
        if (json_integer_value(backlog) > value) {
            greatest = name;
            value = json_integer_value(backlog);
        }
    }
    json_t *taken = greatest == NULL ? NULL : json_string(greatest);
    (void)json_object_del(backlogs, json_string_value(taken));
    return taken;
}

static err_t take_topics(struct client *client, const struct top_scope *scope,
                         struct top_sample *out, json_t *backlogs)
{
    TRY(take_names(client, backlogs));
    for (uint64_t i = 0; i < scope->topics_max && json_object_size(backlogs) > 0; i++) {
        json_t *name = take_greatest(backlogs);
        err_t err = take_topic(client, json_string_value(name), out->rows);
        json_decref(name);
        if (err_code(err) == ERR_NOT_FOUND) { /* deleted meanwhile */
            err_free(err);
            err = NULL;
        }
        TRY(err);
    }
    out->topics_left = json_object_size(backlogs);
    return NULL;
}

err_t top_sample_take(struct client *client, const struct top_scope *scope, struct top_sample *out)
{
    err_t err = NULL;
    struct top_sample sample = {.rows = json_object()};
    json_t *backlogs = json_object();
    TRY_OUT(take_broker(client, &sample, backlogs));
    TRY_OUT(scope->topic == NULL ? take_topics(client, scope, &sample, backlogs)
                                 : take_topic(client, scope->topic, sample.rows));
    sample.taken_us = progress_now_us();
    *out = sample;
out:
    json_decref(backlogs);
    if (err != NULL) {
        top_sample_deinit(&sample);
    }
    return err;
}

void top_sample_deinit(struct top_sample *sample)
{
    json_decref(sample->broker);
    json_decref(sample->rows);
    *sample = (struct top_sample){0};
}

/* ---- rates and order ---- */

/* Sets `name` to how much `counter` has grown in a second; what was not there before has no rate,
 * and a counter that begins anew has none either. */
static void set_rate(json_t *object, const json_t *before, const char *name, const char *counter,
                     uint64_t elapsed_us)
{
    json_int_t grown = number_at(object, counter) - number_at(before, counter);
    if (before != NULL && elapsed_us > 0 && grown >= 0) {
        double rate = (double)grown * 1e6 / (double)elapsed_us;
        (void)json_object_set_new(object, name, json_integer((json_int_t)(rate + 0.5)));
    }
}

static uint64_t elapsed_since(const struct top_sample *sample, const struct top_sample *before)
{
    return before == NULL ? 0 : sample->taken_us - before->taken_us;
}

/* Depth is what is not finished; done is what was published and is no longer to be finished. */
static void set_sums(json_t *row)
{
    json_int_t depth =
        number_at(row, "enqueued") + number_at(row, "leased") + number_at(row, "scheduled");
    (void)json_object_set_new(row, "depth", json_integer(depth));
    (void)json_object_set_new(row, "done", json_integer(number_at(row, "published") - depth));
}

static int compare_names(const json_t *a, const json_t *b)
{
    static const char *const names[] = {"topic", "subscription"};
    int order = 0;
    for (size_t i = 0; i < 2 && order == 0; i++) {
        order = strcmp(json_string_value(json_object_get(a, names[i])),
                       json_string_value(json_object_get(b, names[i])));
    }
    return order;
}

/* What qsort compares by: it hands no context on, and there is one thread. */
static const char *sort_field = NULL;

static int compare_rows(const void *a, const void *b)
{
    const json_t *left = *(json_t *const *)a;
    const json_t *right = *(json_t *const *)b;
    json_int_t left_number = sort_field == NULL ? 0 : number_at(left, sort_field);
    json_int_t right_number = sort_field == NULL ? 0 : number_at(right, sort_field);
    if (left_number != right_number) {
        return left_number < right_number ? 1 : -1;
    }
    return compare_names(left, right);
}

static const char *field_of(const char *sort)
{
    static const char *const fields[][2] = {
        {"depth", "depth"}, {"oldest", "oldest_ms"}, {"rate", "published_rate"}, {"dead", "dead"}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (strcmp(sort, fields[i][0]) == 0) {
            return fields[i][1];
        }
    }
    return NULL;
}

json_t *top_sample_rows(const struct top_sample *sample, const struct top_sample *before,
                        const char *sort)
{
    const char *key = NULL;
    json_t *kept = NULL;
    size_t count = 0;
    uint64_t elapsed_us = elapsed_since(sample, before);
    json_t **rows = calloc(json_object_size(sample->rows) + 1, sizeof(json_t *));
    assert(rows != NULL);
    json_object_foreach(sample->rows, key, kept)
    {
        json_t *row = json_copy(kept);
        json_t *earlier = before == NULL ? NULL : json_copy(json_object_get(before->rows, key));
        set_sums(row);
        if (earlier != NULL) {
            set_sums(earlier);
        }
        set_rate(row, earlier, "published_rate", "published", elapsed_us);
        set_rate(row, earlier, "delivered_rate", "cursor", elapsed_us);
        set_rate(row, earlier, "done_rate", "done", elapsed_us);
        json_decref(earlier);
        rows[count] = row;
        count++;
    }
    sort_field = field_of(sort);
    qsort(rows, count, sizeof(json_t *), compare_rows);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(list, rows[i]);
    }
    free(rows);
    return list;
}

json_t *top_sample_broker(const struct top_sample *sample, const struct top_sample *before)
{
    static const char *const rates[][2] = {{"published_rate", "published_total"},
                                           {"delivered_rate", "delivered_total"},
                                           {"acknowledged_rate", "acknowledged_total"},
                                           {"dead_lettered_rate", "dead_lettered_total"},
                                           {"commit_rate", "commits_total"}};
    json_t *broker = json_copy(sample->broker);
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        set_rate(broker, before == NULL ? NULL : before->broker, rates[i][0], rates[i][1],
                 elapsed_since(sample, before));
    }
    return broker;
}
