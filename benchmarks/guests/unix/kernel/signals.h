/* Signals: events that interrupt a program, as traps interrupt a processor. */
#ifndef SIGNALS_H
#define SIGNALS_H

#include <stdint.h>

struct process;

void signal_send(struct process *process, uint32_t number); /* it is taken on the way back to the program */
void signal_force(uint32_t number); /* the program itself caused it: it cannot be put off */
int signal_waits(void);             /* whether the running process has one to take */
void signals_take(void);            /* on the way back to the program: call a handler, or end the process */
void signals_forget_handlers(struct process *process);

int32_t call_signal(uint32_t number, uint32_t handler, uint32_t handler_return);
int32_t call_signal_return(void);
int32_t call_kill(uint32_t number, uint32_t signal);

#endif
