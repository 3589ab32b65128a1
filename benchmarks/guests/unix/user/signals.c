/* Signals: handlers, what they interrupt, and the faults of a program itself. */
#include "program.h"

#define REGISTERS_LOST 0xBAD

static volatile uint32_t count, last, blocked_inside;

static void note(uint32_t number, uint32_t blocked, struct registers registers)
{
    (void)blocked;
    (void)registers;
    count++;
    last = number;
}

/* Send itself the same signal: it must wait until the handler is done. */
static void again(uint32_t number, uint32_t blocked, struct registers registers)
{
    const uint32_t before = count++;

    (void)blocked;
    (void)registers;
    if (before == 0) {
        kill(process_number(), number);
        blocked_inside = count == 1;
    }
}

/* The instruction that faulted has two bytes: go on behind it. */
static void skip(uint32_t number, uint32_t blocked, struct registers registers)
{
    volatile uint32_t *eip = &registers.eip;

    (void)blocked;
    count++;
    last = number;
    *eip += 2;
}

/* INT 0x80 with a value in every register, which a handler interrupts on its way back: all must be as before. */
static uint32_t registers_after_kill(uint32_t number)
{
    uint32_t eax = CALL_KILL, ebx = (uint32_t)process_number(), ecx = number, edx = 0x13579BDF;
    uint32_t esi = 0x2468ACE0, edi = 0x0F1E2D3C;

    __asm__ volatile("int $0x80" : "+a"(eax), "+b"(ebx), "+c"(ecx), "+d"(edx), "+S"(esi), "+D"(edi) : : "memory");
    if (eax != 0 || ecx != number || edx != 0x13579BDF || esi != 0x2468ACE0 || edi != 0x0F1E2D3C)
        return REGISTERS_LOST;
    return ebx;
}

static void test_handler(void)
{
    check(on_signal(SIGNAL_USER, note) == 0, "a handler can be set");
    check(on_signal(SIGNAL_KILL, note) == ERROR_BAD_ARGUMENT, "SIGNAL_KILL cannot be caught");
    count = 0;
    check(registers_after_kill(SIGNAL_USER) == (uint32_t)process_number(), "a handler changes no register");
    check(count == 1 && last == SIGNAL_USER, "the handler was called once");
    use_call_page = 1;
    check(kill(process_number(), SIGNAL_USER) == 0 && count == 2, "the same from a call by the call page");
    use_call_page = 0;
    on_signal(SIGNAL_USER, again);
    count = 0;
    kill(process_number(), SIGNAL_USER);
    check(count == 2 && blocked_inside, "a signal waits while its handler runs");
    on_signal(SIGNAL_USER, 0);
}

static void test_faults(void)
{
    count = 0;
    on_signal(SIGNAL_ARITHMETIC, skip);
    __asm__ volatile("divl %%ecx" : : "a"(1), "d"(0), "c"(0));
    check(count == 1 && last == SIGNAL_ARITHMETIC, "a division by zero");
    on_signal(SIGNAL_ILLEGAL, skip);
    __asm__ volatile("ud2");
    check(count == 2 && last == SIGNAL_ILLEGAL, "an invalid instruction");
    on_signal(SIGNAL_SEGMENT, skip);
    __asm__ volatile("movl (%%eax), %%eax" : : "a"(0x100000) : "memory");
    check(count == 3 && last == SIGNAL_SEGMENT, "a read of the kernel");
    __asm__ volatile("hlt; nop");
    check(count == 4 && last == SIGNAL_SEGMENT, "a privileged instruction");
    on_signal(SIGNAL_TRAP, note);
    __asm__ volatile("int3");
    check(count == 5 && last == SIGNAL_TRAP, "a breakpoint");
}

/* How a child ends that does this to itself. */
static uint32_t ends_by(uint32_t what)
{
    const int32_t child = fork();

    if (child == 0) {
        for (uint32_t number = 1; number < SIGNALS; number++)
            on_signal(number, 0);
        if (what == SIGNAL_ARITHMETIC)
            __asm__ volatile("divl %%ecx" : : "a"(1), "d"(0), "c"(0));
        if (what == SIGNAL_SEGMENT)
            __asm__ volatile("movl %%eax, %%esp\n\tpushl $0" : : "a"(0x1000) : "memory");
        kill(process_number(), what);
        exit(5);
    }
    return wait_for(child);
}

/* A handler without a stack to run on ends the process. */
static uint32_t without_stack(void)
{
    const int32_t child = fork();

    if (child == 0) {
        on_signal(SIGNAL_SEGMENT, skip);
        __asm__ volatile("movl %%eax, %%esp\n\tpushl $0" : : "a"(0x1000) : "memory");
        exit(6);
    }
    return wait_for(child);
}

static void test_ends(void)
{
    check(ends_by(SIGNAL_ARITHMETIC) == STATUS_OF_SIGNAL(SIGNAL_ARITHMETIC), "a division by zero ends a program");
    check(ends_by(SIGNAL_SEGMENT) == STATUS_OF_SIGNAL(SIGNAL_SEGMENT), "a stack nowhere ends a program");
    check(ends_by(SIGNAL_KILL) == STATUS_OF_SIGNAL(SIGNAL_KILL), "SIGNAL_KILL ends a program");
    check(ends_by(SIGNAL_USER) == STATUS_OF_SIGNAL(SIGNAL_USER), "so does another that is not caught");
    check(ends_by(SIGNAL_CHILD) == STATUS_OF_EXIT(5), "but SIGNAL_CHILD does not");
    check(without_stack() == STATUS_OF_SIGNAL(SIGNAL_SEGMENT), "no handler runs without a stack");
    check(kill(9999, SIGNAL_USER) == ERROR_NO_PROCESS, "nobody has that number");
}

/* A sleeper is woken by a signal: by its handler's return, or for good. */
static void test_sleepers(void)
{
    int32_t ends[2], child;
    char byte;

    pipe(ends);
    child = fork();
    if (child == 0) {
        on_signal(SIGNAL_USER, note);
        count = 0;
        write(ends[1], "r", 1);
        yield();
        exit(read(ends[0], &byte, 1) == ERROR_INTERRUPTED && count == 1 ? 7 : 8);
    }
    read(ends[0], &byte, 1);    /* it is ready */
    for (int turn = 0; turn < 5; turn++)
        yield();                /* it sleeps */
    kill(child, SIGNAL_USER);
    check(wait_for(child) == STATUS_OF_EXIT(7), "a handler interrupts a sleep");
    child = fork();
    if (child == 0)
        exit(read(ends[0], &byte, 1));
    yield();
    kill(child, SIGNAL_KILL);
    check(wait_for(child) == STATUS_OF_SIGNAL(SIGNAL_KILL), "a sleeper can be killed");
    close(ends[0]);
    close(ends[1]);
}

static void test_child_signal(void)
{
    count = 0;
    on_signal(SIGNAL_CHILD, note);
    if (fork() == 0)
        exit(0);
    while (!count)
        yield();
    check(last == SIGNAL_CHILD && wait(0) > 0, "a parent can be told when a child ends");
    on_signal(SIGNAL_CHILD, 0);
}

int main(void)
{
    test_handler();
    test_faults();
    test_ends();
    test_sleepers();
    test_child_signal();
    return 0;
}
