/* What all front ends need: frames, and grants of them. */
#include "front.h"

#include "hypercall.h"

#define GRANTS 512              /* in the one page of the table */
#define PAGE_ENTRY 0x67u        /* present, writable, user, accessed, dirty */

const struct start_info *front_information;
static union { struct grant_entry entry[GRANTS]; uint8_t page[4096]; } grants __attribute__((aligned(4096)));
static uint16_t free_grants[GRANTS];
static uint32_t free_count;

static void map_grant_table(void)
{
    uint32_t frame = 0;
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1, .frame_list = (uint32_t)&frame};

    grant_table_op(GNTTABOP_setup_table, &setup, 1);
    update_va_mapping(&grants, frame << 12 | PAGE_ENTRY);
}

void front_start(const struct start_info *start)
{
    front_information = start;
    map_grant_table();
    for (uint32_t reference = GRANTS - 1; reference >= GNTTAB_FIRST_FREE; reference--)
        free_grants[free_count++] = (uint16_t)reference;
}

void front_yield(void)
{
    sched_op(SCHEDOP_yield, 0);
}

void *front_page(uint32_t machine_frame)
{
    return (void *)(((const uint32_t *)HYPERVISOR_VIRT_START)[machine_frame] << 12);
}

uint32_t front_frame(const void *page)
{
    return ((const uint32_t *)front_information->mfn_list)[(uint32_t)page >> 12];
}

uint32_t front_grant(const void *page, int read_only)
{
    const uint32_t reference = free_grants[--free_count];
    struct grant_entry *entry = &grants.entry[reference];

    entry->domid = 0;
    entry->frame = front_frame(page);
    compiler_barrier();         /* the flags make the entry valid */
    entry->flags = (uint16_t)(GTF_permit_access | (read_only ? GTF_readonly : 0));
    return reference;
}

void front_take_back(uint32_t reference)
{
    volatile uint16_t *flags = &grants.entry[reference].flags;

    while (*flags & (GTF_reading | GTF_writing))
        front_yield();
    *flags = GTF_invalid;
    free_grants[free_count++] = (uint16_t)reference;
}
