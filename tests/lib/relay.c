#include "tests/lib/relay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
}

/* When one side ends, so do both. */
static void *copy(void *argument)
{
    const struct relay_direction *direction = argument;
    char bytes[16384];
    bool open = true;
    while (open) {
        ssize_t size = recv(direction->from, bytes, sizeof bytes, 0);
        open = size > 0;
        for (ssize_t done = 0; open && done < size;) {
            ssize_t sent = send(direction->to, bytes + done, (size_t)(size - done), MSG_NOSIGNAL);
            open = sent > 0;
            done += sent;
        }
    }
    (void)shutdown(direction->from, SHUT_RDWR);
    (void)shutdown(direction->to, SHUT_RDWR);
    return NULL;
}

/* A connection to the target, -1: there is none. */
static int dial(uint16_t target)
{
    const struct sockaddr_in address = loopback(target);
    if (target == 0) {
        return -1;
    }
    int outer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (outer >= 0 && connect(outer, (const struct sockaddr *)&address, sizeof address) != 0) {
        (void)close(outer);
        return -1;
    }
    return outer;
}

static void *serve(void *argument)
{
    struct relay *relay = argument;
    for (;;) {
        int inner = accept(relay->listener, NULL, NULL);
        if (inner < 0) {
            return NULL; /* relay_deinit */
        }
        int outer = relay->count == RELAY_CONNECTIONS_MAX ? -1 : dial(atomic_load(&relay->target));
        if (outer < 0) {
            (void)close(inner);
            continue;
        }
        struct relay_direction *both = relay->directions[relay->count++];
        both[0] = (struct relay_direction){.from = inner, .to = outer};
        both[1] = (struct relay_direction){.from = outer, .to = inner};
        (void)pthread_create(&both[0].thread, NULL, copy, &both[0]);
        (void)pthread_create(&both[1].thread, NULL, copy, &both[1]);
    }
}

void relay_init(struct relay *relay, uint16_t target)
{
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    *relay = (struct relay){.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    atomic_store(&relay->target, target);
    assert_true(relay->listener >= 0);
    assert_int_equal(bind(relay->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(relay->listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(listen(relay->listener, SOMAXCONN), 0);
    relay->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&relay->thread, NULL, serve, relay), 0);
}

void relay_lead(struct relay *relay, uint16_t target)
{
    atomic_store(&relay->target, target);
}

void relay_deinit(struct relay *relay)
{
    (void)shutdown(relay->listener, SHUT_RDWR);
    (void)pthread_join(relay->thread, NULL);
    (void)close(relay->listener);
    for (uint32_t index = 0; index < relay->count; index++) {
        const struct relay_direction *both = relay->directions[index];
        (void)shutdown(both[0].from, SHUT_RDWR);
        (void)shutdown(both[0].to, SHUT_RDWR);
        (void)pthread_join(both[0].thread, NULL);
        (void)pthread_join(both[1].thread, NULL);
        (void)close(both[0].from);
        (void)close(both[0].to);
    }
}
