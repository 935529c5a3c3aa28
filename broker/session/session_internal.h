/* Private to the server: connections, what they read into, requests and streams. */
#ifndef SESSION_SESSION_INTERNAL_H
#define SESSION_SESSION_INTERNAL_H

#include "broker/base/arena.h"
#include "broker/base/list.h"
#include "broker/base/map.h"
#include "broker/net/listener.h"
#include "broker/session/session.h"
#include "broker/wire/message.h"

enum {
    SESSION_CHUNK_SIZE = 128 * 1024, /* read at once */
    SESSION_CHUNKS_KEPT = 64,
    SESSION_REQUESTS_KEPT = 512,
    SESSION_ARENA_KEEP = 32 * 1024, /* memory a request that is not in use keeps */
    SESSION_ARENA_MAX = 64 << 20,
    SESSION_OUT_KEEP = 256 * 1024, /* memory of an output buffer that is not in use */
    SESSION_OUT_HIGH = 1 << 20,  /* unsent bytes, beyond which nothing more is begun for a client */
    SESSION_OUT_HELD = 64 << 20, /* and beyond which what pulls were given meanwhile goes back */
    SESSION_OUT_MAX = 1 << 30,
    SESSION_HELLO_SIZE_MAX = 4096,
    SESSION_DROP_MAX = 64 * 1024, /* input dropped after the last answer, so that it is read */
    SESSION_LINGER_MS = 2000,     /* and how long for */
    SESSION_TICK_MS = 200,        /* how late a deadline may be noticed */
    SESSION_KEEPALIVE_S = 30,
    SESSION_DELIVER_MAX = 1000, /* messages in one frame of a stream */
    SESSION_DELIVER_SIZE = 1 << 20,
    SESSION_PULL_SIZE_MIN = 64 * 1024, /* however many pulls share the bound */
    SESSION_CREDIT_MAX = 1 << 30,
};

/* What a connection reads into. Requests point into it, so it lives as long as the last of them. */
struct session_chunk {
    struct list_link link; /* in the server's unused ones */
    uint32_t refs;
    size_t capacity;
    size_t size; /* bytes read */
    uint8_t data[];
};

enum session_step {
    SESSION_HELLO,   /* its first frame has not come */
    SESSION_OPEN,    /* it is served */
    SESSION_ENDING,  /* input is dropped; what is begun is answered, then half-closed */
    SESSION_LINGER,  /* half-closed; input is dropped */
    SESSION_CLOSING, /* its handle is being closed */
    SESSION_STEPS,
};

struct session_conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe; /* of a local socket */
    };
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct session_server *server;
    struct list_link link;  /* in server->steps[step] */
    struct list_link dirty; /* in server->dirty */
    enum session_step step;
    bool is_reading;
    bool is_writing; /* `writing` is libuv's */
    uint64_t id;     /* for the log */
    uint64_t deadline_us;
    uint64_t input_us;    /* until when more of a frame that has begun must come */
    uint64_t progress_us; /* until when a write must make progress */
    size_t unwritten;     /* of it, when last looked at */
    size_t dropped;
    struct session_chunk *chunk; /* NULL: no input is kept */
    size_t at;                   /* of the chunk: the begin of the first frame not yet taken */
    struct buf out;
    struct buf writing;
    struct list requests;
    struct map request_map; /* by id */
    struct list streams;
    struct map stream_map; /* by id */
    uint32_t request_count;
    uint32_t pull_count;
    uint64_t request_size;
};

/* One request under way. Its spans point into its chunk, its arena is its own. */
struct session_request {
    struct list_link link;     /* in conn->requests, or in the server's unused ones */
    struct session_conn *conn; /* NULL: the client is gone */
    struct session_server *server;
    struct session_chunk *chunk;
    uint64_t id;
    size_t size; /* of its frame, and of its memory */
    struct arena arena;
    struct wire_frame frame;
    uint32_t sub_id;
    union {
        struct router_operation operation;
        struct router_publish publish;
        struct router_pull pull;
        struct router_settle settle;
        struct router_configure configure;
    };
};

