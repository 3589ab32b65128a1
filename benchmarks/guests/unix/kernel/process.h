/* A process: its structure lies at the lowest address of its kernel stack, the registers of its program at the highest. */
#ifndef PROCESS_H
#define PROCESS_H

#include "../include/abi.h"
#include "../include/sizes.h"
#include "../include/machine.h"
#include "areas.h"
#include "space.h"

enum process_state { PROCESS_FREE, PROCESS_READY, PROCESS_SLEEPING, PROCESS_ENDED };

struct process {
    enum process_state state;
    uint32_t number;
    uint32_t status;            /* for wait(), when it has ended */
    uint32_t root;              /* its address space */
    uint32_t kernel_esp;        /* while it does not run: where its kernel stack stands */
    struct process *next;       /* in the list of its state */
    const void *sleeps_on;      /* what it waits for; see scheduler.h */
    uint32_t wake_tick;         /* when it is woken in any case; 0 for never */
    uint32_t alarm_tick;        /* when SIGNAL_ALARM comes; 0 for never */
    struct process *parent, *first_child, *next_sibling;
    uint32_t signals_pending, signals_blocked; /* bit n: signal n */
    uint32_t handler_return;    /* where handlers return to */
    uint32_t handlers[SIGNALS]; /* linear addresses in the program; 0: the usual action */
    struct open_file *descriptors[DESCRIPTORS_OF_PROCESS];
    struct area areas[AREAS_OF_PROCESS];
    uint8_t reserve[PROCESS_BYTES - 60 - 4 * SIGNALS - 4 * DESCRIPTORS_OF_PROCESS - AREA_BYTES * AREAS_OF_PROCESS];
};

_Static_assert(sizeof(struct process) == PROCESS_BYTES, "size of a process");

extern struct process *current; /* the one that runs */

/* The registers of a process's program, since its last entry into the kernel. */
struct trap_frame *frame_of(struct process *process);

void processes_start(const void *call_page, uint32_t call_page_bytes);
_Noreturn void process_start_first(const char *const *arguments); /* the first of them is the program */
int process_add_call_page(struct process *process); /* 0 if memory ran out */
struct process *process_numbered(uint32_t number);  /* one that has not ended, or null */
struct process *process_after(struct process *process); /* the next one of all; null begins and ends */
_Noreturn void process_exit(uint32_t status);

int32_t call_fork(void);
int32_t call_fork_copying(void);
int32_t call_wait(uint32_t status_address);

#endif
