/* The client's reader: whatever a broker sends, cut into reads in any way. Properties: nothing but
 * frames moves it, each request is answered or failed exactly once, and what the bytes mean does
 * not depend on how they were cut. */
#include "tests/fuzz/fuzz.h"

#include <sys/socket.h>
#include <unistd.h>

#include "client/call.h"
#include "client/intake.h"
#include "client/parcel.h"

enum { FUZZ_PUBLISHES = 3, FUZZ_STORY_MAX = 1 << 20 };

/* What callbacks have said, in order. */
struct fuzz_story {
    struct buf text;
    uint32_t ends; /* of messages */
};

static void on_published(void *user, const struct flare_result *result,
                         const struct flare_error *error)
{
    struct fuzz_story *story = user;
    FUZZ_REQUIRE((error == NULL) == (result->code == FLARE_OK));
    FUZZ_REQUIRE(strlen(result->id) <= FLARE_ID_SIZE - 1);
    buf_printf(&story->text, "published %d %s %u %llu\n", (int)result->code, result->id,
               result->shard, (unsigned long long)result->sequence);
    story->ends++;
}

static void on_pulled(void *user, struct flare_batch *batch, const struct flare_error *error)
{
    struct fuzz_story *story = user;
    FUZZ_REQUIRE((batch == NULL) == (error != NULL));
    buf_printf(&story->text, "pulled %d\n", error == NULL ? 0 : (int)error->code);
    for (size_t index = 0; batch != NULL && index < flare_batch_count(batch); index++) {
        const struct flare_delivery *delivery = flare_batch_get(batch, index);
        char value[16];
        FUZZ_REQUIRE(delivery->receipt.size <= sizeof delivery->receipt.bytes);
        bool has_a = flare_delivery_attribute(delivery, "a", value, sizeof value);
        buf_printf(&story->text, "  %s %zu %d\n", delivery->id, delivery->body_size, has_a);
    }
    flare_batch_free(batch);
}

static void on_settled(void *user, const enum flare_code *codes, size_t count,
                       const struct flare_error *error)
{
    struct fuzz_story *story = user;
    FUZZ_REQUIRE((codes == NULL) == (error != NULL));
    buf_printf(&story->text, "settled %zu %d\n", count, codes == NULL ? -1 : (int)codes[0]);
}

static enum flare_verdict handle(void *user, const struct flare_delivery *delivery)
{
    (void)user;
    (void)delivery;
    return FLARE_ACK;
}

static void on_state(void *user, enum flare_state state, const char *detail)
{
    struct fuzz_story *story = user;
    (void)detail;
    buf_printf(&story->text, "state %d\n", (int)state);
}

/* A stream without threads, whose deliveries wait for good. */
static struct flare_stream *fuzz_stream(struct flare_client *client)
{
    static const struct flare_source source = {"t", "s"};
    static const struct flare_stream_options options = {
        .handler = handle, .concurrency = 4, .bytes = 1000, .lease_ms = 1000};
    struct flare_stream *stream = intake_create(client, &source, &options);
    FUZZ_REQUIRE(stream != NULL);
    stream->is_detached = false;
    list_append(&client->joining, &stream->link);
    return stream;
}

static void fuzz_request(struct flare_client *client, struct fuzz_story *story)
{
    static const struct flare_source source = {"t", "s"};
    static const struct flare_receipt receipts[2] = {{1, {1}}, {1, {2}}};
    static const struct flare_settle settle = {
        .kind = FLARE_SETTLE_ACK, .receipts = receipts, .count = 2};
    for (uint32_t index = 0; index < FUZZ_PUBLISHES; index++) {
        const struct flare_message message = {.body = "x", .body_size = 1};
        FUZZ_REQUIRE(flare_publish_async(client, "t", &message, on_published, story, NULL) ==
                     FLARE_OK);
    }
    FUZZ_REQUIRE(flare_pull_async(client, &source, NULL, on_pulled, story, NULL) == FLARE_OK);
    FUZZ_REQUIRE(flare_settle_async(client, &source, &settle, on_settled, story, NULL) == FLARE_OK);
}

/* As if a connection had been made; what is asked for is really written. */
static void fuzz_connect(struct flare_client *client, int pair[2])
{
    FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    client->peer.socket = pair[0];
    client->peer.step = PEER_READY;
    client->has_greeted = true;
    client->welcome = (struct wire_welcome){.version = 1,
                                            .frame_size_max = 1 << 16,
                                            .window_requests = 64,
                                            .message_size_max = 1 << 16,
                                            .batch_messages_max = 100};
    engine_turn(client);
    FUZZ_REQUIRE(client->peer.by_id.count == 4);
}

static void fuzz_feed(struct flare_client *client, struct span bytes, const uint8_t *cuts)
{
    size_t begin = 0;
    size_t end = 0;
    err_t err = NULL;
    while (err == NULL && end < bytes.size) {
        size_t step = cuts == NULL ? bytes.size : (size_t)(cuts[end % 16] % 8) + 1;
        size_t used = 0;
        end = bytes.size - end < step ? bytes.size : end + step;
        err = peer_receive(client, span_of(bytes.data + begin, end - begin), &used);
        FUZZ_REQUIRE(used <= end - begin);
        begin += used;
    }
    err_free(err);
}

/* Closes the stream and fails what is left, as flare_close does. */
static void fuzz_close(struct flare_client *client, struct flare_stream *stream)
{
    const struct flare_error closed = {.code = FLARE_ERR_UNAVAILABLE, .message = "closed"};
    stream->is_closing = true;
    engine_turn(client);
    peer_stop(client);
    peer_fail_all(client, &closed);
    outbox_fail_all(client, &closed);
    intake_turn(client);
    FUZZ_REQUIRE(stream->is_detached);
    intake_destroy(stream);
    engine_close_loop(client);
    engine_destroy(client);
}

static void fuzz_run(struct span bytes, const uint8_t *cuts, struct fuzz_story *story)
{
    struct flare_client *client = NULL;
    int pair[2];
    const struct flare_options options = {
        .url = "localhost:1", .on_state = on_state, .user = story};
    FUZZ_REQUIRE(engine_create(&options, &client) == NULL);
    FUZZ_REQUIRE(engine_open_loop(client) == NULL);
    clock_init_simulated(&client->clock, 1000); /* no pause ends while it runs */
    buf_init(&story->text, FUZZ_STORY_MAX);
    struct flare_stream *stream = fuzz_stream(client);
    fuzz_request(client, story);
    fuzz_connect(client, pair);
    fuzz_feed(client, bytes, cuts);
    buf_printf(&story->text, "stream %llu %u\n", (unsigned long long)stream->counts.delivered,
               stream->here);
    fuzz_close(client, stream);
    FUZZ_REQUIRE(story->ends == FUZZ_PUBLISHES);
    (void)close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_story whole = {0};
    struct fuzz_story cut = {0};
    if (size < 16) {
        return 0;
    }
    struct span bytes = span_of(data + 16, size - 16);
    fuzz_run(bytes, NULL, &whole);
    fuzz_run(bytes, data, &cut);
    FUZZ_REQUIRE(span_equal(buf_span(&whole.text), buf_span(&cut.text)));
    buf_deinit(&whole.text);
    buf_deinit(&cut.text);
    return 0;
}
