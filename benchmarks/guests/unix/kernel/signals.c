/* Signals. A handler is called as if the program had called it itself, at whatever instruction it was: what it needs to go
   on lies on its own stack, and it comes back by a system call that puts all registers back. */
#include "signals.h"

#include "../include/abi.h"
#include "bytes.h"
#include "process.h"
#include "scheduler.h"

/* What the handler finds on its stack; Linux lays it out in the same order. */
struct signal_frame {
    uint32_t handler_return;    /* where its RET goes: code of the program that makes CALL_SIGNAL_RETURN */
    uint32_t number;            /* its argument */
    uint32_t blocked;           /* what was blocked before */
    struct trap_frame registers;
};

#define BIT(number) (1u << (number))

void signal_send(struct process *process, uint32_t number)
{
    if (process->state == PROCESS_ENDED || (number == SIGNAL_CHILD && !process->handlers[number]))
        return;
    process->signals_pending |= BIT(number);
    if (!(process->signals_blocked & BIT(number)))
        wake_process(process);
}

void signal_force(uint32_t number)
{
    if ((current->signals_blocked & BIT(number)) || !current->handlers[number])
        process_exit(STATUS_OF_SIGNAL(number));
    current->signals_pending |= BIT(number);
}

int signal_waits(void)
{
    return (current->signals_pending & ~current->signals_blocked) != 0;
}

static void call_handler(uint32_t number)
{
    struct trap_frame *frame = frame_of(current);
    const uint32_t address = (frame->esp - sizeof(struct signal_frame)) & ~3u;
    struct signal_frame *kept = (struct signal_frame *)address;

    if (!can_write(address, sizeof *kept))
        process_exit(STATUS_OF_SIGNAL(SIGNAL_SEGMENT));
    kept->handler_return = current->handler_return;
    kept->number = number;
    kept->blocked = current->signals_blocked;
    kept->registers = *frame;
    current->signals_blocked |= BIT(number);
    frame->esp = address;
    frame->eip = current->handlers[number];
    frame->vector = VECTOR_SYSTEM_CALL; /* leave by IRET: SYSEXIT would change ECX and EDX */
}

void signals_take(void)
{
    while (signal_waits()) {
        const uint32_t number = (uint32_t)__builtin_ctz(current->signals_pending & ~current->signals_blocked);

        current->signals_pending &= ~BIT(number);
        if (!current->handlers[number])
            process_exit(STATUS_OF_SIGNAL(number));
        call_handler(number);
    }
}

void signals_forget_handlers(struct process *process)
{
    memset(process->handlers, 0, sizeof process->handlers);
    process->signals_blocked = 0;
}

int32_t call_signal(uint32_t number, uint32_t handler, uint32_t handler_return)
{
    if (number == 0 || number >= SIGNALS || number == SIGNAL_KILL)
        return ERROR_BAD_ARGUMENT;
    current->handlers[number] = handler;
    current->handler_return = handler_return;
    return 0;
}

/* ESP stands behind the frame's first word, which the handler's RET took. What a program may not choose is put right. */
int32_t call_signal_return(void)
{
    struct trap_frame *frame = frame_of(current);
    const uint32_t address = frame->esp - 4;
    const struct signal_frame *kept = (const struct signal_frame *)address;

    if (!can_read(address, sizeof *kept))
        process_exit(STATUS_OF_SIGNAL(SIGNAL_SEGMENT));
    current->signals_blocked = kept->blocked & ~BIT(SIGNAL_KILL);
    *frame = kept->registers;
    frame->cs = USER_CS;
    frame->ss = USER_DS;
    frame->eflags = (frame->eflags & EFLAGS_OF_PROGRAMS) | EFLAGS_FIXED | EFLAGS_IF;
    frame->vector = VECTOR_SYSTEM_CALL;
    return (int32_t)frame->eax;
}

int32_t call_kill(uint32_t number, uint32_t signal)
{
    struct process *process = process_numbered(number);

    if (signal == 0 || signal >= SIGNALS)
        return ERROR_BAD_ARGUMENT;
    if (!process)
        return ERROR_NO_PROCESS;
    signal_send(process, signal);
    return 0;
}
