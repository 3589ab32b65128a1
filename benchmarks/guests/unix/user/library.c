/* What every program here has. */
#include "program.h"

extern void handler_return(void);

int use_call_page;

static int32_t call(uint32_t number, uint32_t one, uint32_t two, uint32_t three)
{
    if (use_call_page)
        return call_by_page(number, one, two, three);
    return call_by_interrupt(number, one, two, three);
}

void exit(int code)
{
    for (;;)
        call(CALL_EXIT, (uint32_t)code, 0, 0);
}

int32_t fork(void) { return call(CALL_FORK, 0, 0, 0); }
int32_t fork_copying(void) { return call(CALL_FORK_COPYING, 0, 0, 0); }
int32_t wait(uint32_t *status) { return call(CALL_WAIT, (uint32_t)status, 0, 0); }
int32_t process_number(void) { return call(CALL_PROCESS_NUMBER, 0, 0, 0); }
int32_t parent_number(void) { return call(CALL_PARENT_NUMBER, 0, 0, 0); }
int32_t open(const char *path, uint32_t flags) { return call(CALL_OPEN, (uint32_t)path, flags, 0); }
int32_t close(int32_t descriptor) { return call(CALL_CLOSE, (uint32_t)descriptor, 0, 0); }
int32_t seek(int32_t descriptor, uint32_t offset) { return call(CALL_SEEK, (uint32_t)descriptor, offset, 0); }
int32_t duplicate(int32_t descriptor) { return call(CALL_DUPLICATE, (uint32_t)descriptor, 0, 0); }
int32_t remove(const char *path) { return call(CALL_REMOVE, (uint32_t)path, 0, 0); }
int32_t stat(const char *path, struct file_status *status) { return call(CALL_STAT, (uint32_t)path, (uint32_t)status, 0); }
int32_t pipe(int32_t descriptors[2]) { return call(CALL_PIPE, (uint32_t)descriptors, 0, 0); }
void *map(uint32_t bytes) { return (void *)call(CALL_MAP, bytes, 0, 0); }
int32_t unmap(void *address) { return call(CALL_UNMAP, (uint32_t)address, 0, 0); }
int32_t kill(int32_t process, uint32_t signal) { return call(CALL_KILL, (uint32_t)process, signal, 0); }
int32_t alarm(uint32_t duration) { return call(CALL_ALARM, duration, 0, 0); }
int32_t yield(void) { return call(CALL_YIELD, 0, 0, 0); }
int32_t sleep(uint32_t duration) { return call(CALL_SLEEP, duration, 0, 0); }
int32_t ticks(void) { return call(CALL_TICKS, 0, 0, 0); }
int32_t options(void) { return call(CALL_OPTIONS, 0, 0, 0); }
int32_t free_pages(void) { return call(CALL_FREE_PAGES, 0, 0, 0); }
int32_t shut_down(int code) { return call(CALL_SHUTDOWN, (uint32_t)code, 0, 0); }

int32_t exec(const char *path, const char *const *arguments)
{
    return call(CALL_EXEC, (uint32_t)path, (uint32_t)arguments, 0);
}

int32_t read(int32_t descriptor, void *to, uint32_t bytes)
{
    return call(CALL_READ, (uint32_t)descriptor, (uint32_t)to, bytes);
}

int32_t write(int32_t descriptor, const void *from, uint32_t bytes)
{
    return call(CALL_WRITE, (uint32_t)descriptor, (uint32_t)from, bytes);
}

int32_t on_signal(uint32_t number, handler handler)
{
    return call(CALL_SIGNAL, number, (uint32_t)handler, (uint32_t)handler_return);
}

void *memcpy(void *to, const void *from, size_t bytes)
{
    void *target = to;

    __asm__ volatile("rep movsb" : "+D"(target), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    void *target = to;

    __asm__ volatile("rep stosb" : "+D"(target), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

void print(const char *text)
{
    uint32_t bytes = 0;

    while (text[bytes])
        bytes++;
    write(1, text, bytes);
}

void print_decimal(uint32_t value)
{
    char digits[11];
    char *first = digits + 10;

    for (*first = 0; value || !*first; value /= 10)
        *--first = (char)('0' + value % 10);
    print(first);
}

int same_text(const char *one, const char *two)
{
    while (*one && *one == *two) {
        one++;
        two++;
    }
    return *one == *two;
}

uint32_t decimal(const char *digits)
{
    uint32_t value = 0;

    while (*digits)
        value = value * 10 + (uint32_t)(*digits++ - '0');
    return value;
}

uint32_t wait_for(int32_t child)
{
    uint32_t status;
    int32_t ended;

    do {
        ended = wait(&status);
        check(ended > 0 || ended == ERROR_INTERRUPTED, "wait() finds the child");
    } while (ended != child);
    return status;
}

void check(int holds, const char *what)
{
    if (!holds) {
        print("  not so: ");
        print(what);
        print("\n");
        exit(1);
    }
}
