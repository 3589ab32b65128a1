/* What every program here has: the system calls as functions, a little text, checks, and the marks of measured regions. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "../include/abi.h"
#include "../include/sizes.h"

/* A system call by INT 0x80, and one by the code that the kernel offers at USER_CALL_PAGE. */
static inline int32_t call_by_interrupt(uint32_t number, uint32_t one, uint32_t two, uint32_t three)
{
    int32_t answer;

    __asm__ volatile("int $0x80" : "=a"(answer) : "a"(number), "b"(one), "c"(two), "d"(three) : "memory");
    return answer;
}

static inline int32_t call_by_page(uint32_t number, uint32_t one, uint32_t two, uint32_t three)
{
    int32_t answer;

    __asm__ volatile("call *%5" : "=a"(answer)
                     : "a"(number), "b"(one), "c"(two), "d"(three), "S"(USER_CALL_PAGE) : "memory", "cc");
    return answer;
}

extern int use_call_page;       /* which of the two the functions below take; 0 at first */

void exit(int code) __attribute__((noreturn));
int32_t fork(void);
int32_t fork_copying(void);
int32_t exec(const char *path, const char *const *arguments);
int32_t wait(uint32_t *status);
int32_t process_number(void);
int32_t parent_number(void);
int32_t open(const char *path, uint32_t flags);
int32_t close(int32_t descriptor);
int32_t read(int32_t descriptor, void *to, uint32_t bytes);
int32_t write(int32_t descriptor, const void *from, uint32_t bytes);
int32_t seek(int32_t descriptor, uint32_t offset);
int32_t duplicate(int32_t descriptor);
int32_t remove(const char *path);
int32_t stat(const char *path, struct file_status *status);
int32_t pipe(int32_t descriptors[2]);
void *map(uint32_t bytes);      /* an error is a number above -100 here too: see is_error */
int32_t unmap(void *address);
int32_t kill(int32_t process, uint32_t signal);
int32_t alarm(uint32_t ticks);
int32_t yield(void);
int32_t sleep(uint32_t ticks);
int32_t ticks(void);
int32_t options(void);
int32_t free_pages(void);
int32_t shut_down(int code);

/* A handler may change the registers that its program goes on with: they lie on the stack as its last argument. */
struct registers {
    uint32_t edi, esi, ebp, reserved, ebx, edx, ecx, eax, vector, error, eip, cs, eflags, esp, ss;
};
typedef void (*handler)(uint32_t number, uint32_t blocked, struct registers registers);
int32_t on_signal(uint32_t number, handler handler); /* null: the usual action */

static inline int is_error(const void *address)
{
    return (uint32_t)address > (uint32_t)-100;
}

void print(const char *text);
void print_decimal(uint32_t value);
int same_text(const char *one, const char *two);
uint32_t decimal(const char *digits);

/* Wait for one child of this number; its status. Other children that end meanwhile are forgotten. */
uint32_t wait_for(int32_t child);

/* Say what was expected and end with code 1, unless it is so. */
void check(int holds, const char *what);

/* A measured region: the simulator sees both marks at no cost, elsewhere they do nothing. */
#define REGION_BEGIN(number) __asm__ volatile("movl %0, %%edx\n\txchgw %%bx, %%bx" : : "i"(number) : "edx", "memory")
#define REGION_END(iterations) __asm__ volatile("xchgw %%cx, %%cx" : : "a"(iterations) : "memory")

/* Do something so many times, at least once, in a region. (A loop that asks first would be compiled twice, marks and all.) */
#define MEASURE(number, iterations, ...) \
    do { \
        uint32_t turns_left = iterations; \
        REGION_BEGIN(number); \
        do { \
            __VA_ARGS__; \
        } while (--turns_left); \
        REGION_END(iterations); \
    } while (0)

#endif
