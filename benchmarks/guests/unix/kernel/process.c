/* The birth and the death of processes. */
#include "process.h"

#include "bytes.h"
#include "console.h"
#include "exec.h"
#include "frames.h"
#include "scheduler.h"
#include "signals.h"

union slot {
    struct process process;
    uint8_t stack[KERNEL_STACK_BYTES];
};

extern void machine_return_from_trap(void);

static union slot slots[PROCESSES] __attribute__((section(".bss.stacks"), aligned(KERNEL_STACK_BYTES)));
static struct process *first_free;
static struct process *first_process; /* number 1: it inherits the children of those who end */
static uint32_t last_number;
static uint32_t call_page_frame;

struct process *current;

struct trap_frame *frame_of(struct process *process)
{
    return (struct trap_frame *)((uint8_t *)process + KERNEL_STACK_BYTES) - 1;
}

static void make_free(struct process *process)
{
    process->state = PROCESS_FREE;
    process->next = first_free;
    first_free = process;
}

void processes_start(const void *call_page, uint32_t call_page_bytes)
{
    for (int number = PROCESSES - 1; number >= 0; number--)
        make_free(&slots[number].process);
    call_page_frame = frame_allocate_clear();
    memcpy((void *)call_page_frame, call_page, call_page_bytes);
}

/* What a process that has never run finds on its kernel stack: switch_stacks() goes to the way out of the kernel. */
static void prepare_stack(struct process *process)
{
    uint32_t *esp = (uint32_t *)frame_of(process);

    *--esp = (uint32_t)machine_return_from_trap;
    esp -= 4;                   /* EBX, ESI, EDI, EBP: whatever they hold, the frame replaces it */
    process->kernel_esp = (uint32_t)esp;
}

int process_add_call_page(struct process *process)
{
    if (!area_add(process, USER_CALL_PAGE, USER_CALL_PAGE + PAGE_BYTES, AREA_OF_KERNEL) ||
        !space_map(process->root, USER_CALL_PAGE, call_page_frame | ENTRY_P | ENTRY_U))
        return 0;
    frame_share(call_page_frame);
    return 1;
}

/* A process out of nothing. */
_Noreturn void process_start_first(const char *const *arguments)
{
    struct process *process = first_free;

    first_free = process->next;
    memset(process, 0, sizeof *process);
    process->number = last_number = 1;
    process->root = space_create();
    prepare_stack(process);
    first_process = current = process;
    console_open(process);
    if (exec_first(arguments) != 0)
        panic("the first program cannot be started", EXIT_PANIC);
    make_ready(process);
    scheduler_start();
}

static void share_descriptors(struct process *child)
{
    for (unsigned number = 0; number < DESCRIPTORS_OF_PROCESS; number++)
        if (child->descriptors[number])
            open_file_share(child->descriptors[number]);
}

/* The child becomes the running process again in its own space, at the same place of the same program, with EAX = 0. */
static int32_t fork(enum fork_way way)
{
    struct process *child = first_free;
    uint32_t root;

    if (!child)
        return ERROR_TRY_AGAIN;
    root = space_create();
    if (!root)
        return ERROR_NO_MEMORY;
    if (!space_fork(current->root, root, way)) {
        space_destroy(root);
        return ERROR_NO_MEMORY;
    }
    first_free = child->next;
    *child = *current;
    child->root = root;
    child->number = ++last_number;
    child->parent = current;
    child->first_child = 0;
    child->next_sibling = current->first_child;
    current->first_child = child;
    child->signals_pending = 0;
    child->alarm_tick = 0;
    share_descriptors(child);
    *frame_of(child) = *frame_of(current);
    frame_of(child)->eax = 0;
    prepare_stack(child);
    make_ready(child);
    return (int32_t)child->number;
}

int32_t call_fork(void)
{
    return fork(FORK_SHARING);
}

int32_t call_fork_copying(void)
{
    return fork(FORK_COPYING);
}

struct process *process_after(struct process *process)
{
    union slot *slot = process ? (union slot *)process + 1 : slots;

    for (; slot < slots + PROCESSES; slot++)
        if (slot->process.state != PROCESS_FREE)
            return &slot->process;
    return 0;
}

struct process *process_numbered(uint32_t number)
{
    struct process *process = 0;

    while ((process = process_after(process)))
        if (process->number == number && process->state != PROCESS_ENDED)
            return process;
    return 0;
}

/* Children of one who ends become those of the first process, which waits for whomever it has. */
static void hand_over_children(void)
{
    struct process *child;

    while ((child = current->first_child)) {
        current->first_child = child->next_sibling;
        child->parent = first_process;
        child->next_sibling = first_process->first_child;
        first_process->first_child = child;
    }
    wake(first_process);
}

_Noreturn void process_exit(uint32_t status)
{
    if (current == first_process)
        panic("the first process ended", EXIT_PANIC);
    for (unsigned number = 0; number < DESCRIPTORS_OF_PROCESS; number++)
        if (current->descriptors[number])
            call_close(number);
    space_leave();              /* the pages are somebody else's from now on */
    space_clear(current->root);
    hand_over_children();
    current->status = status;
    current->state = PROCESS_ENDED;
    signal_send(current->parent, SIGNAL_CHILD);
    wake(current->parent);
    schedule();
    panic("an ended process ran", EXIT_PANIC);
}

/* Take an ended child out of its parent's list and out of the world. */
static void bury(struct process **link)
{
    struct process *child = *link;

    *link = child->next_sibling;
    space_destroy(child->root);
    make_free(child);
}

int32_t call_wait(uint32_t status_address)
{
    if (status_address && !can_write(status_address, 4))
        return ERROR_BAD_ADDRESS;
    for (int interrupted = 0;; interrupted = !sleep_on(current)) {
        if (!current->first_child)
            return ERROR_NO_CHILD;
        for (struct process **link = &current->first_child; *link; link = &(*link)->next_sibling)
            if ((*link)->state == PROCESS_ENDED) {
                const int32_t number = (int32_t)(*link)->number;

                if (status_address)
                    *(uint32_t *)status_address = (*link)->status;
                bury(link);
                return number;
            }
        if (interrupted)
            return ERROR_INTERRUPTED;
    }
}
