/* The disk by a ring that it shares with the driver in domain 0. */
#include "../disk.h"

#include "../../xen/front.h"

extern const struct start_info *start_info;
extern struct shared_info shared_info;
extern uint32_t device_port;
extern void (*device_handler)(void);

volatile unsigned disk_unfinished, disk_failures;

static void disk_event(void)
{
    unsigned failed = 0;

    disk_unfinished -= block_take(&failed);
    disk_failures += failed;
}

uint32_t disk_start(void)
{
    uint32_t sectors;

    front_start(start_info);
    sectors = block_start();
    device_port = block_port();
    device_handler = disk_event;
    shared_info.evtchn_mask[device_port / 32] &= ~(1u << device_port % 32);
    return sectors;
}

void disk_put(enum disk_operation operation, uint32_t sector, void *pages, unsigned count)
{
    block_put(operation == DISK_WRITE ? BLKIF_OP_WRITE : BLKIF_OP_READ, sector, pages, count);
    disk_unfinished++;
}

void disk_push(void)
{
    block_push();
}
