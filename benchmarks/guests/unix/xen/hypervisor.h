/* What this kernel knows of the hypervisor, and how it takes its answers. */
#ifndef HYPERVISOR_H
#define HYPERVISOR_H

#include "../../xen/hypercall.h"

extern const struct start_info *const start; /* what the builder of this domain tells it */

/* End the run unless this went well: the kernel asks for nothing that may be refused. */
void must_succeed(int32_t answer, const char *what);

#endif
