/* huffman_code.c - see huffman_code.h. Lengths are Huffman's; where they exceed the limit, counts
 * are halved until they do not: rare symbols then cost a little more.
 */
#include "proto/huffman_code.h"

#include <string.h>

void huffman_codes(const uint8_t *length, uint32_t count, uint16_t *code)
{
    uint32_t of_length[HUFFMAN_LENGTH_MAX + 2] = {0}, next[HUFFMAN_LENGTH_MAX + 2] = {0};
    for (uint32_t i = 0; i < count; i++)
        of_length[length[i]]++;
    of_length[0] = 0;
    for (uint32_t l = 1; l <= HUFFMAN_LENGTH_MAX; l++)
        next[l] = (next[l - 1] + of_length[l - 1]) << 1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t plain = length[i] ? next[length[i]]++ : 0, turned = 0;
        for (uint32_t k = 0; k < length[i]; k++)
            turned |= (plain >> k & 1) << (length[i] - 1 - k);
        code[i] = (uint16_t)turned;
    }
}

/* Symbols that occur, by count; equal counts by symbol. Shell's sort: they are at most 257. */
static uint32_t symbols_sort(const uint32_t *frequency, uint32_t count, uint16_t *symbol)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++)
        if (frequency[i])
            symbol[used++] = (uint16_t)i;
    for (uint32_t gap = used / 2; gap > 0; gap /= 2)
        for (uint32_t i = gap; i < used; i++) {
            uint16_t s = symbol[i];
            uint32_t k = i;
            for (;
                 k >= gap && (frequency[symbol[k - gap]] > frequency[s] ||
                              (frequency[symbol[k - gap]] == frequency[s] && symbol[k - gap] > s));
                 k -= gap)
                symbol[k] = symbol[k - gap];
            symbol[k] = s;
        }
    return used;
}

/* Huffman's lengths from sorted counts: the two queues of leaves and of nodes are both in order.
 * The longest length. */
static uint32_t lengths_huffman(const uint32_t *frequency, const uint16_t *symbol, uint32_t used,
                                uint8_t *length)
{
    uint32_t weight[2 * HUFFMAN_SYMBOLS_MAX], parent[2 * HUFFMAN_SYMBOLS_MAX],
        depth[2 * HUFFMAN_SYMBOLS_MAX], longest = 0;
    uint32_t leaf = 0, node = used, made = used;
    for (uint32_t i = 0; i < used; i++)
        weight[i] = frequency[symbol[i]];
    while (made < 2 * used - 1) {
        uint32_t pair[2];
        for (int k = 0; k < 2; k++)
            pair[k] =
                leaf < used && (node >= made || weight[leaf] <= weight[node]) ? leaf++ : node++;
        weight[made] = weight[pair[0]] + weight[pair[1]];
        parent[pair[0]] = parent[pair[1]] = made++;
    }
    depth[made - 1] = 0;
    for (uint32_t i = made - 1; i-- > 0;)
        depth[i] = depth[parent[i]] + 1;
    for (uint32_t i = 0; i < used; i++) {
        length[symbol[i]] = (uint8_t)depth[i];
        longest = depth[i] > longest ? depth[i] : longest;
    }
    return longest;
}

void huffman_lengths(const uint32_t *frequency, uint32_t count, uint32_t limit, uint8_t *length)
{
    uint32_t scaled[HUFFMAN_SYMBOLS_MAX];
    uint16_t symbol[HUFFMAN_SYMBOLS_MAX];
    memset(length, 0, count);
    memcpy(scaled, frequency, count * sizeof *scaled);
    for (;;) {
        uint32_t used = symbols_sort(scaled, count, symbol);
        if (used == 1)
            length[symbol[0]] = 1;
        if (used == 1 || lengths_huffman(scaled, symbol, used, length) <= limit)
            return;
        for (uint32_t i = 0; i < count; i++)
            scaled[i] = scaled[i] ? scaled[i] / 2 + 1 : 0;
    }
}
