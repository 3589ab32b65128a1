/* Domain 0: it owns the machine's disk and console, and serves them to the guest. */
#include "../ide/ide.h"
#include "../ide/ports.h"
#include "../xen/events.h"
#include "../xen/hypercall.h"
#include "../xen/text.h"
#include "block_back.h"
#include "console_back.h"
#include "domain.h"
#include "store_service.h"

#define TRAPS 20
#define PORTS 4096              /* those that the bitmap speaks of */
#define PORT_CONSOLE 0xE9

extern const uint32_t domain_trap_stubs[TRAPS];
extern void domain_upcall(void), domain_failsafe(void);
_Noreturn void domain_main(const struct start_info *start);
_Noreturn void domain_trap(uint32_t vector, uint32_t first, uint32_t second);

struct guest guest;
static const uint32_t *machine_frames;  /* by pseudo-physical frame */

uint32_t machine_address(const void *place)
{
    return machine_frames[(uint32_t)place / 4096] * 4096 + (uint32_t)place % 4096;
}

void print(const char *text)
{
    while (*text)
        out8(PORT_CONSOLE, (uint8_t)*text++);
}

void print_number(uint32_t value)
{
    char place[DECIMAL_BYTES];

    print(decimal(value, place));
}

static _Noreturn void stop(void)
{
    const uint32_t reason = SHUTDOWN_crash;

    for (;;)
        sched_op(SCHEDOP_shutdown, &reason);
}

_Noreturn void domain_trap(uint32_t vector, uint32_t first, uint32_t second)
{
    print("domain 0: unexpected trap ");
    print_number(vector);
    print(", on its stack ");
    print_number(first);
    print(" ");
    print_number(second);
    print("\n");
    stop();
}

static void set_traps(void)
{
    struct trap_info traps[TRAPS + 1];

    memset(traps, 0, sizeof traps);     /* one without an address ends the table */
    for (unsigned vector = 0; vector < TRAPS; vector++)
        traps[vector] = (struct trap_info){(uint8_t)vector, 0, FLAT_RING1_CS, domain_trap_stubs[vector]};
    hypercall(__HYPERVISOR_set_trap_table, (uint32_t)traps, 0, 0, 0);
    hypercall(__HYPERVISOR_set_callbacks, FLAT_RING1_CS, (uint32_t)domain_upcall, FLAT_RING1_CS, (uint32_t)domain_failsafe);
}

/* Open the ports of the machine's devices; the others stay shut. */
static void open_ports(void)
{
    static const struct { uint16_t first, count; } open[] = {
        {PORT_CONSOLE, 1}, {0x1F0, 8}, {0x3F6, 1}, {0x3F8, 8}, {IDE_MASTER_PORTS, 16}, {0xCF8, 8},
    };
    static uint8_t closed[PORTS / 8];
    struct physdev_set_iobitmap map = {(uint32_t)closed, PORTS};

    memset(closed, 0xFF, sizeof closed);
    for (unsigned number = 0; number < sizeof open / sizeof open[0]; number++)
        for (unsigned port = open[number].first; port < open[number].first + open[number].count; port++)
            closed[port / 8] &= (uint8_t)~(1u << port % 8);
    physdev_op(PHYSDEVOP_set_iobitmap, &map);
}

static void read_command_line(const char *words)
{
    size_t bytes;
    const char *name = word_behind(words, "name=", &bytes);

    guest.domain = (uint16_t)number_behind(words, "domid=", 0);
    guest.console_port = number_behind(words, "console=", 0);
    guest.store_port = number_behind(words, "store=", 0);
    guest.memory = number_behind(words, "memory=", 0);
    memcpy(guest.name, name, bytes < GUEST_NAME_BYTES ? bytes : GUEST_NAME_BYTES - 1);
}

_Noreturn void domain_main(const struct start_info *start)
{
    machine_frames = (const uint32_t *)start->mfn_list;
    read_command_line((const char *)start->cmd_line);
    set_traps();
    events_start(start);
    open_ports();
    store_start();
    console_back_start();
    block_back_start();
    for (;;) {
        console_back_serve();
        store_serve();
        block_back_serve();     /* which may change the store, */
        store_serve();          /* and who watches it is told */
        events_wait();
    }
}
