/* Frames that another domain has granted. */
#ifndef XEN_GRANTS_H
#define XEN_GRANTS_H

#include "interface.h"

#define NO_GRANT 0xFFFFFFFFu

/* Map a granted frame in the place of one of our pages; the handle, or NO_GRANT. */
uint32_t grant_map_page(uint16_t domain, uint32_t reference, void *page);
void grant_unmap_page(uint32_t handle, void *page);

/* Hold granted frames for a device, without a mapping of our own: handles and machine addresses. 0, or -1 if one of them is
   refused; then none is held. */
struct held_frame {
    uint32_t handle, address;
};
int grants_hold(uint16_t domain, const uint32_t *references, unsigned count, int read_only, struct held_frame *frames);
void grants_release(const struct held_frame *frames, unsigned count);

#endif
