/* Hypercalls by the hypercall page: entry n is 32 bytes long. */
#ifndef XEN_HYPERCALL_H
#define XEN_HYPERCALL_H

#include "interface.h"

extern uint8_t hypercall_page[];


/* The VMM may change the registers that held arguments. */
static inline __attribute__((always_inline)) int32_t hypercall(uint32_t number, uint32_t first, uint32_t second,
                                                               uint32_t third, uint32_t fourth)
{
    int32_t result;

    __asm__ volatile("call hypercall_page + %c[entry]"
                     : "=a"(result), "+b"(first), "+c"(second), "+d"(third), "+S"(fourth)
                     : [entry] "i"(number * HYPERCALL_BYTES)
                     : "memory");
    return result;
}

static inline int32_t event_channel_op(uint32_t command, void *argument)
{
    return hypercall(__HYPERVISOR_event_channel_op, command, (uint32_t)argument, 0, 0);
}

static inline int32_t sched_op(uint32_t command, const void *argument)
{
    return hypercall(__HYPERVISOR_sched_op, command, (uint32_t)argument, 0, 0);
}

static inline int32_t physdev_op(uint32_t command, void *argument)
{
    return hypercall(__HYPERVISOR_physdev_op, command, (uint32_t)argument, 0, 0);
}

static inline int32_t grant_table_op(uint32_t command, void *operations, uint32_t count)
{
    return hypercall(__HYPERVISOR_grant_table_op, command, (uint32_t)operations, count, 0);
}

/* One page of the linear space gets another entry. */
static inline int32_t update_va_mapping(const void *page, uint32_t entry)
{
    return hypercall(__HYPERVISOR_update_va_mapping, (uint32_t)page, entry, 0, UVMF_INVLPG | UVMF_LOCAL);
}

static inline void compiler_barrier(void)
{
    __asm__ volatile("" : : : "memory");
}

#endif
