/* The processor and the board, as Xen has them: traps, events, time, text. */
#include "../include/machine.h"

#include "../kernel/console.h"

#define LAST_EXCEPTION 19
#define EXCEPTIONS (LAST_EXCEPTION + 1)
#define OF_PROGRAMS 3           /* DPL: ring 3 may raise it by INT */
#define NANOSECONDS 1000000000u
#define PORT_VERDICT 0xF4

extern const uint32_t machine_trap_stubs[EXCEPTIONS];
extern void machine_system_call_entry(void), machine_event_entry(void), machine_failsafe_entry(void);
extern const uint8_t call_page_int[], call_page_int_end[];

void trap(struct trap_frame *frame);
void take_events(struct trap_frame *frame);
_Noreturn void failsafe(void);

static uint32_t timer_port;
static uint64_t next_tick;      /* in nanoseconds of system time */

void must_succeed(int32_t answer, const char *what)
{
    if (answer < 0) {
        print("the hypervisor refused ");
        print(what);
        print(", answer ");
        print_hex((uint32_t)answer);
        print("\n");
        panic("the hypervisor refused a call", EXIT_PANIC);
    }
}

/* Every exception masks events, as an interrupt gate clears IF; INT 0x80 does not, so that the processor itself takes it. */
static void set_traps(void)
{
    static struct trap_info traps[EXCEPTIONS + 2]; /* the last is all zeros */

    for (unsigned vector = 0; vector < EXCEPTIONS; vector++) {
        const uint8_t privilege = vector == VECTOR_BREAKPOINT ? OF_PROGRAMS : 0;

        traps[vector] = (struct trap_info){(uint8_t)vector, TI_MASK_EVENTS | privilege, KERNEL_CS, machine_trap_stubs[vector]};
    }
    traps[EXCEPTIONS] = (struct trap_info){VECTOR_SYSTEM_CALL, OF_PROGRAMS, KERNEL_CS, (uint32_t)machine_system_call_entry};
    must_succeed(hypercall(__HYPERVISOR_set_trap_table, (uint32_t)traps, 0, 0, 0), "the trap table");
}

void machine_start(void)
{
    tables_start();
    set_traps();
    must_succeed(hypercall(__HYPERVISOR_set_callbacks, KERNEL_CS, (uint32_t)machine_event_entry, KERNEL_CS,
                           (uint32_t)machine_failsafe_entry), "the callbacks");
}

/* The hypervisor has taken both from the processor's features. */
int machine_has_sysenter(void)
{
    return 0;
}

int machine_has_global_pages(void)
{
    return 0;
}

const void *machine_call_page(uint32_t *bytes)
{
    *bytes = (uint32_t)(call_page_int_end - call_page_int);
    return call_page_int;
}

uint32_t machine_fault_address(void)
{
    return shared_page.info.vcpu_info[0].arch.cr2;
}

/* It takes effect with the load of the root that follows whenever the process changes. */
void machine_set_kernel_stack(uint32_t top)
{
    queue_stack(KERNEL_DS, top);
}

/* The hypervisor unmasks events while it waits, and delivers the one that ends it. */
void machine_wait_for_interrupt(void)
{
    sched_op(SCHEDOP_block, 0);
    shared_page.info.vcpu_info[0].evtchn_upcall_mask = 1;
}

static uint32_t exchange(uint32_t *word, uint32_t value)
{
    __asm__ volatile("xchgl %0, %1" : "+r"(value), "+m"(*word) : : "memory");
    return value;
}

static void clear_bit(uint32_t *word, unsigned bit)
{
    __asm__ volatile("lock andl %1, %0" : "+m"(*word) : "r"(~(1u << bit)) : "memory");
}

/* Look for what has happened: here it can only be the timer. A tick may begin with another process and come back to this one
   much later, so that it is the last thing done. */
void take_events(struct trap_frame *frame)
{
    struct shared_info *info = &shared_page.info;
    uint32_t words;
    int tick = 0;

    info->vcpu_info[0].evtchn_upcall_pending = 0;
    words = exchange(&info->vcpu_info[0].evtchn_pending_sel, 0);
    for (; words; words &= words - 1) {
        const unsigned word = (unsigned)__builtin_ctz(words);
        uint32_t bits = info->evtchn_pending[word] & ~info->evtchn_mask[word];

        for (; bits; bits &= bits - 1) {
            const unsigned bit = (unsigned)__builtin_ctz(bits);

            clear_bit(&info->evtchn_pending[word], bit);
            tick |= word * 32 + bit == timer_port;
        }
    }
    if (tick) {
        frame->vector = VECTOR_TIMER;
        trap(frame);
    }
}

/* Ask for the next tick: at once, if its time has passed. */
static void set_next_tick(void)
{
    next_tick += NANOSECONDS / TIMER_HZ;
    must_succeed(hypercall(__HYPERVISOR_set_timer_op, (uint32_t)next_tick, (uint32_t)(next_tick >> 32), 0, 0), "a timer");
}

/* The hypervisor's own periodic timer rests while nobody runs. Time begins at the moment when it was last told to us: the ticks
   that have passed since then come at once. */
void machine_start_timer(void)
{
    struct evtchn_bind_virq bind = {VIRQ_TIMER, 0, 0};

    must_succeed(hypercall(__HYPERVISOR_vcpu_op, VCPUOP_stop_periodic_timer, 0, 0, 0), "to be without a periodic timer");
    must_succeed(event_channel_op(EVTCHNOP_bind_virq, &bind), "the timer's event");
    timer_port = bind.port;
    clear_bit(&shared_page.info.evtchn_mask[timer_port / 32], timer_port % 32);
    next_tick = shared_page.info.vcpu_info[0].time.system_time;
    set_next_tick();
}

void machine_end_of_interrupt(void)
{
    set_next_tick();
}

_Noreturn void machine_shut_down(uint32_t code)
{
    const struct sched_shutdown shutdown = {SHUTDOWN_poweroff};

    console_drain();
    __asm__ volatile("outb %0, %1" : : "a"((uint8_t)code), "Nd"((uint16_t)PORT_VERDICT));
    for (;;)
        sched_op(SCHEDOP_shutdown, &shutdown);
}

_Noreturn void failsafe(void)
{
    panic("the hypervisor cannot return to the program", EXIT_TRAP);
}
