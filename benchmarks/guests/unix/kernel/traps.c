/* Where everything arrives that interrupts a program. */
#include "../include/abi.h"
#include "../include/machine.h"
#include "console.h"
#include "process.h"
#include "scheduler.h"
#include "signals.h"
#include "system_calls.h"

void trap(struct trap_frame *frame);

static _Noreturn void unexpected(const struct trap_frame *frame)
{
    print("unexpected trap: vector ");
    print_hex(frame->vector);
    print(", error code ");
    print_hex(frame->error);
    print(", eip ");
    print_hex(frame->eip);
    print("\n");
    panic("unexpected trap", EXIT_TRAP);
}

/* The signal that tells a program of its own fault; 0 if a program cannot have caused the trap. */
static uint32_t signal_of(uint32_t vector)
{
    switch (vector) {
    case VECTOR_DIVIDE_ERROR:
        return SIGNAL_ARITHMETIC;
    case VECTOR_DEBUG:
    case VECTOR_BREAKPOINT:
        return SIGNAL_TRAP;
    case VECTOR_INVALID_OPCODE:
        return SIGNAL_ILLEGAL;
    case VECTOR_GENERAL_PROTECTION:
    case VECTOR_PAGE_FAULT:
        return SIGNAL_SEGMENT;
    default:
        return 0;
    }
}

static void fault(const struct trap_frame *frame, int of_program)
{
    if (!of_program || !signal_of(frame->vector))
        unexpected(frame);
    signal_force(signal_of(frame->vector));
}

/* The kernel too touches pages of the program that are not there yet; it has asked before whether it may. */
static void page_fault(const struct trap_frame *frame, int of_program)
{
    if (!current || !area_fault(current, machine_fault_address(), frame->error))
        fault(frame, of_program);
}

void trap(struct trap_frame *frame)
{
    const int of_program = (frame->cs & 3) == 3;

    switch (frame->vector) {
    case VECTOR_SYSTEM_CALL:
    case VECTOR_SYSENTER:
        system_call(frame);
        break;
    case VECTOR_PAGE_FAULT:
        page_fault(frame, of_program);
        break;
    case VECTOR_TIMER:
        timer_tick(of_program);
        break;
    default:
        fault(frame, of_program);
    }
    if (of_program)
        signals_take();
}
