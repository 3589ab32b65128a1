/* Round robin: one queue, a turn lasts until the next tick. */
#include "scheduler.h"

#include "console.h"
#include "process.h"
#include "signals.h"

extern void switch_stacks(uint32_t *kept, uint32_t other);

static struct process *queue_head, *queue_tail; /* ready, the next to run first */
static struct process *sleepers;
static uint32_t ticks;
static uint32_t next_deadline; /* no sleeper and no alarm is due before this tick; 0: none at all */
static int timer_on;

void make_ready(struct process *process)
{
    process->state = PROCESS_READY;
    process->next = 0;
    if (queue_head)
        queue_tail->next = process;
    else
        queue_head = process;
    queue_tail = process;
}

/* The next one to run, out of the queue. While there is none, the processor halts: only a tick can change that. */
static struct process *take_ready(void)
{
    struct process *process;

    while (!queue_head) {
        if (!timer_on)
            panic("every process sleeps and there is no timer", EXIT_PANIC);
        machine_wait_for_interrupt();
    }
    process = queue_head;
    queue_head = process->next;
    return process;
}

/* Enter the address space and the kernel stack of another process. */
static void become(struct process *process)
{
    current = process;
    machine_set_kernel_stack((uint32_t)(frame_of(process) + 1));
    machine_load_root(process->root);
}

void schedule(void)
{
    struct process *before = current;
    struct process *process = take_ready();

    if (process == before)
        return;
    become(process);
    switch_stacks(&before->kernel_esp, process->kernel_esp);
}

_Noreturn void scheduler_start(void)
{
    struct process *process = take_ready();
    uint32_t stack_of_boot;

    become(process);
    switch_stacks(&stack_of_boot, process->kernel_esp);
    panic("the boot stack was entered again", EXIT_PANIC);
}

int sleep_on(const void *what)
{
    if (signal_waits())
        return 0;
    current->state = PROCESS_SLEEPING;
    current->sleeps_on = what;
    current->next = sleepers;
    sleepers = current;
    schedule();
    current->wake_tick = 0;
    return !signal_waits();
}

/* Wake the sleeper at this place of the list, and close the gap. */
static void wake_link(struct process **link)
{
    struct process *process = *link;

    *link = process->next;
    make_ready(process);
}

void wake(const void *what)
{
    struct process **link = &sleepers;

    while (*link)
        if ((*link)->sleeps_on == what)
            wake_link(link);
        else
            link = &(*link)->next;
}

void wake_process(struct process *process)
{
    for (struct process **link = &sleepers; *link; link = &(*link)->next)
        if (*link == process) {
            wake_link(link);
            return;
        }
}

void timer_start(void)
{
    timer_on = 1;
    machine_start_timer();
}

int timer_is_on(void)
{
    return timer_on;
}

/* Remember a moment at which somebody wants something. */
static void add_deadline(uint32_t tick)
{
    if (tick && (!next_deadline || tick < next_deadline))
        next_deadline = tick;
}

static void meet_deadlines(void)
{
    struct process *process = 0;

    next_deadline = 0;
    while ((process = process_after(process))) {
        if (process->alarm_tick && process->alarm_tick <= ticks) {
            process->alarm_tick = 0;
            signal_send(process, SIGNAL_ALARM);
        }
        if (process->state == PROCESS_SLEEPING && process->wake_tick && process->wake_tick <= ticks)
            wake_process(process);
        add_deadline(process->alarm_tick);
        if (process->state == PROCESS_SLEEPING)
            add_deadline(process->wake_tick);
    }
}

void timer_tick(int of_program)
{
    machine_end_of_interrupt();
    ticks++;
    if (next_deadline && ticks >= next_deadline)
        meet_deadlines();
    if (of_program)
        call_yield();
}

int32_t call_yield(void)
{
    if (queue_head) {
        make_ready(current);
        schedule();
    }
    return 0;
}

int32_t call_sleep(uint32_t duration)
{
    const uint32_t end = ticks + duration;

    if (!timer_on)
        return ERROR_BAD_ARGUMENT;
    while (ticks < end) {
        current->wake_tick = end;
        add_deadline(end);
        if (!sleep_on(&ticks))
            return ERROR_INTERRUPTED;
    }
    return 0;
}

int32_t call_ticks(void)
{
    return (int32_t)ticks;
}

int32_t call_alarm(uint32_t duration)
{
    if (!timer_on)
        return ERROR_BAD_ARGUMENT;
    current->alarm_tick = duration ? ticks + duration : 0;
    add_deadline(current->alarm_tick);
    return 0;
}
