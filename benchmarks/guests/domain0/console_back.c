/* The guest's console ring: what it writes goes to port 0xE9, what comes from the first serial port goes to it. */
#include "console_back.h"

#include "../ide/ports.h"
#include "../xen/events.h"
#include "../xen/grants.h"
#include "../xen/hypercall.h"
#include "domain.h"
#include "lines.h"

#define PORT_CONSOLE 0xE9
#define SERIAL 0x3F8
#define SERIAL_LINE 4
#define SERIAL_INTERRUPTS (SERIAL + 1)
#define SERIAL_FIFO (SERIAL + 2)
#define SERIAL_FORMAT (SERIAL + 3)
#define SERIAL_MODEM (SERIAL + 4)
#define SERIAL_STATUS (SERIAL + 5)
#define DATA_READY 1
#define FIFO_ON 1
#define EIGHT_BITS 3
#define INTERRUPT_GATE 0x0B     /* DTR, RTS, and OUT2, which lets the interrupt out */

static union { struct xencons_interface ring; uint8_t page[4096]; } console ALONE_IN_PAGES;
static int32_t port = -1;
static struct line serial_line;
static int held_back;           /* the serial port has more than there was room for */

static void start_serial(void)
{
    serial_line = line_open(SERIAL_LINE);
    out8(SERIAL_FORMAT, EIGHT_BITS);
    out8(SERIAL_FIFO, FIFO_ON);
    out8(SERIAL_MODEM, INTERRUPT_GATE);
    out8(SERIAL_INTERRUPTS, DATA_READY);
}

void console_back_start(void)
{
    if (grant_map_page(guest.domain, GNTTAB_RESERVED_CONSOLE, &console) == NO_GRANT)
        return;
    port = event_bind(guest.domain, guest.console_port);
    start_serial();
}

/* Write out what the guest has said; whether there was anything. Indices that no ring can have say nothing. */
static int take_output(struct xencons_interface *ring)
{
    uint32_t next = ring->out_cons;
    const uint32_t end = *(volatile uint32_t *)&ring->out_prod;

    compiler_barrier();
    if (next == end || end - next > sizeof ring->out)
        return 0;
    while (next != end)
        out8(PORT_CONSOLE, (uint8_t)ring->out[next++ % sizeof ring->out]);
    compiler_barrier();
    ring->out_cons = end;
    return 1;
}

/* Give the guest what the serial port has, as far as there is room; whether there was anything. */
static int give_input(struct xencons_interface *ring)
{
    uint32_t next = ring->in_prod;
    const uint32_t began = next;

    held_back = 0;
    while (!held_back && in8(SERIAL_STATUS) & DATA_READY) {
        held_back = next - *(volatile uint32_t *)&ring->in_cons >= sizeof ring->in;
        if (!held_back)
            ring->in[next++ % sizeof ring->in] = (char)in8(SERIAL);
    }
    compiler_barrier();
    ring->in_prod = next;
    return next != began;
}

void console_back_serve(void)
{
    const int told = port >= 0 && event_taken((uint32_t)port), typed = line_taken(&serial_line);
    int moved = 0;

    if (told)
        moved |= take_output(&console.ring);
    if (typed || held_back)
        moved |= give_input(&console.ring);
    if (typed)
        line_end(&serial_line);
    if (moved)
        event_send((uint32_t)port);
}
