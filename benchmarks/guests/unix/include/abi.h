/* What the kernel and its programs agree on. System calls: EAX is the number, EBX, ECX, EDX the arguments, EAX the answer;
   a negative answer is an error. */
#ifndef ABI_H
#define ABI_H

#include <stddef.h>
#include <stdint.h>

#define CALL_EXIT 1             /* (code) */
#define CALL_FORK 2             /* () -> process number, 0 in the child; pages are shared until one is written */
#define CALL_FORK_COPYING 3     /* the same, and the pages are copied at once */
#define CALL_EXEC 4             /* (path, arguments) */
#define CALL_WAIT 5             /* (where to put the status) -> process number */
#define CALL_PROCESS_NUMBER 6   /* () */
#define CALL_PARENT_NUMBER 7    /* (): the null call of lmbench */
#define CALL_OPEN 8             /* (path, flags) -> descriptor */
#define CALL_CLOSE 9            /* (descriptor) */
#define CALL_READ 10            /* (descriptor, address, bytes) -> bytes */
#define CALL_WRITE 11           /* (descriptor, address, bytes) -> bytes */
#define CALL_SEEK 12            /* (descriptor, offset from the start) */
#define CALL_DUPLICATE 13       /* (descriptor) -> descriptor */
#define CALL_REMOVE 14          /* (path) */
#define CALL_PIPE 15            /* (two descriptors: to read from, to write to) */
#define CALL_MAP 16             /* (bytes) -> address of new memory, filled with zeros when it is touched */
#define CALL_UNMAP 17           /* (address) of a mapping, all of it */
#define CALL_SIGNAL 18          /* (number, handler, where the handler returns to) */
#define CALL_SIGNAL_RETURN 19   /* () from a handler */
#define CALL_KILL 20            /* (process number, signal) */
#define CALL_ALARM 21           /* (ticks): SIGNAL_ALARM then; 0 takes it back */
#define CALL_YIELD 22           /* () */
#define CALL_SLEEP 23           /* (ticks) */
#define CALL_TICKS 24           /* () -> ticks since the start */
#define CALL_OPTIONS 25         /* () -> OPTION_... */
#define CALL_FREE_PAGES 26      /* () -> page frames that nobody uses */
#define CALL_SHUTDOWN 27        /* (code): the first process only */
#define CALL_STAT 28            /* (path, struct file_status) */
#define CALLS 29

#define OPTION_TIMER 1          /* there are ticks: processes are preempted */
#define OPTION_SYSENTER 2       /* the system call page uses SYSENTER */

#define OPEN_WRITE 1
#define OPEN_CREATE 2           /* an empty file, whatever was there */

/* Two devices have names as files have: what is read from "zero" is zeros, what is written to "null" is gone. */
enum { STATUS_FILE, STATUS_ARCHIVED, STATUS_DEVICE };
struct file_status {
    uint32_t kind;              /* STATUS_... */
    uint32_t bytes;
    uint32_t users;             /* who has it open */
};

#define ERROR_PERMISSION -1
#define ERROR_NO_FILE -2
#define ERROR_NO_PROCESS -3
#define ERROR_INTERRUPTED -4
#define ERROR_TOO_LARGE -7
#define ERROR_NO_PROGRAM -8
#define ERROR_BAD_DESCRIPTOR -9
#define ERROR_NO_CHILD -10
#define ERROR_TRY_AGAIN -11
#define ERROR_NO_MEMORY -12
#define ERROR_BAD_ADDRESS -14
#define ERROR_BAD_ARGUMENT -22
#define ERROR_TOO_MANY -24
#define ERROR_BROKEN_PIPE -32
#define ERROR_NO_CALL -38

#define SIGNALS 32
#define SIGNAL_ILLEGAL 4
#define SIGNAL_TRAP 5
#define SIGNAL_ARITHMETIC 8
#define SIGNAL_KILL 9
#define SIGNAL_USER 10
#define SIGNAL_SEGMENT 11
#define SIGNAL_PIPE 13
#define SIGNAL_ALARM 14
#define SIGNAL_CHILD 17         /* ignored if it is not caught */

/* What wait() tells: the code of exit, or the signal that ended the process. */
#define STATUS_OF_EXIT(code) (((code) & 0xFF) << 8)
#define STATUS_OF_SIGNAL(number) (number)

/* The address space of a program. What lies below is the kernel's, what lies above is free: a VMM may live there. */
#define USER_START 0x40000000u
#define USER_MAPPINGS 0x60000000u
#define USER_STACK_TOP 0xBFFFE000u
#define USER_CALL_PAGE 0xBFFFF000u /* code of the kernel that makes a system call the fastest way there is */
#define USER_END 0xC0000000u

#endif
