/* A port of loopback that leads to another one, which may change: programs keep an address while
 * the broker behind it is started again on whatever port is free. */
#ifndef LIB_RELAY_H
#define LIB_RELAY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum { RELAY_CONNECTIONS_MAX = 64 };

struct relay_direction {
    pthread_t thread;
    int from;
    int to;
};

struct relay {
    uint16_t port;
    int listener;
    pthread_t thread;
    _Atomic uint16_t target;
    uint32_t count; /* of connections, the ended ones too */
    struct relay_direction directions[RELAY_CONNECTIONS_MAX][2];
};

void relay_init(struct relay *relay, uint16_t target);
/* 0: connections are closed as they come. Those that there are stay. */
void relay_lead(struct relay *relay, uint16_t target);
void relay_deinit(struct relay *relay);

#endif
