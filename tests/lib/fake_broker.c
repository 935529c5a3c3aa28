#include "tests/lib/fake_broker.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/deadline.h"

enum { BUFFER_MAX = 64 << 20, SETTLED_MAX = 100 };

void fake_broker_init(struct fake_broker *fake)
{
    *fake = (struct fake_broker){.socket = -1};
    fake->welcome = (struct wire_welcome){.id = 1,
                                          .version = WIRE_VERSION,
                                          .broker = span_text("fake 1"),
                                          .frame_size_max = 16 << 20,
                                          .window_requests = 64,
                                          .window_size = 16 << 20,
                                          .message_size_max = 1 << 20,
                                          .batch_messages_max = 10000,
                                          .pull_messages_max = 10000,
                                          .pull_size_max = 16 << 20,
                                          .wait_max_ms = 20000};
    assert_int_equal(pthread_mutex_init(&fake->lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&fake->dialled, NULL), 0);
    buf_init(&fake->in, BUFFER_MAX);
    buf_init(&fake->out, BUFFER_MAX);
}

void fake_broker_deinit(struct fake_broker *fake)
{
    fake_broker_cut(fake);
    for (uint32_t index = fake->accept_count; index < fake->dial_count; index++) {
        (void)close(fake->sockets[index]);
    }
    buf_deinit(&fake->in);
    buf_deinit(&fake->out);
    (void)pthread_cond_destroy(&fake->dialled);
    (void)pthread_mutex_destroy(&fake->lock);
}

/* ---- connecting -------------------------------------------------------------------------------
 */

static void send_all(int socket, struct span bytes)
{
    while (bytes.size > 0) {
        ssize_t size = send(socket, bytes.data, bytes.size, MSG_NOSIGNAL);
        if (size <= 0) {
            return; /* the client has hung up: what it does then is what the test is about */
        }
        bytes = span_of(bytes.data + size, bytes.size - (size_t)size);
    }
}

/* On the client's thread. */
int fake_broker_dial(void *user)
{
    struct fake_broker *fake = user;
    int pair[2] = {-1, -1};
    struct buf welcome;
    buf_init(&welcome, 4096);
    (void)pthread_mutex_lock(&fake->lock);
    if (fake->refuse_count > 0) {
        fake->refuse_count--;
    } else if (fake->dial_count < FAKE_BROKER_DIALS_MAX &&
               socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
        wire_encode(&welcome, WIRE_welcome, &fake->welcome);
        if (fake->instead.size > 0) {
            send_all(pair[0], fake->instead);
        } else if (!fake->is_silent) {
            send_all(pair[0], buf_span(&welcome));
        }
        fake->sockets[fake->dial_count] = pair[0];
        fake->dial_count++;
    }
    (void)pthread_cond_broadcast(&fake->dialled);
    (void)pthread_mutex_unlock(&fake->lock);
    buf_deinit(&welcome);
    return pair[1];
}

uint32_t fake_broker_dials(struct fake_broker *fake)
{
    (void)pthread_mutex_lock(&fake->lock);
    uint32_t count = fake->dial_count;
    (void)pthread_mutex_unlock(&fake->lock);
    return count;
}

void fake_broker_refuse(struct fake_broker *fake, uint32_t count)
{
    (void)pthread_mutex_lock(&fake->lock);
    fake->refuse_count = count;
    (void)pthread_mutex_unlock(&fake->lock);
}

void fake_broker_accept(struct fake_broker *fake)
{
    struct wire_frame hello;
    const struct deadline deadline = deadline_in(FAKE_BROKER_TIMEOUT_MS);
    bool in_time = true;
    fake_broker_cut(fake);
    (void)pthread_mutex_lock(&fake->lock);
    while (fake->accept_count == fake->dial_count && in_time) {
        in_time = deadline_wait(&deadline, &fake->dialled, &fake->lock);
    }
    if (in_time) {
        fake->socket = fake->sockets[fake->accept_count];
        fake->accept_count++;
    }
    (void)pthread_mutex_unlock(&fake->lock);
    assert_true(in_time);
    fake_broker_expect(fake, WIRE_hello, &hello);
}