struct session_stream {
    struct list_link link;     /* in conn->streams */
    struct session_conn *conn; /* NULL: the client is gone */
    struct session_server *server;
    uint64_t id;
    struct arena arena; /* of the pull */
    struct router_pull pull;
    bool is_pulling;
    bool is_cancelled;
    uint32_t sub_id;
    int64_t messages; /* credit; bytes may be below 0 */
    int64_t bytes;
    uint64_t lease_ms;
    size_t topic_size;
    size_t sub_size;
    uint8_t topic[255];
    uint8_t sub[255];
};

struct session_server {
    struct session_options options;
    struct net_listener listener;
    uv_timer_t timer;
    uv_prepare_t before_wait;
    bool is_draining;
    bool is_destroyed;
    bool has_timer;
    uint32_t handle_count;
    uint32_t conn_count;
    uint64_t conn_id;
    struct list steps[SESSION_STEPS];
    struct list dirty; /* connections with something to send or to look at again */
    struct list chunks;
    uint32_t chunk_count;
    struct list requests;
    uint32_t request_count;
    struct buf spare_out;
    void (*on_closed)(void *user);
    void *closed_user;
};

/* ---- server.c ---- */

struct session_chunk *session_chunk_take(struct session_server *server, size_t capacity);
void session_chunk_drop(struct session_server *server, struct session_chunk *chunk);
struct session_request *session_request_take(struct session_server *server);
void session_request_give(struct session_server *server, struct session_request *request);
/* Cuts every connection whose deadline has passed. The timer calls it, and tests do. */
void session_server_tick(struct session_server *server);
void session_server_handle_closed(struct session_server *server);

/* ---- conn.c ---- */

/* Serves what has just been accepted (fd < 0) or the given socket. */
err_t session_conn_begin(struct session_server *server, int fd) MUST_CHECK;
/* At the end of a turn: sends what has gathered, takes what is waiting to be read. */
void session_conn_turn(struct session_conn *conn);
void session_conn_on_deadline(struct session_conn *conn, uint64_t now_us);
/* Hello has been said. */
void session_conn_open(struct session_conn *conn);
/* Makes the turn come. */
void session_conn_touch(struct session_conn *conn);
/* Takes no further request; the connection ends when what is begun has been answered. */
void session_conn_end(struct session_conn *conn);
void session_conn_close(struct session_conn *conn);
/* The client has too much unread to be given more. */
bool session_conn_is_full(const struct session_conn *conn);
/* And so much that what it is given now has to go back. */
bool session_conn_is_over(const struct session_conn *conn);
bool session_conn_is_idle(const struct session_conn *conn);

/* What will be sent at the end of the turn, for frames to be appended. */
struct buf *session_conn_out(struct session_conn *conn);
/* Appends a frame to it. */
void session_conn_send(struct session_conn *conn, enum wire_type type, const void *message);
/* Answers a request, or the connection itself (id 0), with a failure. `detail` may be NULL or
 * empty. */
void session_conn_fail(struct session_conn *conn, uint64_t id, enum err_code code,
                       const char *detail);

/* ---- requests.c, request_pull.c ---- */

/* One whole frame, which lies in conn->chunk. */
void session_on_frame(struct session_conn *conn, struct span payload);
/* The client is gone: what it asked for goes on, pulls go back. */
void session_request_abandon(struct session_request *request);
/* Lowers what a pull asks for to what one frame can bring. A message alone fits in any case. */
void session_fit_frame(const struct session_server *server, struct router_pull *pull);
/* What a pull or a stream was given, as the frame's list. */
void session_put_deliveries(struct buf *out, enum wire_type type, uint64_t id, uint32_t sub_id,
                            const struct router_operation *operation);

/* ---- stream.c ---- */

void session_stream_open(struct session_conn *conn, const struct wire_consume *consume,
                         uint32_t sub_id);
/* An id without a stream is passed over. */
void session_stream_credit(struct session_conn *conn, const struct wire_credit *credit);
void session_stream_cancel(struct session_conn *conn, const struct wire_cancel *cancel);
void session_stream_abandon(struct session_stream *stream);
/* Asks for what its credit allows, unless it is asking; ends it when there is nothing to ask. */
void session_stream_go(struct session_stream *stream);

#endif
