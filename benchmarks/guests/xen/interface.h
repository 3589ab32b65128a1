/* Xen's interface, and the rings that two domains share. */
#ifndef XEN_INTERFACE_H
#define XEN_INTERFACE_H

#include "../lib/xen.h"

#define GNTTAB_FIRST_FREE 8     /* grants below this one are reserved */

struct blkif_sring {
    struct ring_header header;
    union { struct blkif_request request; struct blkif_response response; } ring[BLKIF_RING_ENTRIES];
};
_Static_assert(sizeof(struct blkif_sring) <= 4096, "a ring fits a page");

#endif
