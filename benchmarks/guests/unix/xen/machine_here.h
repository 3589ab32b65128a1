/* What a kernel on Xen has otherwise than on the bare machine: selectors, and numbers of frames. */
#ifndef MACHINE_HERE_H
#define MACHINE_HERE_H

#include "../../lib/xen.h"
#include "../include/sizes.h"
#include "queue.h"
#include "tables.h"

#define KERNEL_CS FLAT_RING1_CS
#define KERNEL_DS FLAT_RING1_DS
#define USER_CS FLAT_RING3_CS
#define USER_DS FLAT_RING3_DS

/* Machine frame -> the number that this domain gives it, in the window that the hypervisor lets every domain read. */
#define MACHINE_TO_PSEUDO ((const uint32_t *)HYPERVISOR_VIRT_START)

/* What the builder left behind the image is still in use, but the last of it, the stack that we have left. */
static inline uint32_t machine_free_from(uint32_t kernel_end)
{
    (void)kernel_end;
    return start->pt_base + start->nr_pt_frames * PAGE_BYTES;
}

static inline uint32_t machine_entry(const uint32_t *entry)
{
    const uint32_t value = *entry;

    return value & ENTRY_P ? MACHINE_TO_PSEUDO[value / PAGE_BYTES] * PAGE_BYTES | (value & ~ENTRY_FRAME) : value;
}

/* Wait until all text has been taken. */
void console_drain(void);

static inline void machine_commit(void)
{
    queue_commit();
}

static inline void machine_retire_root(uint32_t root)
{
    tables_retire(root);
}

#endif
