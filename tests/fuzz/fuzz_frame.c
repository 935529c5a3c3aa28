/* A connection of the wire protocol, fed with any bytes in pieces, over volumes on memory stores.
 * Property: nothing crashes, every answer is a frame that decodes, nothing comes after the end, and
 * the server has no connection left when the client has gone. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/sessions.h"

enum { TURNS = 8, PIECES = 4 };

static struct sessions sessions;

/* Once for all inputs: threads are dear. What inputs leave behind in the topics is theirs to share.
 */
static void open_once(void)
{
    static bool is_open;
    if (!is_open) {
        is_open = true;
        sessions_open(&sessions, 2, NULL);
    }
}

static void require_frames(struct buf *in)
{
    while (in->size >= WIRE_SIZE_BYTES) {
        size_t size = WIRE_SIZE_BYTES + (size_t)wire_frame_size(in->data);
        struct wire_frame frame;
        FUZZ_REQUIRE(size <= sessions_limits.frame_size_max + WIRE_SIZE_BYTES);
        if (in->size < size) {
            break;
        }
        FUZZ_REQUIRE(wire_decode(span_of(in->data + WIRE_SIZE_BYTES, size - WIRE_SIZE_BYTES),
                                 &frame) == NULL);
        FUZZ_REQUIRE(wire_shape(frame.type)->sender == WIRE_FROM_BROKER);
        buf_consume(in, size);
    }
}

static void receive(int fd, struct buf *in)
{
    static uint8_t bytes[64 * 1024];
    ssize_t size;
    while ((size = recv(fd, bytes, sizeof bytes, 0)) > 0) {
        buf_append(in, bytes, (size_t)size);
    }
    require_frames(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t hello[] = {0, 0, 0, 4, 0x93, 1, 1, 1};
    int fds[2];
    struct buf in;
    open_once();
    buf_init(&in, 64 << 20);
    FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    FUZZ_REQUIRE(session_server_adopt(sessions.server, fds[1]) == NULL);
    /* An odd first byte: the input says hello itself, or fails to. */
    if (size > 0 && data[0] % 2 == 0) {
        FUZZ_REQUIRE(send(fds[0], hello, sizeof hello, MSG_NOSIGNAL) == (ssize_t)sizeof hello);
    }
    size_t at = size > 0;
    for (int piece = 0; piece < PIECES; piece++) {
        size_t part = piece == PIECES - 1 ? size - at : (size - at) / 2;
        ssize_t sent = part == 0 ? 0 : send(fds[0], data + at, part, MSG_NOSIGNAL);
        at += sent > 0 ? (size_t)sent : 0;
        sessions_turn(&sessions);
        receive(fds[0], &in);
    }
    for (int turn = 0; turn < TURNS; turn++) {
        sessions_turn(&sessions);
        receive(fds[0], &in);
    }
    close(fds[0]);
    while (metrics_get(&sessions.metrics.wire_connections_open) > 0) {
        sessions_turn(&sessions);
    }
    while (router_pending(sessions.volumes.router) > 0) {
        sessions_turn(&sessions);
    }
    buf_deinit(&in);
    return 0;
}
