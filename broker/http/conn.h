/* Private to the server: connections, the pool of exchanges, and the server they belong to.
 *
 * A connection is always in exactly one step, and linked in its server's list of that step. All
 * connections of a step wait equally long, so each list is in the order of its deadlines and one
 * timer walks the heads; nothing is scanned. A connection holds a slot (memory for one request and
 * its answer) from the first byte of a request to the last of its answer, and nothing but its
 * struct otherwise. */
#ifndef HTTP_CONN_H
#define HTTP_CONN_H

#include "broker/base/list.h"
#include "broker/http/parse.h"
#include "broker/http/server.h"
#include "broker/net/listener.h"

enum {
    HTTP_READ_SIZE = 24 * 1024,   /* one read buffer for all connections of a server */
    HTTP_PENDING_MAX = 24 * 1024, /* input kept while a request is being answered */
    HTTP_DRAIN_MAX =
        32 * 1024,         /* input dropped after a refusal, so that the client reads the answer */
    HTTP_LINGER_MS = 2000, /* and how long for */
    HTTP_BODY_WINDOW_MS = 5000, /* the body rate is looked at so often */
    HTTP_TICK_MS = 200,         /* how late a deadline may be noticed */
    HTTP_REFUSED_MAX = 64,      /* connections over the limit that are told so at the same time */
    HTTP_SLOTS_KEPT = 256,      /* free slots kept */
    HTTP_ARENA_KEEP = 4 * 1024, /* arena memory a free slot keeps */
    HTTP_ANSWER_HEAD_MAX = 64 * 1024,
    HTTP_KEEPALIVE_S = 30, /* TCP keep-alive: finds clients that vanished without a word */
    HTTP_DATE_SIZE = 30,   /* "Sun, 06 Nov 1994 08:49:37 GMT", terminated */
};

/* What is read beyond the body limit: the chunk overhead, and what is dropped at the end. */
_Static_assert(HTTP_CHUNK_OVERHEAD_MAX + HTTP_DRAIN_MAX <= 64 * 1024, "server.h promises 64 KiB");
_Static_assert(HTTP_PENDING_MAX < HTTP_DRAIN_MAX, "what is pending at a refusal may be dropped");
_Static_assert(HTTP_READ_SIZE <= HTTP_PENDING_MAX, "what a read brings can be kept");

enum http_step {
    HTTP_STEP_IDLE,    /* between requests */
    HTTP_STEP_HEAD,    /* a request has begun */
    HTTP_STEP_BODY,    /* its headers are complete */
    HTTP_STEP_WAITING, /* the handler has it */
    HTTP_STEP_WRITING, /* the answer is on its way */
    HTTP_STEP_LINGER,  /* answered and half-closed; input is dropped */
    HTTP_STEP_CLOSING, /* its handle is being closed */
    HTTP_STEP_COUNT,
};

struct http_slot {
    struct http_exchange exchange; /* what the handler sees */
    struct http_server *server;    /* NULL: destroyed before the answer */
    struct http_conn *conn;        /* NULL: the client went away before the answer */
    struct list_link link;         /* in the server's list of free or of handled slots */
    bool handled;                  /* the handler has it and has not answered */
    struct http_parse parse;
    struct buf extra;  /* headers the handler adds */
    struct buf head;   /* of the answer */
    struct buf answer; /* its body */
    uv_write_t write;
};

struct http_conn {
    uv_tcp_t tcp;
    uv_shutdown_t shutdown;
    struct http_server *server;
    struct http_slot *slot; /* NULL between requests */
    struct list_link link;  /* in server->steps[step] */
    enum http_step step;
    bool is_refused; /* over the connection limit: exists to say so */
    bool is_feeding; /* input is being decoded further up the stack */
    bool is_reading; /* libuv reads */
    bool ends;       /* to be closed once the answer is sent */
    bool lingers;    /* and more input may be on its way */
    uint64_t deadline_us;
    uint64_t body_start_us; /* end of the headers */
    size_t progress;        /* body bytes, or bytes left to write, when last looked at */
    size_t dropped;         /* input bytes dropped while lingering */
    uint32_t request_count;
    struct buf pending; /* input behind the request being answered */
    size_t pending_used;
};

struct http_server {
    struct http_server_options options;
    struct net_listener listener;
    uv_timer_t timer;
    bool is_draining;
    bool is_destroyed;
    bool has_timer;
    uint32_t handle_count; /* open libuv handles; the server is freed with the last one */
    uint32_t open_count;   /* connections served */
    uint32_t refused_count;
    uint32_t pending_count;
    uint8_t *read_buffer;
    struct list steps[HTTP_STEP_COUNT];
    uint64_t timeouts_us[HTTP_STEP_COUNT]; /* UINT64_MAX: none */
    struct list handled_slots;
    struct list free_slots;
    uint32_t free_slot_count;
    struct http_counters counters;
    uint64_t date_s;
    char date[HTTP_DATE_SIZE];
    void (*on_closed)(void *user);
    void *closed_user;
};

/* ---- conn.c --------------------------------------------------------------------------------- */

/* Takes the next connection of the listener. */
void http_conn_accept(struct http_server *server);
/* Sends what the slot holds and goes on with the connection. */
void http_conn_send(struct http_conn *conn);
/* At once; a request being handled is abandoned. Does nothing the second time. */
void http_conn_close(struct http_conn *conn);
void http_conn_on_deadline(struct http_conn *conn, uint64_t now_us);

/* ---- exchange.c ------------------------------------------------------------------------------ */

/* A slot ready to decode a request; NULL: no memory. */
struct http_slot *http_slot_acquire(struct http_server *server);
/* The exchange has ended; the slot goes back to the pool. */
void http_slot_release(struct http_slot *slot);
void http_slot_destroy(struct http_slot *slot);
/* Hands the decoded request to the handler. */
void http_slot_handle(struct http_slot *slot);
/* The client is gone: the handler is told, and its answer will be dropped. */
void http_slot_abandon(struct http_slot *slot);
/* Writes the answer to a request that cannot be handled into the slot. */
void http_slot_refuse(struct http_slot *slot, enum err_code code, const char *detail);

/* ---- server.c -------------------------------------------------------------------------------- */

/* Cuts every connection whose deadline has passed. The timer calls it, and tests do. */
void http_server_tick(struct http_server *server);
/* A libuv handle of the server is gone; frees a destroyed server with the last. */
void http_server_on_handle_closed(struct http_server *server);
/* The value of the Date header. */
const char *http_server_date(struct http_server *server);

#endif
