/* Private to the requests of the wire protocol: what each kind does, and what they share. */
#ifndef SESSION_REQUESTS_H
#define SESSION_REQUESTS_H

#include "broker/session/session_internal.h"

/* Memory of the request, until it is answered; NULL: that would be too much. */
void *session_request_alloc(struct session_request *request, size_t count, size_t size);
/* Frees what the router has answered; the connection may take more now. */
void session_request_end(struct session_request *request);
/* Before its operation is started. */
void session_request_prepare(struct session_request *request, router_done done);
/* Whether the operation has failed as a whole; then its request is answered so. */
bool session_request_failed(struct session_request *request);

/* The subscription, if it can be asked; the router says the same of what it is given later. */
err_t session_find_sub(const struct session_server *server, struct span topic_name,
                       struct span name, struct catalog_sub **out) MUST_CHECK;
err_t session_check_lease(uint64_t lease_ms) MUST_CHECK;
/* Whether what may wait for long, its streams and pulls and `more` of them, fills the window of the
 * connection: then nothing would be read of it, neither credit nor a cancel nor that it has ended.
 */
bool session_fills_window(const struct session_conn *conn, uint32_t more);

/* Each starts the operation that its frame asks for, or says what is wrong with the frame. */
err_t session_publish_start(struct session_request *request) MUST_CHECK;
err_t session_pull_start(struct session_request *request) MUST_CHECK;
err_t session_ack_start(struct session_request *request) MUST_CHECK;
err_t session_nack_start(struct session_request *request) MUST_CHECK;
err_t session_extend_start(struct session_request *request) MUST_CHECK;
err_t session_topic_put_start(struct session_request *request) MUST_CHECK;
err_t session_sub_put_start(struct session_request *request) MUST_CHECK;

#endif
