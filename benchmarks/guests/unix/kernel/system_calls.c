/* The table of system calls, and the ones that are too small for a file. */
#include "system_calls.h"

#include "../include/abi.h"
#include "console.h"
#include "exec.h"
#include "frames.h"
#include "pipe.h"
#include "process.h"
#include "scheduler.h"
#include "signals.h"

typedef int32_t (*call)(); /* each takes as many of the three arguments as it names */

static int32_t call_exit(uint32_t code)
{
    process_exit(STATUS_OF_EXIT(code));
}

static int32_t call_process_number(void)
{
    return (int32_t)current->number;
}

static int32_t call_parent_number(void)
{
    return current->parent ? (int32_t)current->parent->number : 0;
}

static int32_t call_options(void)
{
    return (timer_is_on() ? OPTION_TIMER : 0) | (machine_has_sysenter() ? OPTION_SYSENTER : 0);
}

static int32_t call_free_pages(void)
{
    return (int32_t)frames_free();
}

static int32_t call_shutdown(uint32_t code)
{
    if (current->number != 1)
        return ERROR_PERMISSION;
    finish(code);
}

static const call calls[CALLS] = {
    [CALL_EXIT] = call_exit,
    [CALL_FORK] = call_fork,
    [CALL_FORK_COPYING] = call_fork_copying,
    [CALL_EXEC] = call_exec,
    [CALL_WAIT] = call_wait,
    [CALL_PROCESS_NUMBER] = call_process_number,
    [CALL_PARENT_NUMBER] = call_parent_number,
    [CALL_OPEN] = call_open,
    [CALL_CLOSE] = call_close,
    [CALL_READ] = call_read,
    [CALL_WRITE] = call_write,
    [CALL_SEEK] = call_seek,
    [CALL_DUPLICATE] = call_duplicate,
    [CALL_REMOVE] = call_remove,
    [CALL_PIPE] = call_pipe,
    [CALL_MAP] = call_map,
    [CALL_UNMAP] = call_unmap,
    [CALL_SIGNAL] = call_signal,
    [CALL_SIGNAL_RETURN] = call_signal_return,
    [CALL_KILL] = call_kill,
    [CALL_ALARM] = call_alarm,
    [CALL_YIELD] = call_yield,
    [CALL_SLEEP] = call_sleep,
    [CALL_TICKS] = call_ticks,
    [CALL_OPTIONS] = call_options,
    [CALL_FREE_PAGES] = call_free_pages,
    [CALL_SHUTDOWN] = call_shutdown,
    [CALL_STAT] = call_stat,
};

void system_call(struct trap_frame *frame)
{
    if (frame->eax < CALLS && calls[frame->eax])
        frame->eax = (uint32_t)calls[frame->eax](frame->ebx, frame->ecx, frame->edx);
    else
        frame->eax = (uint32_t)ERROR_NO_CALL;
}
