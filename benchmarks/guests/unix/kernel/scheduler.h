/* Who runs. A process that is ready waits its turn in a queue; one that sleeps names what it waits for by an address, and
   whoever changes that wakes all who sleep there: they look again. The kernel itself is never preempted. */
#ifndef SCHEDULER_H
#define SCHEDULER_H

#include <stdint.h>

struct process;
struct trap_frame;

_Noreturn void scheduler_start(void); /* to the first process that is ready */
void make_ready(struct process *process);
void schedule(void);                  /* run another; this one is in a queue, or ended */
int sleep_on(const void *what);       /* 0 if a signal woke it, or waits */
void wake(const void *what);
void wake_process(struct process *process);

void timer_start(void);
int timer_is_on(void);
void timer_tick(int of_program);      /* a tick came while a program ran, or while the kernel had nothing to do */

int32_t call_yield(void);
int32_t call_sleep(uint32_t ticks);
int32_t call_ticks(void);
int32_t call_alarm(uint32_t ticks);

#endif
