/* epochs.c - see epochs.h. */
#include "proto/epochs.h"

#include "proto/order.h"

/* Epochs a task are at most 1e6 (options.def), tasks 64: keys stay below 2^26, inside a grant's
 * 2^40. */
enum { EPOCH_KEYS_A_TASK = 1 << 20 };
enum { ORDER_KEY = 0x6f72646572 }; /* "order" */

uint64_t epochs_seed(const struct options *o)
{
    return order_key(o->seed, ORDER_KEY);
}

uint32_t epochs_key_task(const struct options *o, uint32_t task)
{
    while (o->tasks[task].comparison_of[0]) {
        int original = options_task(o, o->tasks[task].comparison_of);
        ensure(original >= 0 && (uint32_t)original < task);
        task = (uint32_t)original;
    }
    return task;
}

uint64_t epochs_key(uint32_t key_task, uint64_t epoch)
{
    ensure(epoch < EPOCH_KEYS_A_TASK);
    return (uint64_t)key_task * EPOCH_KEYS_A_TASK + epoch;
}

uint32_t epochs_key_split(uint64_t key, uint64_t *epoch)
{
    *epoch = key % EPOCH_KEYS_A_TASK;
    return (uint32_t)(key / EPOCH_KEYS_A_TASK);
}

uint32_t epochs_of_run(const struct options *o, struct msg_epoch_range ranges[OPTION_TASKS_MAX])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        if (epochs_key_task(o, i) == i)
            ranges[count++] = (struct msg_epoch_range){epochs_key(i, 0), o->tasks[i].epochs};
    return count;
}
