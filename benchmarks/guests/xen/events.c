/* Event channels. */
#include "events.h"

#include "hypercall.h"

#define PAGE_ENTRY 0x67u        /* present, writable, user, accessed, dirty */

union shared_page shared_page __attribute__((section(".bss.tables"), aligned(4096)));

static struct vcpu_info *own_cpu(void)
{
    return &shared_page.info.vcpu_info[0];
}

void events_start(const struct start_info *start)
{
    update_va_mapping(&shared_page, start->shared_info | PAGE_ENTRY);
    own_cpu()->evtchn_upcall_mask = 1;
}

static void unmask(uint32_t port)
{
    shared_page.info.evtchn_mask[port / 32] &= ~(1u << port % 32);
}

int32_t event_bind(uint16_t remote_domain, uint32_t remote_port)
{
    struct evtchn_bind_interdomain bind = {.remote_dom = remote_domain, .remote_port = remote_port};
    const int32_t error = event_channel_op(EVTCHNOP_bind_interdomain, &bind);

    if (error)
        return error;
    unmask(bind.local_port);
    return (int32_t)bind.local_port;
}

int32_t event_allocate(uint16_t remote_domain)
{
    struct evtchn_alloc_unbound allocate = {DOMID_SELF, remote_domain, 0};
    const int32_t error = event_channel_op(EVTCHNOP_alloc_unbound, &allocate);

    if (error)
        return error;
    unmask(allocate.port);
    return (int32_t)allocate.port;
}

int32_t event_bind_line(uint32_t line)
{
    struct evtchn_bind_pirq bind = {line, 0, 0};
    const int32_t error = event_channel_op(EVTCHNOP_bind_pirq, &bind);

    if (error)
        return error;
    unmask(bind.port);
    return (int32_t)bind.port;
}

void event_close(uint32_t port)
{
    shared_page.info.evtchn_mask[port / 32] |= 1u << port % 32;
    event_channel_op(EVTCHNOP_close, &port);
    event_taken(port);
}

void event_send(uint32_t port)
{
    event_channel_op(EVTCHNOP_send, &port);
}

int event_taken(uint32_t port)
{
    volatile uint32_t *word = &shared_page.info.evtchn_pending[port / 32];
    const uint32_t bit = 1u << port % 32;
    const int came = (*word & bit) != 0;

    if (came)
        __asm__ volatile("lock andl %1, %0" : "+m"(*word) : "r"(~bit) : "memory");
    return came;
}

/* The selector and the pending byte only say where to look; who looks at every port may clear them first. */
static int any_pending(void)
{
    own_cpu()->evtchn_upcall_pending = 0;
    own_cpu()->evtchn_pending_sel = 0;
    compiler_barrier();
    for (unsigned word = 0; word < 32; word++)
        if (shared_page.info.evtchn_pending[word] & ~shared_page.info.evtchn_mask[word])
            return 1;
    return 0;
}

void events_wait(void)
{
    if (any_pending())
        return;
    sched_op(SCHEDOP_block, 0); /* unmasks upcalls, and returns at once if an event came meanwhile */
    own_cpu()->evtchn_upcall_mask = 1;
}
