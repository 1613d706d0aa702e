/* web_peer.c - see web_peer.h. */
#include "monitord/web_peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>

int web_peer_find(FILE *table, uint16_t client, uint16_t server, uid_t *user)
{
    const unsigned here =
        htonl(INADDR_LOOPBACK); /* the table has addresses as they lie in memory */
    char line[512];
    unsigned local, local_port, remote, remote_port, uid;
    while (fgets(line, sizeof line, table))
        if (sscanf(line, " %*u: %8x:%4x %8x:%4x %*x %*x:%*x %*x:%*x %*x %u", &local, &local_port,
                   &remote, &remote_port, &uid) == 5 &&
            local == here && remote == here && local_port == client && remote_port == server) {
            *user = uid;
            return 0;
        }
    return -1;
}

int web_peer_user(uint16_t client, uint16_t server, uid_t *user)
{
    FILE *table = fopen("/proc/net/tcp", "re");
    if (!table)
        return -1;
    int result = web_peer_find(table, client, server, user);
    fclose(table);
    return result;
}
