/* Frames that another domain has granted: one hypercall for many. */
#include "grants.h"

#include "hypercall.h"

#define MOST BLKIF_MAX_SEGMENTS_PER_REQUEST

uint32_t grant_map_page(uint16_t domain, uint32_t reference, void *page)
{
    struct gnttab_map_grant_ref map = {
        .host_addr = (uint32_t)page, .flags = GNTMAP_host_map, .ref = reference, .dom = domain, .status = -1,
    };

    if (grant_table_op(GNTTABOP_map_grant_ref, &map, 1) || map.status)
        return NO_GRANT;
    return map.handle;
}

void grant_unmap_page(uint32_t handle, void *page)
{
    struct gnttab_unmap_grant_ref unmap = {.host_addr = (uint32_t)page, .handle = handle};

    grant_table_op(GNTTABOP_unmap_grant_ref, &unmap, 1);
}

int grants_hold(uint16_t domain, const uint32_t *references, unsigned count, int read_only, struct held_frame *frames)
{
    struct gnttab_map_grant_ref map[MOST];
    unsigned held = 0;

    for (unsigned number = 0; number < count; number++)
        map[number] = (struct gnttab_map_grant_ref){
            .flags = GNTMAP_device_map | (read_only ? GNTMAP_readonly : 0), .ref = references[number], .dom = domain,
            .status = -1,
        };
    grant_table_op(GNTTABOP_map_grant_ref, map, count);
    for (unsigned number = 0; number < count; number++)
        if (map[number].status == 0)
            frames[held++] = (struct held_frame){map[number].handle, (uint32_t)map[number].dev_bus_addr};
    if (held == count)
        return 0;
    grants_release(frames, held);
    return -1;
}

void grants_release(const struct held_frame *frames, unsigned count)
{
    struct gnttab_unmap_grant_ref unmap[MOST];

    if (!count)
        return;
    for (unsigned number = 0; number < count; number++)
        unmap[number] = (struct gnttab_unmap_grant_ref){
            .dev_bus_addr = frames[number].address, .handle = frames[number].handle,
        };
    grant_table_op(GNTTABOP_unmap_grant_ref, unmap, count);
}
