/* Text goes out by lines: into the ring that domain 0 reads or, where nobody serves it, by a hypercall. */
#include "../include/machine.h"

#define LINE_BYTES 80

static char line[LINE_BYTES];
static uint32_t in_line;

/* The ring lies in a page of ours that the builder has chosen. */
static struct xencons_interface *ring(void)
{
    return (struct xencons_interface *)(MACHINE_TO_PSEUDO[start->console_mfn] * PAGE_BYTES);
}

static uint32_t untaken(void)
{
    return ring()->out_prod - *(volatile uint32_t *)&ring()->out_cons;
}

/* Tell domain 0 that there is text, and let it run. */
static void let_it_be_taken(void)
{
    struct evtchn_send send = {start->console_evtchn};

    event_channel_op(EVTCHNOP_send, &send);
    sched_op(SCHEDOP_yield, 0);
}

static void put_into_ring(char character)
{
    while (untaken() == sizeof ring()->out)
        let_it_be_taken();
    ring()->out[ring()->out_prod % sizeof ring()->out] = character;
    compiler_barrier();
    ring()->out_prod++;
}

static void send_line(void)
{
    if (start->console_evtchn) {
        for (uint32_t sent = 0; sent < in_line; sent++)
            put_into_ring(line[sent]);
        let_it_be_taken();
    } else
        hypercall(__HYPERVISOR_console_io, CONSOLEIO_write, in_line, (uint32_t)line, 0);
    in_line = 0;
}

void machine_put_character(char character)
{
    line[in_line++] = character;
    if (character == '\n' || in_line == LINE_BYTES)
        send_line();
}

void console_drain(void)
{
    if (in_line)
        send_line();
    while (start->console_evtchn && untaken())
        let_it_be_taken();
}