void fake_broker_cut(struct fake_broker *fake)
{
    if (fake->socket >= 0) {
        (void)close(fake->socket);
        fake->socket = -1;
    }
    fake->read_size = 0;
    buf_reset(&fake->in);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Of the first frame that is there; 0: it is not there as a whole. */
static size_t whole_size(const struct buf *in)
{
    if (in->size < WIRE_SIZE_BYTES) {
        return 0;
    }
    size_t size = WIRE_SIZE_BYTES + wire_frame_size(in->data);
    return in->size >= size ? size : 0;
}

/* False: nothing has come. */
static bool read_more(struct fake_broker *fake, int wait_ms)
{
    struct pollfd polled = {.fd = fake->socket, .events = POLLIN};
    uint8_t bytes[65536];
    if (poll(&polled, 1, wait_ms) <= 0) {
        return false;
    }
    ssize_t size = recv(fake->socket, bytes, sizeof bytes, 0);
    if (size > 0) {
        buf_append(&fake->in, bytes, (size_t)size);
    }
    return size > 0;
}

void fake_broker_expect_any(struct fake_broker *fake, struct wire_frame *out)
{
    buf_consume(&fake->in, fake->read_size);
    fake->read_size = 0;
    while (whole_size(&fake->in) == 0) {
        if (!read_more(fake, FAKE_BROKER_TIMEOUT_MS)) {
            fail_msg("no frame has come");
        }
    }
    fake->read_size = whole_size(&fake->in);
    err_t err = wire_decode(
        span_of(fake->in.data + WIRE_SIZE_BYTES, fake->read_size - WIRE_SIZE_BYTES), out);
    assert_null(err);
}

void fake_broker_expect(struct fake_broker *fake, enum wire_type type, struct wire_frame *out)
{
    fake_broker_expect_any(fake, out);
    if (out->type != type) {
        fail_msg("%s has come instead of %s", wire_shape(out->type)->name, wire_shape(type)->name);
    }
}

struct span fake_broker_bytes(const struct fake_broker *fake)
{
    return span_of(fake->in.data, fake->read_size);
}

bool fake_broker_is_quiet(struct fake_broker *fake, uint32_t wait_ms)
{
    return fake->in.size == fake->read_size && !read_more(fake, (int)wait_ms);
}

void fake_broker_take(struct fake_broker *fake)
{
    while (read_more(fake, 0)) {
    }
}

void fake_broker_drain(struct fake_broker *fake)
{
    fake_broker_take(fake);
    fake->read_size = 0;
    buf_reset(&fake->in);
}

void fake_broker_expect_end(struct fake_broker *fake)
{
    while (read_more(fake, FAKE_BROKER_TIMEOUT_MS)) {
    }
    uint8_t byte;
    ssize_t size = recv(fake->socket, &byte, 1, MSG_DONTWAIT);
    assert_true(size == 0 || (size < 0 && errno == ECONNRESET));
}

/* ---- writing ----------------------------------------------------------------------------------
 */

void fake_broker_send_raw(struct fake_broker *fake, struct span bytes)
{
    send_all(fake->socket, bytes);
}

void fake_broker_send(struct fake_broker *fake, enum wire_type type, const void *message)
{
    buf_reset(&fake->out);
    wire_encode(&fake->out, type, message);
    assert_false(fake->out.failed);
    fake_broker_send_raw(fake, buf_span(&fake->out));
}

void fake_broker_publish(struct fake_broker *fake, const struct wire_frame *publish,
                         enum flare_code code, uint64_t sequence)
{
    static const uint8_t id[12] = {0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0xff};
    const uint32_t count = publish->publish.messages.count;
    struct wire_published published = {.id = publish->id, .results = {.count = count}};
    buf_reset(&fake->out);
    size_t start = wire_begin(&fake->out, WIRE_published, &published);
    for (uint32_t index = 0; index < count; index++) {
        struct wire_result result = {.id = span_of(id, code == FLARE_OK ? sizeof id : 0),
                                     .shard = 3,
                                     .sequence = sequence + index,
                                     .code = (uint32_t)code};
        wire_put_record(&fake->out, WIRE_RECORD_result, &result);
    }
    wire_end(&fake->out, start, WIRE_published, &published);
    fake_broker_send_raw(fake, buf_span(&fake->out));
}

void fake_broker_fail(struct fake_broker *fake, uint64_t id, enum flare_code code)
{
    const struct wire_failure failure = {.id = id,
                                         .code = (uint32_t)code,
                                         .slug = span_text(flare_code_name(code)),
                                         .detail = span_text("said by the fake")};
    fake_broker_send(fake, WIRE_failure, &failure);
}

void fake_broker_deliver(struct fake_broker *fake, enum wire_type type, uint64_t id, uint32_t first,
                         uint32_t count)
{
    struct wire_pulled pulled = {.id = id, .deliveries = {.count = count}};
    buf_reset(&fake->out);
    size_t start = wire_begin(&fake->out, type, &pulled);
    for (uint32_t index = first; index < first + count; index++) {
        char text[16];
        (void)snprintf(text, sizeof text, "m%u", index);
        struct wire_delivery delivery = {.id = span_text("twelve bytes"),
                                         .receipt = span_text(text),
                                         .shard = 3,
                                         .sequence = index,
                                         .attempt = 1,
                                         .published_ms = 1000,
                                         .lease_until_ms = 2000,
                                         .body = span_text(text),
                                         .epoch = 7};
        wire_put_record(&fake->out, WIRE_RECORD_delivery, &delivery);
    }
    wire_end(&fake->out, start, type, &pulled);
    fake_broker_send_raw(fake, buf_span(&fake->out));
}

static const struct wire_list *receipts_of(const struct wire_frame *settle)
{
    return settle->type == WIRE_ack    ? &settle->ack.receipts
           : settle->type == WIRE_nack ? &settle->nack.receipts
                                       : &settle->extend.receipts;
}

bool fake_broker_has_receipt(const struct wire_frame *settle, uint32_t index, const char *text)
{
    struct wire_items items;
    struct wire_receipt receipt;
    bool is_there = true;
    wire_items_begin(&items, "receipts", WIRE_RECORD_receipt, receipts_of(settle));
    for (uint32_t at = 0; at <= index && is_there; at++) {
        is_there = wire_items_next(&items, &receipt);
    }
    err_free(wire_items_finish(&items));
    return is_there && span_is(receipt.receipt, text);
}

/* `codes` has one for each receipt; NULL: all took effect. */
static void settle_each(struct fake_broker *fake, const struct wire_frame *settle,
                        const enum flare_code *codes)
{
    const struct wire_list *receipts = receipts_of(settle);
    uint32_t count = codes == NULL ? 0 : receipts->count;
    struct wire_settled settled = {.id = settle->id,
                                   .count = receipts->count,
                                   .lease_ms = settle->type == WIRE_extend ? 400 : 0,
                                   .codes = {.count = count}};
    buf_reset(&fake->out);
    size_t start = wire_begin(&fake->out, WIRE_settled, &settled);
    for (uint32_t index = 0; index < count; index++) {
        struct wire_code one = {.code = (uint32_t)codes[index]};
        wire_put_record(&fake->out, WIRE_RECORD_code, &one);
    }
    wire_end(&fake->out, start, WIRE_settled, &settled);
    fake_broker_send_raw(fake, buf_span(&fake->out));
}

void fake_broker_settle(struct fake_broker *fake, const struct wire_frame *settle,
                        enum flare_code code)
{
    enum flare_code codes[SETTLED_MAX];
    for (uint32_t index = 0; index < SETTLED_MAX; index++) {
        codes[index] = code;
    }
    assert_true(receipts_of(settle)->count <= SETTLED_MAX);
    settle_each(fake, settle, code == FLARE_OK ? NULL : codes);
}

void fake_broker_settle_but(struct fake_broker *fake, const struct wire_frame *settle,
                            const char *receipt, enum flare_code code)
{
    enum flare_code codes[SETTLED_MAX];
    assert_true(receipts_of(settle)->count <= SETTLED_MAX);
    for (uint32_t index = 0; index < receipts_of(settle)->count; index++) {
        codes[index] = fake_broker_has_receipt(settle, index, receipt) ? code : FLARE_OK;
    }
    settle_each(fake, settle, codes);
}
