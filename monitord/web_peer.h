/* web_peer.h - whose program the other end of a connection within this machine is. */
#ifndef MONITORD_WEB_PEER_H
#define MONITORD_WEB_PEER_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* The user of the socket that is bound to 127.0.0.1:client and connected to 127.0.0.1:server, as
 * /proc/net/tcp says. 0, or -1: it is not there. */
int web_peer_user(uint16_t client, uint16_t server, uid_t *user);

/* The same of such a table; for the tests. */
int web_peer_find(FILE *table, uint16_t client, uint16_t server, uid_t *user);

#endif
