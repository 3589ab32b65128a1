/* The table of system calls. */
#ifndef SYSTEM_CALLS_H
#define SYSTEM_CALLS_H

#include "../include/machine.h"

void system_call(struct trap_frame *frame);

#endif
